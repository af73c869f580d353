// The channel's log: how much of it is drawn, and when.

import { atEnd, byId, el, patch, toEnd } from "./dom.js";
import { get } from "./api.js";
import { renderHome } from "./home.js";
import { renderLog } from "./messages.js";
import { currentChannel, state } from "./state.js";

// How many messages are drawn; a button draws as many more.
const SHOWN = 300;
let shown = SHOWN;

export const byTime = (messages) => [...messages.values()].sort((one, other) => (one.ts < other.ts ? -1 : 1));
export const place = () => (currentChannel().direct ? state.app.display_name : `#${currentChannel().name}`);
export const moreButton = (label, act) => el("button", { type: "button", class: "earlier", onclick: act }, label);

export function showLatest() {
  shown = SHOWN;
}

// What is heard while an answer is under way is newer than that answer, or the same.
const loading = new Set();

export function keep(name, ts, message) {
  for (const load of loading) if (load.name === name) load.heard.set(ts, message);
  const had = state[name].has(ts);
  put(state[name], ts, message);
  return had;
}

function put(messages, ts, message) {
  if (message) messages.set(ts, message);
  else messages.delete(ts);
}

export async function load(name, query, still) {
  const under = { name, heard: new Map() };
  loading.add(under);
  try {
    const answer = await get("messages", query);
    if (!still()) return;
    state[name] = new Map((answer.messages || []).map((message) => [message.ts, message]));
    for (const [ts, message] of under.heard) put(state[name], ts, message);
  } finally {
    loading.delete(under);
  }
}

export async function loadMessages() {
  const asked = state.channel;
  const me = state.me;
  await load("messages", { as: me.id, channel: asked, limit: shown }, () => asked === state.channel && me === state.me);
}

export function renderMessages(jump) {
  // Between two people there is no channel for a moment.
  if (!currentChannel()) return;
  const log = byId("log");
  const home = state.tab === "home";
  byId("home").hidden = !home;
  log.hidden = home;
  byId("composer").hidden = home;
  if (home) return renderHome();
  const stick = atEnd(log) || jump;
  const hint = state.app.commands.length ? ` Try ${state.app.commands[0].command}.` : "";
  const note = el("div", { class: "empty" }, el("h2", {}, `This is the beginning of ${place()}`), el("p", {}, `Nothing has been said yet.${hint}`));
  const messages = byTime(state.messages);
  for (const old of messages.splice(0, Math.max(0, messages.length - shown * 2))) state.messages.delete(old.ts);
  const earlier = messages.length >= shown ? moreButton("Show earlier messages", showEarlier) : null;
  patch(log, [earlier, ...renderLog(messages, note)].filter(Boolean));
  if (stick) toEnd(log);
}

async function showEarlier() {
  const log = byId("log");
  const below = log.scrollHeight - log.scrollTop;
  shown = state.messages.size + SHOWN;
  await loadMessages();
  renderMessages();
  log.scrollTop = log.scrollHeight - below;
}

const drawing = new Map();

// Many changes at once are drawn together.
export function soon(draw, jump) {
  if (!drawing.has(draw)) {
    requestAnimationFrame(() => {
      const wanted = drawing.get(draw);
      drawing.delete(draw);
      draw(wanted);
    });
  }
  drawing.set(draw, drawing.get(draw) || jump);
}

export const drawLogSoon = (jump = false) => soon(renderMessages, jump);

export function keepEnds() {
  for (const log of [byId("log"), byId("thread-log")]) if (log && atEnd(log)) toEnd(log);
}
