// Puts the page together: who looks at what, and what happens when something changes.

import { byId, copyText, el, fill, icon } from "./dom.js";
import { get, listen, post } from "./api.js";
import { prepareComposer } from "./composer.js";
import { prepareDialogs, showViews } from "./dialogs.js";
import { renderGuide } from "./guide.js";
import { showHome } from "./home.js";
import { toggleInspector } from "./inspector.js";
import { byTime, drawLogSoon, keep, keepEnds, loadMessages, place, renderMessages, showLatest } from "./log.js";
import { avatar, forgetMessages } from "./messages.js";
import { renderSessions, renderSidebar } from "./sidebar.js";
import { currentChannel, state } from "./state.js";
import { closeThread, drawThread, drawThreadSoon, loadThread, openThread } from "./thread.js";
import { followTerminal, openPsql, prepareTerminal, psqlRuns, toggleTerminal, typedText, typeThere } from "./terminal.js";

let line = { stop() {}, tell() {} };
let composer = null;
let live = true;

async function start() {
  const overview = await get("workspace");
  state.team = overview.team;
  state.app = overview.app;
  state.groups = overview.groups;
  state.guide = overview.guide && overview.guide.steps ? overview.guide : null;
  state.users = new Map(overview.users.map((person) => [person.id, person]));
  state.terminal = overview.terminal;
  document.title = `${state.app.name} · local workspace`;
  prepareDialogs();
  prepareTerminal();
  composer = prepareComposer(byId("composer"), { label: () => (state.channel ? `Message ${place()}` : "Message"), onText: () => textChanged() });
  byId("veil").addEventListener("click", () => showSidebar(false));
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => fromHash());
  document.addEventListener("visibilitychange", markRead);
  byId("coach").hidden = !state.guide;
  if (state.guide) toggleGuide(innerWidth > 1100 && localStorage.getItem("guide-hidden") !== "1", false);
  await fromHash();
}

function personNamed(name) {
  return [...state.users.values()].find((person) => person.handle === name || person.id === name);
}

// Whoever is new here begins where the guide does.
function beginning() {
  return state.guide && !state.guide.done.length ? state.guide.steps[0] : null;
}

let moving = Promise.resolve();

// One at a time: a second change of address must not be overtaken by the first.
function fromHash() {
  moving = moving.then(goToHash, goToHash);
  return moving;
}

async function goToHash() {
  const parts = decodeURIComponent(location.hash.slice(1)).split("/").filter(Boolean);
  const person = personNamed(parts[0]);
  const first = parts.length || state.me ? null : beginning();
  if (person) parts.shift();
  const known = first ? personNamed(String(first.as || "").toLowerCase()) : personNamed(localStorage.getItem("me"));
  const wanted = person || state.me || known || [...state.users.values()][0];
  if (!state.me || wanted.id !== state.me.id) await become(wanted.id, parts[0] || (first && first.where), parts[1]);
  else if (parts[0]) await openChannel(parts[0], parts[1]);
}

function toHash() {
  const channel = currentChannel();
  const parts = [state.me.handle, channel.direct ? `@${state.app.handle}` : channel.name, state.thread].filter(Boolean);
  history.replaceState(null, "", `#${parts.join("/")}`);
}

async function become(user, channel, thread) {
  state.me = state.users.get(user);
  localStorage.setItem("me", state.me.handle);
  line.stop();
  forgetMessages();
  // What another person saw, and could press, goes at once.
  state.messages = new Map();
  fill(byId("log"));
  state.views = [];
  state.home = null;
  showViews();
  // Everyone has a conversation of their own with the app.
  const before = currentChannel();
  const wanted = channel || (before && before.direct ? `@${state.app.handle}` : state.channel);
  state.channel = null;
  closeThread();
  line = listen(user, { onEffect, onUp: () => ((live = true), refresh(), look()), onDown: () => ((live = false), renderStatus()) });
  followTerminal(user);
  await loadChannels();
  await refreshViews();
  await openChannel(wanted, thread);
}

function look() {
  if (state.channel) line.tell({ channel: state.channel, at: state.thread ? "thread" : state.tab });
}

async function loadChannels() {
  const me = state.me;
  const answer = await get("channels", { as: me.id });
  if (me === state.me) state.channels = answer.channels;
}

function findChannel(name) {
  const bare = String(name || "").replace(/^#/, "").toLowerCase();
  return state.channels.find(
    (channel) => channel.id === name || (!channel.direct && channel.name === bare) || (channel.direct && `@${state.app.handle}` === bare),
  );
}

async function openChannel(name, thread) {
  const channel = findChannel(name) || state.channels[0];
  if (!channel) return;
  const moved = channel.id !== state.channel;
  if (moved) showLatest();
  state.channel = channel.id;
  state.tab = channel.direct && state.app.home_tab && moved && !thread ? state.tab : "messages";
  if (moved) closeThread();
  showSidebar(false);
  await loadMessages();
  composer.relabel();
  draw(true);
  markRead();
  if (state.tab === "home" && channel.direct) showHome();
  if (thread) await openThread(thread);
  toHash();
  look();
}

async function refresh() {
  if (!state.channel) return renderStatus();
  await loadChannels();
  await loadMessages();
  await refreshViews();
  if (state.thread) await loadThread();
  draw();
}

async function refreshViews() {
  const me = state.me;
  const answer = await get("views", { as: me.id });
  if (me !== state.me) return;
  state.views = answer.views || [];
  state.home = answer.home || null;
  showViews();
}

function draw(jump = false) {
  renderStatus();
  if (!currentChannel()) return;
  renderSidebar();
  renderGuide();
  renderHead();
  renderMessages(jump);
  if (state.thread) drawThread();
}

function renderStatus() {
  const status = byId("status");
  const good = live && state.app.connected;
  status.className = good ? "good" : "bad";
  status.textContent = !live ? "Reconnecting …" : good ? `${state.app.display_name} is connected` : `${state.app.display_name} is not connected`;
}

function renderHead() {
  const channel = currentChannel();
  const menu = el("button", { type: "button", class: "plain-button menu", "aria-label": `Show channels; you are ${state.me.name}`, onclick: () => showSidebar(true) }, icon("menu"), avatar(state.me.id, true));
  const title = el("h1", {}, channel.direct ? state.app.display_name : [el("span", { class: "hash" }, "#"), channel.name]);
  const facts = channel.direct ? state.app.description : channel.purpose;
  const tab = (name, label) =>
    el("button", { type: "button", role: "tab", "aria-selected": state.tab === name ? "true" : "false", onclick: () => chooseTab(name) }, label);
  const tabs = channel.direct && state.app.home_tab ? el("div", { class: "tabs", role: "tablist" }, tab("home", "Home"), tab("messages", "Messages")) : null;
  const members = channel.direct ? null : el("span", { class: "members", title: "Members" }, `${channel.members.length} members`);
  const guide = state.guide
    ? el("button", { type: "button", class: "plain-button guide-toggle", "aria-label": "What to try next", onclick: () => toggleGuide() }, icon("guide"))
    : null;
  fill(byId("channel-head"), menu, title, channel.shared ? el("span", { class: "tag outside" }, "SHARED") : null, el("span", { class: "facts" }, facts || ""), tabs, members, guide);
}

function chooseTab(name) {
  state.tab = name;
  draw(true);
  if (name === "home") showHome();
}

const effects = {
  message(message) {
    const here = message.channel === state.channel;
    const top = !message.thread_ts || message.broadcast;
    const fresh = top && !(here && state.messages.has(message.ts));
    if (here && top) {
      keep("messages", message.ts, message);
      drawLogSoon(message.user === state.me.id);
      markRead();
    } else if (fresh && message.user !== state.me.id) {
      countUnread();
    }
    if (here && state.thread && (message.ts === state.thread || message.thread_ts === state.thread)) {
      keep("replies", message.ts, message);
      drawThreadSoon(message.user === state.me.id);
    }
  },
  message_deleted({ channel, ts }) {
    if (channel !== state.channel) return;
    if (keep("messages", ts, null)) drawLogSoon();
    if (keep("replies", ts, null)) drawThreadSoon();
  },
  thread({ channel, ts, ...counts }) {
    const parent = channel === state.channel ? state.messages.get(ts) : null;
    if (!parent) return;
    keep("messages", ts, { ...parent, ...counts });
    drawLogSoon();
  },
  views({ views }) {
    state.views = views;
    showViews();
  },
  home({ view }) {
    state.home = view;
    if (state.tab === "home") renderMessages();
  },
  guide({ done }) {
    if (!state.guide) return;
    state.guide.done = done;
    renderGuide();
  },
  app({ connected }) {
    state.app.connected = connected;
    renderStatus();
  },
};

let counting = null;

function countUnread() {
  clearTimeout(counting);
  counting = setTimeout(async () => {
    await loadChannels();
    renderSidebar();
  }, 80);
}

const onEffect = ({ kind, body }) => effects[kind] && effects[kind](body);

let marking = null;

function markRead() {
  clearTimeout(marking);
  marking = setTimeout(async () => {
    const channel = currentChannel();
    const last = byTime(state.messages).at(-1);
    if (!channel || !last || document.hidden || state.tab === "home") return;
    const had = channel.unread;
    channel.unread = 0;
    if (had) renderSidebar();
    await post("read", { user: state.me.id, channel: channel.id, ts: last.ts });
  }, 120);
}

function showSidebar(wanted) {
  document.body.classList.toggle("side-open", wanted);
  byId("veil").hidden = !wanted;
}

function toggleGuide(wanted = byId("guide").hidden, chosen = true) {
  byId("guide").hidden = !wanted;
  document.body.classList.toggle("guided", wanted);
  if (wanted) showSidebar(false);
  if (chosen) localStorage.setItem("guide-hidden", wanted ? "0" : "1");
}

function onKey(event) {
  if (event.key !== "Escape" || document.querySelector("dialog[open], :popover-open")) return;
  if (document.body.classList.contains("side-open")) showSidebar(false);
  else if (state.thread) (closeThread(), toHash());
  else toggleInspector(false);
}

async function follow(person, where, command) {
  if (innerWidth <= 1000) toggleGuide(false);
  if (innerWidth <= 760) toggleTerminal(false);
  if (person && person.id !== state.me.id) await become(person.id, where);
  else if (where) await openChannel(where);
  if (state.tab === "home") chooseTab("messages");
  if (command) composer.put(command);
}

// Says whether the guide's line is where it is to be sent from.
const isTyped = (step) => (step.terminal ? typedText() : composer ? composer.text() : "").trim() === step.command;

let wasTyped = null;

function textChanged() {
  const line = state.guide && state.guide.steps.find(isTyped);
  const now = line ? line.command : null;
  if (now !== wasTyped) {
    wasTyped = now;
    renderGuide();
  }
}

let ranHere = false;

function psqlChanged() {
  renderSessions();
  if (ranHere === psqlRuns()) return;
  ranHere = psqlRuns();
  renderGuide();
}

async function copy(text, button) {
  const label = button.textContent;
  button.textContent = (await copyText(text)) ? "Copied" : "Select and copy by hand";
  setTimeout(() => (button.textContent = label), 1500);
}

state.actions = { look, toHash, toggleTerminal, openPsql, typeThere, isTyped, textChanged, psqlChanged, showSidebar, become, openChannel, openThread, toggleGuide, toggleInspector, follow, copy, refreshViews, keepEnds };
start();
