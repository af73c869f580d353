// The "what to try next" panel.

import { byId, copyText, el, fill, icon } from "./dom.js";
import { state } from "./state.js";

const KEY = "guide-done";

function done() {
  try {
    return new Set(JSON.parse(localStorage.getItem(KEY) || "[]"));
  } catch {
    return new Set();
  }
}

function remember(index) {
  localStorage.setItem(KEY, JSON.stringify([...done().add(index)]));
}

// A step that names what its message says is done when such a message comes, not when its button is pressed; so are
// the steps before it, whose messages nobody may have been there to see.
export function noticeForGuide(message) {
  const steps = state.guide ? state.guide.steps : [];
  const finished = done();
  const index = steps.findLastIndex((step, at) => step.done && !finished.has(at) && String(message.text).includes(step.done));
  if (index < 0) return;
  steps.slice(0, index + 1).forEach((_, at) => remember(at));
  renderGuide();
}

export function renderGuide() {
  const guide = state.guide;
  if (!guide) return;
  const finished = done();
  const steps = guide.steps || [];
  const next = steps.findIndex((_, index) => !finished.has(index));
  fill(
    byId("guide"),
    el("header", { class: "pane-head" }, el("h2", {}, icon("guide"), guide.title || "What to try next"),
      el("button", { type: "button", class: "plain-button", "aria-label": "Close guide", onclick: () => state.actions.toggleGuide(false) }, icon("close"))),
    el("div", { class: "pane-scroll" },
      el("ol", { class: "steps" }, steps.map((step, index) => one(step, index, finished.has(index), index === next))),
      finished.size ? el("button", { type: "button", class: "more", onclick: () => (localStorage.removeItem(KEY), renderGuide()) }, "Start over") : null,
    ),
  );
}

function personOf(step) {
  const wanted = String(step.as || "").toLowerCase();
  return [...state.users.values()].find((person) => [person.handle, person.id.toLowerCase()].includes(wanted));
}

function one(step, index, finished, next) {
  const person = personOf(step);
  const where = step.where ? (step.where.startsWith("@") ? step.where : `#${step.where.replace(/^#/, "")}`) : null;
  const tag = !where && step.command ? "in the terminal" : [person ? `as ${person.name}` : null, where ? `in ${where}` : null].filter(Boolean).join(" ");
  // Without a place in here, what to type is for somewhere else: a terminal.
  const label = step.command && !step.where ? "Copy" : step.command ? "Fill it in" : person ? `Go there as ${person.name}` : "Go there";
  const go = async () => {
    if (!step.done) remember(index);
    if (step.where) await state.actions.follow(person, step.where, step.command);
    else await copyText(step.command || "");
    renderGuide();
  };
  return el(
    "li",
    { class: `${finished ? "finished" : ""}${next ? " next" : ""}`, "aria-current": next ? "step" : null },
    el("p", {}, step.text),
    step.command ? el("code", { class: "try" }, step.command) : null,
    el("div", { class: "step-foot" }, tag ? el("small", {}, tag) : null,
      person || where || step.command ? el("button", { type: "button", class: next ? "kit-button primary" : "kit-button", onclick: go, "aria-label": `${label}: step ${index + 1}` }, label) : null),
  );
}
