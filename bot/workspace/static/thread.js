// The thread pane.

import { atEnd, byId, el, fill, icon, patch, toEnd } from "./dom.js";
import { prepareComposer } from "./composer.js";
import { byTime, load, moreButton, place, soon } from "./log.js";
import { renderThread } from "./messages.js";
import { state } from "./state.js";

const REPLIES = 150;
let repliesShown = REPLIES;

export async function openThread(ts) {
  repliesShown = REPLIES;
  state.thread = ts;
  byId("thread").hidden = false;
  document.body.classList.add("threaded");
  const pane = byId("thread");
  const form = el("form", { class: "composer" });
  fill(
    pane,
    el("header", { class: "pane-head" }, el("h2", {}, "Thread", el("small", {}, place())),
      el("button", { type: "button", class: "plain-button", "aria-label": "Close thread", onclick: () => (closeThread(), state.actions.toHash()) }, icon("close"))),
    el("div", { class: "pane-scroll", id: "thread-log", role: "log", "aria-label": "Thread messages", tabindex: "0" }),
    form,
  );
  prepareComposer(form, { label: () => "Reply in thread", threadOf: () => state.thread });
  await loadThread();
  drawThread(true);
  state.actions.toHash();
  state.actions.look();
}

export async function loadThread() {
  const asked = state.thread;
  await load("replies", { as: state.me.id, channel: state.channel, thread_ts: asked }, () => asked === state.thread);
}

export function drawThread(jump = false) {
  const log = byId("thread-log");
  const stick = atEnd(log) || jump;
  const [parent, ...replies] = byTime(state.replies);
  const more = replies.length > repliesShown ? moreButton(`Show ${replies.length - repliesShown} earlier replies`, () => ((repliesShown += REPLIES * 4), drawThread())) : null;
  patch(log, renderThread(parent, replies, replies.slice(-repliesShown), more));
  if (stick) toEnd(log);
}

export function closeThread() {
  state.thread = null;
  byId("thread").hidden = true;
  document.body.classList.remove("threaded");
}

const drawOpen = (jump) => state.thread && drawThread(jump);

export const drawThreadSoon = (jump = false) => soon(drawOpen, jump);
