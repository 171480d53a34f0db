"use strict";
// Curves by uPlot: drag to zoom, double click or Escape to reset; arrows pan, + and − zoom.

const HEIGHT = 210;
const FAINT = 0.28;

// Charts of one group share their range of x.
class ChartGroup {
  constructor() {
    this.charts = [];
    this.range = null; // null: everything
  }
  setRange(range) {
    this.range = range;
    this.charts.forEach((chart) => chart.applyRange());
  }
}

// Exponential mean of a column, begun anew where `starts` says; the weights of the first steps are
// made up for, so that it does not lean to its first value.
function smooth(values, weight, starts) {
  let sum = 0;
  let mass = 0;
  return values.map((value, place) => {
    if (starts.has(place)) sum = mass = 0;
    if (value == null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

// lines: {name, values, colour, faint, x label}; bands: [{from, to, name}] named parts of the axis.
class Chart {
  constructor(group, { title, x, xLabel, lines, bands = [], log = false, wide = false, height = HEIGHT }) {
    Object.assign(this, { group, title, x, xLabel, bands, log, height });
    this.lines = lines;
    this.outputs = [];
    this.caption = el("figcaption");
    this.place = el("div");
    this.values = el("details", { ontoggle: () => this.fillTable() }, el("summary", {}, "Values"));
    this.node = el("figure", {
      class: wide ? "wide" : null, tabindex: "0", onkeydown: (event) => this.key(event),
      "aria-label": `${title}: chart. Arrow keys pan, plus and minus zoom, Escape resets.`,
    }, this.caption, this.place, this.values);
    group.charts.push(this);
  }

  get whole() {
    return [this.x[0], this.x[this.x.length - 1]];
  }

  draw() {
    if (!this.node.isConnected) return;
    this.plot?.destroy();
    this.drawCaption();
    const shown = this.lines.map((line) => colour(line.colour));
    const axis = { stroke: colour("soft"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const series = this.lines.map((line, place) => ({
      label: line.name, stroke: shown[place], width: line.faint ? 1 : 1.75, alpha: line.faint ? FAINT : 1,
      spanGaps: true, points: { show: line.points ?? false, size: 5 },
    }));
    const options = {
      width: Math.max(200, this.place.clientWidth), height: this.height, series: [{}, ...series],
      legend: { show: false }, cursor: { drag: { x: true, y: false, setScale: false }, y: false, points: { size: 5 } },
      scales: { x: { time: false }, y: this.log ? { distr: 3 } : { range: rangeOf } },
      axes: [{ ...axis, label: this.xLabel, labelSize: 18, labelFont: axis.font, size: 28 },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : number(tick))) }],
      hooks: { drawClear: [(plot) => this.drawBands(plot)], setCursor: [(plot) => this.showValues(plot)],
        setSelect: [(plot) => this.select(plot)] },
    };
    this.plot = new uPlot(options, [this.x, ...this.lines.map((line) => line.values)], this.place);
    // Its own reset would show all of x without telling the others.
    this.plot.over.addEventListener("dblclick", () => this.group.setRange(null));
    this.applyRange();
  }

  drawCaption() {
    const keyed = this.lines.filter((line) => !line.faint);
    this.outputs = keyed.map((line) => [line, el("output")]);
    this.caption.replaceChildren(el("h3", {}, this.title), ...this.outputs.map(([line, output]) =>
      own(el("span", { class: "key" }, `${line.name} `, output), `var(--${line.colour})`)));
    this.showValues(null);
  }

  showValues(plot) {
    const at = plot?.cursor.idx ?? null;
    for (const [line, output] of this.outputs) {
      const latest = line.values.findLast((value) => value != null);
      output.textContent = number(at == null ? latest : line.values[at]);
    }
  }

  drawBands(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    this.bands.forEach((band, place) => {
      const left = Math.max(bbox.left, plot.valToPos(band.from, "x", true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(band.to, "x", true));
      if (right <= left) return;
      if (place % 2 === 0 && this.bands.length > 1) {
        ctx.fillStyle = colour("band");
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
      }
      ctx.fillStyle = colour("soft");
      if (right - left > 34 * devicePixelRatio)
        ctx.fillText(band.name, left + 5 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
    });
    ctx.restore();
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width < 2) return;
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.group.setRange([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
  }

  applyRange() {
    if (!this.plot) return;
    const [min, max] = this.group.range ?? this.whole;
    this.plot.setScale("x", { min, max: max > min ? max : min + 1 });
    if (this.values.open) this.fillTable();
  }

  key(event) {
    if (event.target !== this.node || event.ctrlKey || event.metaKey || event.altKey) return;
    const [min, max] = this.group.range ?? this.whole;
    const [first, last] = this.whole;
    const span = max - min;
    const moved = { ArrowLeft: -span / 8, ArrowRight: span / 8 }[event.key];
    const zoom = { "+": 0.7, "=": 0.7, "-": 1 / 0.7, "−": 1 / 0.7 }[event.key];
    if (event.key === "Escape" || event.key === "0") this.group.setRange(null);
    else if (moved) {
      const shift = Math.min(Math.max(moved, first - min), last - max);
      this.group.setRange([min + shift, max + shift]);
    } else if (zoom) this.zoom(zoom);
    else return;
    event.preventDefault();
  }

  zoom(factor) {
    const [min, max] = this.group.range ?? this.whole;
    const [first, last] = this.whole;
    const half = ((max - min) / 2) * factor;
    const middle = (min + max) / 2;
    const range = [Math.max(first, middle - half), Math.min(last, middle + half)];
    this.group.setRange(range[0] <= first && range[1] >= last ? null : range);
  }

  // At most 60 rows of the range that is shown.
  fillTable() {
    if (!this.values.open) return;
    const [min, max] = this.group.range ?? this.whole;
    const inside = this.x.map((_, place) => place).filter((place) => this.x[place] >= min && this.x[place] <= max);
    const stride = Math.max(1, Math.ceil(inside.length / 60));
    const kept = inside.filter((_, place) => place % stride === 0 || place === inside.length - 1);
    const lines = this.lines.filter((line) => !line.smoothed);
    const rows = kept.map((place) => [number(this.x[place], 6), ...lines.map((line) => number(line.values[place]))]);
    this.values.replaceChildren(this.values.firstElementChild,
      table(`${this.title}, every ${stride}. of ${inside.length} points`, [this.xLabel, ...lines.map((line) => line.name)], rows));
  }
}

// What the y axis shows; uPlot's own range for a value that never changes would be 0 … 100 or twice it.
function rangeOf(plot, low, high) {
  if (low == null) return [0, 1];
  const room = low === high ? Math.abs(low) / 2 || 0.5 : 0;
  return room ? [low - room, high + room] : uPlot.rangeNum(low, high, 0.1, true);
}

function rangeButtons(group) {
  const zoom = (factor) => () => group.charts[0]?.zoom(factor);
  return [
    el("button", { type: "button", "aria-label": "Zoom in", onclick: zoom(0.7) }, "+"),
    el("button", { type: "button", "aria-label": "Zoom out", onclick: zoom(1 / 0.7) }, MINUS),
    el("button", { type: "button", onclick: () => group.setRange(null) }, "Reset"),
  ];
}

function redrawOnResize(draw) {
  redraws.push(draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) draw(); // a phone's bars change the height alone
    width = innerWidth;
  });
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text != null) node.textContent = text;
  return node;
}

function niceTicks(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  return ticks;
}

// Logarithms of round figures between two powers of ten; of a narrow range those of even ones.
function logTicks(low, high) {
  const round = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1)
    for (const factor of [1, 2, 5]) round.push(power + Math.log10(factor));
  const inside = round.filter((tick) => tick >= low && tick <= high);
  return inside.length >= 2 ? inside : niceTicks(10 ** low, 10 ** high, 4).map(Math.log10);
}

// Drawings are as wide as a column, so that their letters have the size of the page's.
const drawingWidth = () => (innerWidth < 640 ? 340 : 540);

// rows: {label, figures: [mean, low, high]}; a dot and its interval for each.
function dotPlot(title, rows) {
  const held = rows.filter((row) => row.figures && row.figures[0] != null);
  if (!held.length) return null;
  const ends = held.flatMap((row) => row.figures.filter((value) => value != null));
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const pad = (high - low) * 0.06 || 0.01;
  const narrow = drawingWidth() < 500;
  const size = { width: drawingWidth(), label: narrow ? 140 : 190, row: 24, bottom: 26 };
  const letters = narrow ? 17 : 27;
  const height = held.length * size.row + size.bottom;
  const at = (value) => size.label + ((value - low + pad) / (high - low + 2 * pad)) * (size.width - size.label - 10);
  const drawing = svg("svg", { viewBox: `0 0 ${size.width} ${height}`, role: "img", "aria-label": title });
  for (const tick of niceTicks(low - pad, high + pad, narrow ? 3 : 5)) {
    drawing.append(svg("line", { class: "grid", x1: at(tick), x2: at(tick), y1: 0, y2: height - size.bottom }));
    drawing.append(svg("text", { x: at(tick), y: height - 8, "text-anchor": "middle" }, number(tick)));
  }
  held.forEach((row, place) => {
    const y = place * size.row + size.row / 2;
    const [mean, from, to] = row.figures;
    const name = row.label.length > letters ? row.label.slice(0, letters - 1) + "…" : row.label;
    drawing.append(svg("text", { class: "name", x: size.label - 12, y: y + 4, "text-anchor": "end" }, name));
    if (from != null) drawing.append(svg("line", { class: "mark", x1: at(from), x2: at(to), y1: y, y2: y, "stroke-width": 2 }));
    drawing.append(svg("circle", { class: "mark", cx: at(mean), cy: y, r: 4.5 }));
  });
  return el("figure", {}, el("figcaption", {}, el("h3", {}, title)), drawing);
}

// points: {x, figures: [mean, low, high]}; small data with whiskers, x (and y) on log axes if said.
function pointPlot(title, xLabel, points, { logX = false, logY = false } = {}) {
  const held = points.filter((p) => p.figures?.[0] != null && p.x != null && (!logY || p.figures[0] > 0));
  if (!held.length) return null;
  const flat = (value, log) => (log ? Math.log10(value) : value);
  const ys = held.flatMap((p) => p.figures.filter((v) => v != null && (!logY || v > 0))).map((v) => flat(v, logY));
  const xs = held.map((p) => flat(p.x, logX));
  const box = { left: 62, right: drawingWidth() - 44, top: 10, bottom: 226 };
  const scale = (values, from, to) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.5;
    return { low: low - pad, high: high + pad, at: (v) => from + ((v - low + pad) / (high - low + 2 * pad)) * (to - from) };
  };
  const x = scale(xs, box.left, box.right);
  const y = scale(ys, box.bottom, box.top);
  const drawing = svg("svg", { viewBox: `0 0 ${drawingWidth()} 268`, role: "img", "aria-label": title });
  const ticks = logY ? logTicks(y.low, y.high) : niceTicks(y.low, y.high, 4);
  for (const tick of ticks) {
    drawing.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y.at(tick), y2: y.at(tick) }));
    drawing.append(svg("text", { x: box.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, number(logY ? 10 ** tick : tick, 3)));
  }
  for (const value of new Set(held.map((p) => p.x)))
    drawing.append(svg("text", { x: x.at(flat(value, logX)), y: box.bottom + 18, "text-anchor": "middle" }, number(value)));
  drawing.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, xLabel));
  for (const point of held) {
    const [mean, low, high] = point.figures;
    const across = x.at(flat(point.x, logX));
    const foot = !logY || low > 0 ? y.at(flat(low, logY)) : box.bottom; // no place for 0 on a log axis
    if (low != null)
      drawing.append(svg("line", { class: "mark", x1: across, x2: across, y1: foot, y2: y.at(flat(high, logY)), "stroke-width": 2 }));
    const dot = svg("circle", { class: "mark", cx: across, cy: y.at(flat(mean, logY)), r: 4.5 });
    dot.append(svg("title", {}, `${point.label ?? ""} ${number(mean)}`));
    drawing.append(dot);
    if (point.label) drawing.append(svg("text", { class: "name", x: across + 8, y: y.at(flat(mean, logY)) - 6 }, point.label));
  }
  return el("figure", {}, el("figcaption", {}, el("h3", {}, title)), drawing);
}
