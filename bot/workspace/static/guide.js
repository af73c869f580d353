// The "what to try next" panel, and its strip where there is no room for a panel. What is done, the server knows.

import { byId, el, fill, icon } from "./dom.js";
import { post } from "./api.js";
import { currentChannel, state } from "./state.js";
import { psqlRuns } from "./terminal.js";

const opened = new Set();

export function renderGuide() {
  const { guide } = state;
  if (!guide) return;
  const done = new Set(guide.done);
  const steps = guide.steps.map((step, index) => ({ ...step, id: String(step.id ?? index), number: index + 1 }));
  // What was done out of turn is not asked for again, and neither is what lies before it.
  const next = steps.find((step) => !done.has(step.id)) || null;
  renderPanel(guide, steps, done, next);
  renderStrip(steps, next);
}

function renderPanel(guide, steps, done, next) {
  const scroll = byId("guide").querySelector(".pane-scroll");
  const top = scroll ? scroll.scrollTop : 0;
  const count = steps.filter((step) => done.has(step.id)).length;
  fill(
    byId("guide"),
    el("header", { class: "pane-head" }, el("h2", {}, icon("guide"), guide.title || "What to try next", el("small", {}, `${count} of ${steps.length}`)),
      el("button", { type: "button", class: "plain-button", "aria-label": "Close guide", onclick: () => state.actions.toggleGuide(false) }, icon("close"))),
    el("progress", { max: steps.length, value: count, "aria-label": "Steps done" }),
    el("div", { class: "pane-scroll" },
      el("ol", { class: "steps" }, steps.flatMap((step) => [
        step.part ? el("li", { class: "part", role: "presentation" }, step.part) : null,
        row(step, done.has(step.id), step === next),
      ])),
      next ? null : el("p", { class: "story-end" }, guide.end || "That was all."),
      el("div", { class: "guide-foot" },
        next ? el("button", { type: "button", class: "more", onclick: () => mark({ done: next.id }) }, "Skip this step") : null,
        count ? el("button", { type: "button", class: "more", onclick: () => mark({ start_over: true }) }, "Start over") : null),
    ),
  );
  byId("guide").querySelector(".pane-scroll").scrollTop = top;
  const current = byId("guide").querySelector(".next");
  if (current && current.dataset.step !== shown) current.scrollIntoView({ block: "nearest" });
  shown = current ? current.dataset.step : null;
}

let shown = null;

async function mark(wish) {
  const answer = await post("guide", wish);
  if (answer.ok) state.guide.done = answer.done;
  renderGuide();
}

function row(step, finished, next) {
  const open = next || opened.has(step.id);
  const turn = () => {
    if (next) return;
    if (!opened.delete(step.id)) opened.add(step.id);
    renderGuide();
  };
  return el(
    "li",
    { class: ["step", finished && "finished", next && "next"].filter(Boolean).join(" "), "data-step": step.id, "aria-current": next ? "step" : null },
    el("button", { type: "button", class: "step-title", "aria-expanded": open ? "true" : "false", onclick: turn },
      el("span", { class: "number", "aria-hidden": "true" }, finished ? icon("check") : step.number), step.title || step.text, finished ? el("span", { class: "offscreen" }, " (done)") : null),
    open ? el("div", { class: "step-body" }, step.title ? el("p", {}, step.text) : null, step.command ? el("code", { class: "try" }, step.command) : null, deed(step, next)) : null,
  );
}

function personOf(step) {
  const wanted = String(step.as || "").toLowerCase();
  return [...state.users.values()].find((person) => [person.handle, person.id.toLowerCase()].includes(wanted));
}

function placeOf(step) {
  if (!step.where) return null;
  return step.where.startsWith("@") ? state.app.display_name : `#${step.where.replace(/^#/, "")}`;
}

function isThere(step) {
  const person = personOf(step);
  const channel = currentChannel();
  if (!channel || (person && person.id !== state.me.id)) return false;
  if (!step.where) return true;
  return channel.direct ? step.where === `@${state.app.handle}` : channel.name === step.where.replace(/^#/, "");
}

const hasDeed = (step) => !isThere(step) || Boolean(step.command);

function deed(step, next) {
  const person = personOf(step);
  const there = isThere(step);
  const style = next ? "kit-button primary" : "kit-button";
  const button = (label, act) => el("button", { type: "button", class: style, onclick: act, "aria-label": `${label}: step ${step.number}` }, label);
  const foot = (...parts) => el("div", { class: "step-foot" }, ...parts);
  if (!there) return foot(button(`Go there as ${person ? person.name : state.me.name}`, () => go(step, person)));
  if (step.command && state.actions.isTyped(step)) return foot(el("span", { class: "ready" }, step.terminal ? "Typed. Press Enter to run it." : "Filled in. Press Enter to send it."));
  if (step.terminal && psqlRuns() && step.command) return foot(button("Type it for me", () => state.actions.typeThere(step.command)));
  if (step.terminal) return foot(button("Show me the line", () => state.actions.follow(person, `@${state.app.handle}`)), el("small", {}, "psql is not open: the line opens it."));
  if (step.command) return foot(button("Fill it in", () => state.actions.follow(person, step.where, step.command)));
  return foot(el("small", { class: "here" }, icon("check"), `You are ${state.me.name}, in ${placeOf(step) || "the right place"}`));
}

async function go(step, person) {
  await state.actions.follow(person, step.where, step.terminal ? null : step.command);
  if (step.terminal) state.actions.toggleTerminal(true);
}

function renderStrip(steps, next) {
  const strip = byId("coach");
  if (!next) return fill(strip, el("button", { type: "button", class: "strip-words", onclick: () => state.actions.toggleGuide(true) }, el("small", {}, "All done"), el("span", {}, "You have seen the whole story")));
  fill(
    strip,
    el("button", { type: "button", class: "strip-words", "aria-label": `Step ${next.number} of ${steps.length}: ${next.title || next.text}. Show all steps`, onclick: () => state.actions.toggleGuide(true) },
      el("small", {}, `Step ${next.number} of ${steps.length}`), el("span", {}, hasDeed(next) ? next.title || next.text : next.text)),
    hasDeed(next) ? deed(next, true) : null,
  );
}
