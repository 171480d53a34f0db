"use strict";
// The page of a run.

const PARTS = { rollout: "rollout", reward: "reward", update: "update" };
// What is shown unless something else is chosen: title, metrics.
const DEFAULT_CHARTS = [
  ["Reward", (name) => name === "reward"],
  ["Quality on held-out examples", (name) => headlineMetrics().includes(name)],
  ["Loss", (name) => name === "loss"],
  ["Gradient norm", (name) => name === "grad_norm"],
  ["Gradient spike score", (name) => name === "grad_spike_score"],
  ["Entropy, nats per token", (name) => /^(thought|answer)\/entropy$/.test(name)],
  ["Length, tokens", (name) => /^(thought|answer)\/completions\/mean_length$/.test(name)],
  ["Reward variance", (name) => /^reward_variance\/(between|within)_thoughts$/.test(name)],
  ["Seconds per step", (name) => name.startsWith("seconds/") || name === "step_time"],
];
const OTHER_QUALITY = /\/(format|parsed)$/;

function headlineMetrics() {
  const found = Object.keys(data.curves.metrics).filter((name) => name.startsWith("eval_"));
  const first = found.filter((name) => !OTHER_QUALITY.test(name));
  return first.length > 4 ? first.slice(0, 4) : first;
}

function runPage() {
  const { config } = data;
  const shape = config.tree ? `${config.tree.thoughts} thoughts × ${config.tree.answers} answers` : "";
  const facts = [data.trained, config.task?.name, config.model?.family, shape, config.seed == null ? "" : `seed ${config.seed}`];
  head(facts.filter(Boolean).join("  ·  "));
  qualitySection();
  phaseSection();
  curveSection();
  treeSection("Trees", data.trees, data.trees_logged, (tree) => `after step ${tree.step}`);
  configSection();
}

function qualitySection() {
  const { quality } = data;
  if (!quality) return;
  const rows = quality.rows.map((row) => [row.name.replace("/", " "), ...row.figures.map((figures, place) => {
    const cell = interval(figures);
    const apart = figures && (figures[1] > 0 || figures[2] < 0); // zero is outside
    if (quality.columns[place] === "difference" && apart) cell.classList.add("apart");
    return cell;
  })]);
  const paired = quality.columns.includes("difference") ? "; differences are paired, example by example; bold where the interval leaves out 0" : "";
  section("Quality", table(`${quality.examples} examples of the ${quality.split} split, mean [95 % interval over examples]${paired}`,
    ["", ...quality.columns], rows),
    quality.broken.length ? el("details", {}, el("summary", {}, `Responses of ${quality.columns.at(-1) === "difference" ? quality.columns.at(-2) : quality.columns.at(-1)} that broke the form, as they were written`),
      ...quality.broken.map(([row, text]) => el("div", {}, el("p", { class: "caption" }, `example ${row}`), el("pre", {}, text)))) : null);
}

function phaseSection() {
  if (!data.phases.length) return;
  const seconds = (value) => (value == null ? NONE : value.toFixed(value < 10 ? 1 : 0));
  const rows = data.phases.map((phase) => [phase.phase.toUpperCase(), number(phase.steps, 9),
    ...Object.keys(PARTS).map((part) => seconds(phase.seconds[part])), seconds(phase.seconds_all),
    phase.seconds_all == null ? NONE : fixed(phase.seconds_all / phase.steps), phase.tokens == null ? NONE : Math.round(phase.tokens).toLocaleString("en-US")]);
  const spikes = data.phases.filter((phase) => phase.spikes).map(({ phase, spikes }) => [phase.toUpperCase(), number(spikes.steps, 9),
    fixed(spikes.largest, 2), `${spikes.above} (${(100 * spikes.share).toFixed(1)} %)`, String(spikes.not_finite)]);
  section("Phases",
    table("Seconds by part; tokens sampled in RL, trained on in SFT", ["", "steps", "rollout s", "reward s", "update s", "all s", "s per step", "tokens"], rows),
    spikes.length ? table("Gradient spikes", ["", "steps", "largest score", `above ${data.spike_limit}`, "not finite"], spikes) : null,
    spikes.length ? el("p", { class: "soft" }, `Spike score: a step's global gradient norm, before clipping, over the running mean of its phase with that step included; a spike is a score above ${data.spike_limit}; norms that are not finite are counted apart. The mean and the limit are our choice, after SPAM (arXiv 2501.06842).`) : null);
}

// Where each phase begins and ends on the axis of steps.
function phaseBands() {
  const { step, phase } = data.curves;
  const bands = [];
  phase.forEach((name, place) => {
    if (bands.at(-1)?.phase !== name) bands.push({ phase: name, name: String(name).toUpperCase(), from: step[place], start: place });
    bands.at(-1).to = step[place];
  });
  bands.forEach((band, place) => { if (place + 1 < bands.length) band.to = bands[place + 1].from; });
  return bands;
}

const shortName = (name) => name.replace("/completions/mean_length", "").replace("/entropy", "")
  .replace("reward_variance/", "").replace("seconds/", "").replace("eval_", "").replaceAll("_", " ");

function curveSection() {
  const { curves } = data;
  const names = Object.keys(curves.metrics);
  if (curves.step.length < 2 || !names.length) return;
  const bands = phaseBands();
  const starts = new Set(bands.map((band) => band.start));
  const place = el("div", { class: "charts" });
  const group = new ChartGroup();
  const chosen = new Set();
  const slider = el("input", { type: "range", min: "0", max: "0.98", step: "0.02", value: "0.8", oninput: () => draw() });
  const said = el("output");

  function chart(title, own) {
    const weight = Number(slider.value);
    const lines = own.flatMap((name, index) => {
      const line = { name: own.length > 1 || title !== name ? shortName(name) : "", values: curves.metrics[name], colour: seriesColour(index) };
      const held = line.values.flatMap((value, at) => (value == null ? [] : [at]));
      const sparse = held.length < (held.at(-1) - held[0] + 1) / 4; // not of every step
      if (weight === 0 || sparse) return [{ ...line, points: sparse }];
      return [{ ...line, faint: true }, { ...line, values: smooth(line.values, weight, starts), smoothed: true }];
    });
    const log = title === "Seconds per step"; // a step that compiles is far above the others
    if (log) lines.forEach((line) => { line.values = line.values.map((value) => (value > 0 ? value : null)); });
    return new Chart(group, { title, x: curves.step, xLabel: "step", lines, bands, log });
  }

  function draw() {
    group.charts.forEach((one) => one.plot?.destroy());
    group.charts = [];
    said.textContent = slider.value;
    const shown = DEFAULT_CHARTS.map(([title, takes]) => [title, names.filter(takes)])
      .map(([title, own]) => [title, own.filter((name) => !hidden.has(name) && curves.metrics[name].some((value) => value != null))])
      .filter(([, own]) => own.length);
    const extra = [...chosen].map((name) => [name, [name]]);
    const charts = [...shown, ...extra].map(([title, own]) => chart(title, own));
    place.replaceChildren(...charts.map((one) => one.node));
    charts.forEach((one) => one.draw());
  }

  const hidden = new Set();
  const picker = el("div", { class: "picker" }, ...names.map((name) => {
    const byDefault = DEFAULT_CHARTS.some(([, takes]) => takes(name));
    const box = el("input", { type: "checkbox", checked: byDefault, onchange: () => {
      if (byDefault) hidden[box.checked ? "delete" : "add"](name);
      else chosen[box.checked ? "add" : "delete"](name);
      draw();
    } });
    return el("label", {}, box, ` ${name}`);
  }));
  const buttons = bands.length > 1
    ? bands.map((band) => el("button", { type: "button", onclick: () => group.setRange([band.from, band.to]) }, band.name)) : [];
  const thinned = curves.step.length < curves.logged
    ? `${curves.logged.toLocaleString("en-US")} steps, thinned: of every few steps each curve keeps its lowest and its highest value.` : "";
  section("Curves",
    el("p", { class: "soft" }, `Drag across a chart to zoom all of them; double click or Escape shows everything. With a chart in focus: arrow keys pan, + and − zoom. Faint lines are the raw values; figures beside a title are of the smooth line. ${thinned}`),
    el("div", { class: "bar" }, el("label", {}, "Smoothing", slider, said), ...buttons, ...rangeButtons(group)),
    el("details", {}, el("summary", {}, `Choose among ${names.length} metrics`), picker), place);
  draw();
  redrawOnResize(() => group.charts.forEach((one) => one.draw()));
}

function configSection() {
  const does = data.trained.startsWith("not trained") ? "evaluates" : "trains";
  section("Config", el("p", {}, `This ${does} the same config anew, from the folder in which the run was started:`), command(data.command),
    el("details", {}, el("summary", {}, "config.json"), el("pre", {}, JSON.stringify(data.config, null, 1))));
}

if (data.kind === "run") runPage();
