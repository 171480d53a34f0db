"use strict";
// Every text of a run reaches the page through textContent or an attribute, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const redraws = []; // what is drawn on canvases draws anew when the colours change

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function own(node, colour) {
  node.style.setProperty("--own", colour);
  return node;
}

const MINUS = "−";
const NONE = "–"; // what was not finite, or is not there

function number(value, digits = 4) {
  if (value == null) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1e9 || size < 1e-4
      ? value.toExponential(Math.max(0, digits - 2))
      : size >= 1000
        ? Math.round(value).toLocaleString("en-US")
        : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", MINUS);
}

function fixed(value, digits = 3) {
  return value == null ? NONE : value.toFixed(digits).replace("-", MINUS);
}

function signed(value, digits = 2) {
  return value == null ? NONE : (value >= 0 ? "+" : "") + fixed(value, digits);
}

function interval(figures, digits = 3) {
  if (!figures || figures[0] == null) return el("span", {}, NONE);
  const [mean, low, high] = figures;
  const range = el("span", { class: "range" }, ` [${fixed(low, digits)}, ${fixed(high, digits)}]`);
  return el("span", {}, fixed(mean, digits), low == null ? null : range);
}

// header: texts; rows: cells (text or node). With `sortable`, the header's buttons order the rows
// by `keys`: of each row a number or text per column.
function table(caption, header, rows, { textColumns = [], keys = null } = {}) {
  const kind = (place) => (textColumns.includes(place) ? "text" : null);
  const body = el("tbody");
  const lines = rows.map((cells) =>
    el("tr", {}, ...cells.map((cell, place) => el("td", { class: kind(place) }, cell ?? NONE))));
  body.append(...lines);
  const heads = header.map((text, place) => {
    const head = el("th", { scope: "col", class: kind(place) }, keys ? "" : text);
    if (keys) head.append(el("button", { type: "button", onclick: () => sort(place) }, text || "name"));
    return head;
  });
  function sort(place) {
    const falling = heads[place].getAttribute("aria-sort") !== "descending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[place].setAttribute("aria-sort", falling ? "descending" : "ascending");
    const order = lines.map((_, row) => row).sort((a, b) => {
      const [x, y] = [keys[a][place], keys[b][place]];
      if (x == null || y == null) return (x == null) - (y == null); // what is missing comes last
      return (x < y ? -1 : x > y ? 1 : 0) * (falling ? -1 : 1);
    });
    body.append(...order.map((row) => lines[row]));
  }
  const full = el("table", { "aria-label": caption }, el("thead", {}, el("tr", {}, ...heads)), body);
  // The caption stays where it is when a wide table is scrolled.
  return el("div", {}, el("p", { class: "caption" }, caption),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}; scrolls sideways` }, full));
}

function section(title, ...children) {
  const part = el("section", {}, el("h2", {}, title), ...children);
  document.getElementById("main").append(part);
  return part;
}

function command(text) {
  const shown = el("pre", {}, el("code", {}, text));
  const copy = el("button", { type: "button", onclick: () => copyText(text, shown, copy) }, "Copy");
  return el("div", {}, shown, copy);
}

async function copyText(text, shown, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown); // no clipboard here: selected, ready to copy
    button.textContent = "Selected";
  }
}

function isDark() {
  const chosen = document.documentElement.style.colorScheme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(name, button) {
  document.documentElement.style.colorScheme = name;
  button.textContent = isDark() ? "Light" : "Dark";
  redraws.forEach((redraw) => redraw());
}

// The page's head; `#dark` or `#light` at the address's end opens it so.
function head(facts) {
  const toggle = el("button", {
    type: "button", "aria-label": "Switch between light and dark",
    onclick: () => setTheme(isDark() ? "light" : "dark", toggle),
  });
  const asked = location.hash.slice(1);
  setTheme(["dark", "light"].includes(asked) ? asked : "", toggle);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    setTheme(document.documentElement.style.colorScheme, toggle));
  document.getElementById("head").append(
    el("div", {}, el("h1", {}, data.title ?? data.name), el("p", { class: "soft" }, facts)), toggle);
}

function colour(name) {
  const probe = el("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const COLOURS = 8;
const seriesColour = (place) => `s${place % COLOURS}`;
