"use strict";
// A logged tree: the picture with what was answered drawn on it, thoughts, and answers below each.

const READABLE = 384; // pixels; a smaller picture is enlarged by a whole factor, its pixels kept crisp

function advantageColour(value) {
  if (value == null || Math.abs(value) < 0.005) return "var(--soft)";
  const share = Math.round(35 + 65 * Math.min(1, Math.abs(value) / 1.5));
  return `color-mix(in oklab, var(--${value > 0 ? "good" : "bad"}) ${share}%, var(--soft))`;
}

function advantage(value) {
  return own(el("span", { class: "advantage" }, `advantage ${signed(value)}`), advantageColour(value));
}

function picture(tree) {
  if (!tree.image) return null;
  const image = el("img", { src: tree.image, alt: `What was asked about, with truth and answers drawn: ${tree.record.question ?? ""}` });
  const fit = () => {
    const side = Math.max(image.naturalWidth, image.naturalHeight);
    const factor = Math.floor(READABLE / Math.max(1, side));
    image.classList.toggle("small", factor >= 2);
    image.style.width = `${image.naturalWidth * Math.max(1, factor)}px`;
  };
  image.addEventListener("load", fit);
  const enlarge = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    const large = enlarge.closest(".tree").classList.toggle("large");
    enlarge.setAttribute("aria-pressed", String(large));
    if (large) image.style.width = `${Math.max(image.naturalWidth, 2 * READABLE)}px`;
    else fit();
  } }, "Enlarge");
  return el("div", {}, image, enlarge);
}

function answerItem(answer) {
  const terms = Object.entries(answer.terms ?? {}).map(([name, value]) => `${name} ${number(value, 3)}`);
  return el("li", {},
    answer.answer == null ? el("em", { class: "bad" }, "no answer") : el("span", { class: "said" }, answer.answer),
    el("span", {}, `reward ${fixed(answer.reward)}`), advantage(answer.advantage),
    answer.written == null ? null : el("span", { class: "written" }, el("em", { class: "bad" }, "form broken, written: "), answer.written),
    terms.length ? el("span", { class: "terms" }, terms.join("   ·   ")) : null);
}

function thoughtCard(thought, place) {
  const answers = thought.answers ?? [];
  const rewards = answers.map((answer) => answer.reward).filter((value) => value != null);
  const mean = rewards.length ? rewards.reduce((sum, value) => sum + value, 0) / rewards.length : null;
  return own(el("article", { class: "thought" },
    el("header", {}, el("span", { class: "soft" }, `Thought ${place + 1}, mean reward ${fixed(mean)}`,
      thought.closed === false ? el("em", { class: "bad" }, ", ran out of slots") : ""), advantage(thought.advantage)),
    el("div", { class: "said" }, thought.thought ?? ""),
    el("ul", { class: "answers" }, ...answers.map(answerItem))), advantageColour(thought.advantage));
}

const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function treeView(tree) {
  const { record } = tree;
  const facts = el("dl", {}, el("dt", {}, "Truth"), el("dd", {}, record.truth == null ? NONE : written(record.truth)),
    ...(record.id == null ? [] : [el("dt", {}, "Example"), el("dd", {}, String(record.id))]));
  return el("div", { class: "tree" },
    el("div", { class: "seen" }, picture(tree), el("p", { class: "question" }, record.question ?? ""), facts),
    el("div", {}, ...(record.thoughts ?? []).map(thoughtCard)));
}

// A selector over trees; `label` names one.
function treeSection(title, trees, logged, label) {
  if (!trees.length) return;
  const place = el("div");
  const choice = el("select", { "aria-label": "Which tree", onchange: () => show() },
    ...trees.map((tree, index) => el("option", { value: index }, label(tree))));
  const show = () => place.replaceChildren(treeView(trees[choice.selectedIndex]));
  const go = (by) => {
    choice.selectedIndex = Math.min(Math.max(choice.selectedIndex + by, 0), trees.length - 1);
    show();
  };
  choice.selectedIndex = trees.length - 1;
  const omitted = logged > trees.length ? `${trees.length} of ${logged} trees; the others were left out for size.` : null;
  section(title, el("div", { class: "bar" }, el("button", { type: "button", onclick: () => go(-1) }, "← Before"), choice,
    el("button", { type: "button", onclick: () => go(1) }, "Next →"), omitted ? el("span", { class: "soft" }, omitted) : null), place);
  show();
}
