"use strict";
// The page of a sweep.

const UNITS = { step: "steps", tokens: "tokens", samples: "samples", seconds: "seconds" };
const FIRST_ARMS = 6; // of many arms so many are drawn at first

function sweepPage() {
  const { sweep } = data;
  const arms = sweep.arms ?? [];
  const runs = sweep.runs ?? [];
  const done = runs.filter((run) => run.done).length;
  head([sweep.metric, `${arms.length} arms`, runs.length ? `${done} of ${runs.length} runs done` : ""].filter(Boolean).join("  ·  "));
  comparisonSection(sweep.comparisons ?? []);
  armSection(arms, sweep.metric ?? "quality");
  shapeSection(arms, sweep.metric ?? "quality");
  armCurves(arms, sweep.metric ?? "quality");
  treeSection("A late tree of each run", data.trees, data.trees_logged,
    (tree) => `${tree.arm}, seed ${tree.seed}, after step ${tree.step}`);
  if (data.command) section("Command", el("p", {}, "This goes on where the sweep is, or repeats it in an empty directory:"), command(data.command));
}

function comparisonSection(comparisons) {
  if (!comparisons.length) return;
  const budget = (found) => (found.at != null ? `equal ${found.budget}, ${number(found.at, 3)}` : found.budget === "end" ? "at the end, test split" : found.budget);
  const place = el("div");
  const budgets = [...new Set(comparisons.map((found) => found.budget))];
  const choice = el("select", { onchange: () => show() }, el("option", { value: "" }, "all"),
    ...budgets.map((name) => el("option", { value: name }, name)));
  if (budgets.includes("end")) choice.value = "end"; // many pairs times many budgets is a long table
  function show() {
    const held = comparisons.filter((found) => !choice.value || found.budget === choice.value);
    const rows = held.map((found) => [`${found.first} ${MINUS} ${found.second}`, budget(found), interval(found.difference),
      found.seeds == null ? NONE : String(found.seeds), found.verdict]);
    const keys = held.map((found) => [`${found.first} ${found.second}`, budget(found), found.difference?.[0], found.seeds, found.verdict]);
    place.replaceChildren(table("Paired differences, by seed and by example, mean [95 % interval over seeds and examples; over examples alone of one seed]",
      ["pair", "budget", "difference", "seeds", "verdict"], rows, { textColumns: [0, 1, 4], keys }));
  }
  section("Comparisons", el("div", { class: "bar" }, el("label", {}, "Compared at", choice)), place);
  show();
}

function armSection(arms, metric) {
  if (!arms.length) return;
  const columns = [
    ["arm", (arm) => arm.label, (arm) => arm.label],
    ["K", (arm) => arm.thoughts, (arm) => number(arm.thoughts)],
    ["M", (arm) => arm.answers, (arm) => number(arm.answers)],
    ["seeds", (arm) => arm.seeds?.length, (arm) => number(arm.seeds?.length)],
    ["quality", (arm) => arm.quality?.[0], (arm) => interval(arm.quality)],
    ["gain over SFT", (arm) => arm.gain?.[0], (arm) => interval(arm.gain)],
    ["tokens", (arm) => arm.tokens, (arm) => number(arm.tokens, 3)],
    ["seconds", (arm) => arm.seconds, (arm) => number(arm.seconds, 3)],
    ["s per step", (arm) => arm.step_seconds, (arm) => fixed(arm.step_seconds)],
    ["grad norm", (arm) => arm.grad_norm, (arm) => number(arm.grad_norm, 3)],
    ["worst spike", (arm) => arm.max_spike_score, (arm) => fixed(arm.max_spike_score, 2)],
    ["spikes", (arm) => arm.spikes, (arm) => number(arm.spikes, 3)],
    ["variance of A", (arm) => arm.thought_advantage_variance?.[0], (arm) => interval(arm.thought_advantage_variance)],
  ].filter(([, key]) => arms.some((arm) => key(arm) != null));
  section("Arms",
    table(`${metric} on the test split, mean [95 % interval]; choose a column to sort by it`, columns.map(([name]) => name),
      arms.map((arm) => columns.map(([, , cell]) => cell(arm))), { textColumns: [0], keys: arms.map((arm) => columns.map(([, key]) => key(arm))) }),
    el("p", { class: "soft" }, "Worst spike: the largest ratio of a step's gradient norm to the phase's running mean, that step included, averaged over seeds; a spike is above 10. Variance of A: of the thought advantage, estimated online from a thought's M answers."));
}

function shapeSection(arms, metric) {
  const plain = (arm) => /^T\d+A\d+$/.test(arm.label ?? ""); // other arms change something else too
  const four = arms.filter((arm) => arm.thoughts === 4 && plain(arm));
  const quality = dotPlot(`${metric} at the end`, arms.map((arm) => ({ label: String(arm.label), figures: arm.quality })));
  const against = [
    four.length > 1 ? pointPlot(`${metric} against M, K = 4`, "answers per thought, M", four.map((arm) => ({ x: arm.answers, figures: arm.quality })), { logX: true }) : null,
    pointPlot("Variance of the thought advantage against M", "answers per thought, M (both axes logarithmic)",
      arms.filter(plain).map((arm) => ({ x: arm.answers, label: `K = ${arm.thoughts}`, figures: arm.thought_advantage_variance })), { logX: true, logY: true }),
  ].filter(Boolean);
  const beside = against.length ? el("div", { class: "stack" }, ...against) : null;
  if (quality || beside) section("Quality and variance", el("div", { class: "charts" }, ...[quality, beside].filter(Boolean)));
}

function chosenFirst(labels) {
  const compared = new Set((data.sweep.comparisons ?? []).flatMap((found) => [found.first, found.second]));
  const first = labels.filter((label) => compared.has(label));
  return new Set((first.length ? first : labels).slice(0, FIRST_ARMS));
}

// Columns over the union of all x; null where a line has no point.
function joined(lines) {
  const x = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const place = new Map(x.map((value, index) => [value, index]));
  return { x, lines: lines.map((line) => {
    const values = Array(x.length).fill(null);
    line.x.forEach((value, index) => { values[place.get(value)] = line.y[index]; });
    return { ...line, values };
  }) };
}

function armCurves(arms, metric) {
  const labels = [...new Set([...arms.filter((arm) => arm.curve?.length).map((arm) => arm.label), ...data.norms.map((run) => run.arm)])];
  if (!labels.length) return;
  const shown = chosenFirst(labels);
  const place = el("div", { class: "charts" });
  const groups = [];
  const order = [...shown, ...labels.filter((label) => !shown.has(label))]; // what is shown differs
  const tint = (label) => seriesColour(order.indexOf(label));
  const scale = el("input", { type: "checkbox", onchange: () => draw() });

  function chart(options, lines) {
    if (!lines.length) return null;
    const group = new ChartGroup();
    groups.push(group);
    const { x, lines: columns } = joined(lines);
    return x.length > 1 ? new Chart(group, { ...options, x, lines: columns }) : null;
  }

  // An arm's mean (0) or an end of its interval (1, 2) against what was spent.
  function armLine(arm, key, part, look) {
    const held = arm.curve.filter((point) => point[key] != null);
    return { ...look, colour: tint(arm.label), x: held.map((point) => point[key]), y: held.map((point) => point.quality?.[part] ?? null) };
  }

  function draw() {
    groups.splice(0).forEach((group) => group.charts.forEach((one) => one.plot?.destroy()));
    const curved = arms.filter((arm) => arm.curve?.length && shown.has(arm.label));
    const charts = Object.entries(UNITS).map(([key, name]) => chart({ title: `${metric} against ${name}`, xLabel: name },
      curved.filter((arm) => arm.curve.some((point) => point[key] != null)).flatMap((arm) => [
        armLine(arm, key, 1, { name: `${arm.label} low`, faint: true }),
        armLine(arm, key, 2, { name: `${arm.label} high`, faint: true }),
        armLine(arm, key, 0, { name: arm.label, points: true }),
      ])));
    charts.push(chart({ title: "Gradient norm of every run", xLabel: "step of the phase", log: scale.checked, wide: true, height: 280 },
      data.norms.filter((run) => shown.has(run.arm)).map((run) => ({
        name: `${run.arm}, seed ${run.seed}`, colour: tint(run.arm), x: run.step,
        y: scale.checked ? run.grad_norm.map((value) => (value > 0 ? value : null)) : run.grad_norm,
      }))));
    const drawn = charts.filter(Boolean);
    place.replaceChildren(...drawn.map((one) => one.node));
    drawn.forEach((one) => one.draw());
  }

  const boxes = labels.map((label) => {
    const box = el("input", { type: "checkbox", checked: shown.has(label), onchange: () => {
      shown[box.checked ? "add" : "delete"](label);
      draw();
    } });
    return own(el("label", { class: "key" }, box, ` ${label}`), `var(--${tint(label)})`);
  });
  section("Curves", el("p", { class: "soft" }, "Quality is on the validation split, the mean over seeds; faint lines are the ends of its 95 % interval. Drag to zoom, double click or Escape to reset; in focus, arrow keys pan, + and − zoom. Gradient norms are thinned to 300 points a run that keep every lowest and highest value."),
    el("div", { class: "arms", role: "group", "aria-label": "Arms shown" }, ...boxes),
    el("div", { class: "bar" }, el("label", {}, scale, "Gradient norms on a logarithmic axis")), place);
  draw();
  redrawOnResize(() => groups.forEach((group) => group.charts.forEach((one) => one.draw())));
}

if (data.kind === "sweep") sweepPage();
