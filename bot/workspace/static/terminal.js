// The terminal pane: the current person's psqls in tabs, the line to type in, and the keys that a terminal has.

import { atEnd, byId, el, fill, icon, toEnd } from "./dom.js";
import { lives, makePsql, recalled, remember } from "./psql.js";
import { columnsOf } from "./screen.js";
import { resizer } from "./sizing.js";
import { state } from "./state.js";

const LINE = /^PGPASSWORD=\S+ psql "[^"]+"$/;

const MENU_WIDTH = 760;
const LEAST = 150;

let socket = null;
let stop = () => {};
let queue = [];
let opening = false;
let wanted = null;
let current = null;
let parts = null;
const tabs = new Map();
const drafts = new Map();
export const anyOpened = () => tabs.size > 0;
const openFor = new Set();
const lookedAt = new Map();

export const isLine = (text) => LINE.test(text.trim());
export const psqlRuns = () => current !== null && lives(current);
export const anyRuns = () => [...tabs.values()].some(lives);

function build() {
  const input = el("textarea", { rows: 1, "aria-label": "Type SQL for psql", spellcheck: "false", autocapitalize: "off", autocomplete: "off" });
  const mark = el("span", { class: "prompt", "aria-hidden": "true" });
  const list = el("div", { class: "psqls", role: "tablist", "aria-label": "Sessions" });
  const halt = el("button", { type: "button", class: "key", title: "Cancel what runs (Ctrl-C)", onclick: interrupt }, "Ctrl-C");
  const leave = el("button", { type: "button", class: "key", title: "Leave psql (Ctrl-D)", onclick: quit }, "Ctrl-D");
  const close = el("button", { type: "button", class: "plain-button", "aria-label": "Hide terminal", onclick: () => toggleTerminal(false) }, icon("close"));
  const form = el("form", { class: "type", onsubmit: (event) => (event.preventDefault(), submit()) }, mark, input,
    el("span", { class: "running", role: "status" }), el("button", { type: "submit", class: "key enter", "aria-label": "Run" }, "Enter"));
  const empty = el("div", { class: "empty" });
  const stage = el("div", { class: "stage" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const bar = resizer(byId("terminal"), { label: "Height of the terminal", key: "terminal-height", least: LEAST, changed: () => state.actions.keepEnds() });
  fill(byId("terminal"), bar, el("header", { class: "pane-head" }, el("h2", {}, icon("terminal"), el("span", { class: "program" }, "psql")), list, halt, leave, close), problem, empty, stage, form);
  parts = { input, mark, list, halt, leave, form, empty, stage, problem };
  input.addEventListener("keydown", onKey);
  input.addEventListener("input", grow);
  stage.addEventListener("click", () => String(getSelection()) || input.focus({ preventScroll: true }));
  new ResizeObserver(sendSize).observe(stage);
}

export function prepareTerminal() {
  build();
  renderEmpty();
}

function renderEmpty() {
  const { psql } = state.terminal;
  const words = psql
    ? [el("h3", {}, `No psql for ${state.me ? state.me.name : "you"} yet`), el("p", {}, "When the app sends you a line for psql, press “Open psql here” beside it. This pane runs psql with that line, and nothing else.")]
    : [el("h3", {}, "There is no psql on this machine"), el("p", {}, "Install it and start again: ", el("code", {}, "apt install postgresql-client"), " on Debian or Ubuntu, ",
      el("code", {}, "brew install libpq"), " on macOS. Any other machine that reaches this one's port works too: copy the line there.")];
  fill(parts.empty, words);
}

// One connection for each person played; a psql that runs goes on while somebody else is played.
export function followTerminal(user) {
  stop();
  forget();
  queue = [];
  let over = false;
  let pause = 400;
  const connect = () => {
    const query = new URLSearchParams({ as: user, token: state.terminal.token });
    const own = new WebSocket(`ws://${location.host}/local/terminal?${query}`);
    own.onopen = () => {
      pause = 400;
      again();
      for (const wish of queue.splice(0)) own.send(JSON.stringify(wish));
    };
    own.onmessage = (event) => hear(JSON.parse(event.data));
    own.onclose = () => {
      if (over) return;
      setTimeout(() => over || connect(), pause);
      pause = Math.min(pause * 2, 5000);
    };
    socket = own;
  };
  connect();
  stop = () => {
    over = true;
    socket.close();
  };
  show(openFor.has(user));
}

function forget() {
  opening = false;
  wanted = (state.me && lookedAt.get(state.me.id)) ?? null;
  select(null);
  tabs.clear();
  drafts.clear();
  renderEmpty();
}

// The server says anew what there is; the psql that was looked at is shown again.
function again() {
  wanted = current ? current.number : null;
  select(null);
  tabs.clear();
}

// Shows one psql; what was typed for another stays with it.
function select(psql) {
  if (current) drafts.set(current.number, parts.input.value);
  if (psql) lookedAt.set(state.me.id, psql.number);
  current = psql;
  parts.problem.hidden = true;
  fill(parts.stage, psql ? psql.screen.node : null);
  parts.input.value = (psql && drafts.get(psql.number)) || "";
  renderLine();
  grow();
  if (!psql) return;
  sendSize();
  toEnd(psql.screen.node);
}

function tell(wish) {
  const whole = current && !wish.open ? { tab: current.number, ...wish } : wish;
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(whole));
  else if (wish.open) queue.push(wish);
}

function sendSize() {
  if (!parts || byId("terminal").hidden || !current) return;
  const { node } = current.screen;
  tell({ size: [columnsOf(node), Math.max(5, Math.floor(node.clientHeight / 18))] });
  if (atEnd(node)) toEnd(node);
}

const heard = {
  opened(number, frame) {
    const psql = makePsql(frame, () => renderLine());
    tabs.set(number, psql);
    // Whoever comes back sees the psql they looked at last; whoever comes anew, the newest.
    if (number === wanted || wanted === null || !current) select(psql);
  },
  show(number) {
    wanted = number;
    if (byId("terminal").hidden && opening) show(true);
    opening = false;
    if (tabs.has(number)) select(tabs.get(number));
  },
  gone(number) {
    const psql = tabs.get(number);
    tabs.delete(number);
    if (psql === current) select([...tabs.values()].at(-1) || null);
  },
  out: (text, _, psql) => psql.screen.write(text),
  in(text, _, psql) {
    psql.screen.typed(text);
    remember(psql, text);
  },
  refused(why, frame, psql) {
    psql.screen.say(`Not sent: ${why}`, "refused");
    remember(psql, frame.text);
    if (psql !== current || parts.input.value) return;
    // It is back to be put right; whoever types something else types over it.
    parts.input.value = frame.text;
    parts.input.select();
    grow();
  },
  // The session is over though psql, which only reads when it is told something, has not noticed.
  lost(_, __, psql) {
    psql.lost = true;
  },
  failed(why) {
    opening = false;
    parts.problem.textContent = why;
    parts.problem.hidden = false;
  },
  end(_, __, psql) {
    psql.running = false;
    psql.prompt = null;
    psql.screen.say("psql has ended.", "ended");
  },
};

function hear(frame) {
  const psql = tabs.get(frame.tab);
  const name = Object.keys(heard).find((one) => one in frame);
  if (!name || ("tab" in frame && !psql)) return;
  const stick = current && atEnd(current.screen.node);
  heard[name](frame[name], frame, psql);
  renderLine();
  if (stick && current) toEnd(current.screen.node);
}

function tabOf(psql) {
  const over = !lives(psql);
  const close = over ? el("button", { type: "button", class: "plain-button", "aria-label": `Close ${psql.name}, which has ended`, onclick: () => tell({ tab: psql.number, forget: true }) }, icon("close")) : null;
  return el("span", { class: ["psql-tab", over && "over", psql === current && "current"].filter(Boolean).join(" ") },
    el("button", { type: "button", role: "tab", "aria-selected": psql === current ? "true" : "false", title: psql.label, onclick: () => (select(psql), parts.input.focus()) }, psql.name, over ? el("em", {}, "ended") : null), close);
}

function hint() {
  if (!current.running) return "";
  if (current.lost) return innerWidth > MENU_WIDTH ? "This session has ended: open another line, or leave with \\q" : "ended; \\q leaves";
  return innerWidth > MENU_WIDTH ? "SQL, or \\d to list the tables" : "SQL, or \\d for tables";
}

let drawn = "";

function renderLine() {
  if (!parts) return;
  const { mark, form, empty, stage, halt, leave, input, list } = parts;
  const running = Boolean(current && current.running);
  const key = JSON.stringify([...tabs.values()].map((psql) => [psql.number, psql.name, lives(psql), psql === current]));
  if (key !== drawn) {
    fill(list, [...tabs.values()].map(tabOf));
    showTab();
  }
  drawn = key;
  byId("terminal").classList.toggle("has-tabs", tabs.size > 0);
  empty.hidden = Boolean(current);
  stage.hidden = !current;
  form.hidden = !running;
  halt.disabled = leave.disabled = !running;
  mark.textContent = !current || current.prompt === null ? "" : `${current.prompt} `;
  const waits = running && current.prompt === null;
  form.classList.toggle("waits", waits);
  form.querySelector(".running").textContent = waits ? "running" : "";
  input.placeholder = waits || !running ? "" : hint();
  if (state.actions.psqlChanged) state.actions.psqlChanged();
}

// Where the tabs do not fit side by side, the one that is looked at does.
function showTab() {
  const tab = parts.list.querySelector(".current");
  if (tab) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// What is hidden has no height; it is measured as it is shown.
function grow() {
  parts.input.style.height = "auto";
  const { scrollHeight } = parts.input;
  if (scrollHeight) parts.input.style.height = `${Math.min(scrollHeight, 140)}px`;
  if (state.actions.textChanged) state.actions.textChanged();
}

function submit() {
  const text = parts.input.value;
  if (!current || !current.running) return;
  parts.input.value = "";
  grow();
  toEnd(current.screen.node);
  tell({ send: text.replace(/\n+$/, "") });
}

function interrupt() {
  parts.input.value = "";
  grow();
  tell({ interrupt: true });
  parts.input.focus();
}

function quit() {
  tell({ send: "\\q" });
}

function recall(step) {
  if (!current || !current.history.length) return;
  parts.input.value = recalled(current, step);
  grow();
  parts.input.setSelectionRange(parts.input.value.length, parts.input.value.length);
}

function onKey(event) {
  const { input } = parts;
  if (event.isComposing) return;
  const one = !input.value.includes("\n");
  const control = event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey;
  const selected = input.selectionStart !== input.selectionEnd || String(getSelection());
  if (event.key === "Enter" && !event.shiftKey) submit();
  else if (event.key === "ArrowUp" && one) recall(-1);
  else if (event.key === "ArrowDown" && one) recall(1);
  else if (control && event.key === "c" && !selected) interrupt();
  else if (control && event.key === "d" && !input.value) quit();
  else if (control && event.key === "l") current.screen.clear();
  else if (control && event.key === "u") (input.value = ""), grow();
  else return;
  event.preventDefault();
}

function show(wanted) {
  const pane = byId("terminal");
  pane.hidden = !wanted;
  document.body.classList.toggle("with-terminal", wanted);
  if (wanted) state.actions.toggleInspector(false);
  if (wanted) {
    sendSize();
    showTab();
    grow();
  }
  if (wanted && current) toEnd(current.screen.node);
  state.actions.keepEnds();
}

export function toggleTerminal(wanted = byId("terminal").hidden) {
  if (wanted) openFor.add(state.me.id);
  else openFor.delete(state.me.id);
  show(wanted);
  if (wanted && current) parts.input.focus();
}

export function openPsql(channel, ts) {
  opening = true;
  toggleTerminal(true);
  if (state.terminal.psql) tell({ open: { channel, ts } });
  setTimeout(() => parts.input.focus(), 150);
}

export function typeThere(text) {
  toggleTerminal(true);
  if (!psqlRuns()) return;
  parts.input.value = text;
  grow();
  parts.input.focus();
}

export const typedText = () => (psqlRuns() ? parts.input.value : "");
