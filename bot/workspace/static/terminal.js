// The terminal pane: the current person's psql, the line to type in, and the keys that a terminal has.

import { atEnd, byId, el, fill, icon, toEnd } from "./dom.js";
import { columnsOf, makeScreen } from "./screen.js";
import { state } from "./state.js";

const LINE = /^PGPASSWORD=\S+ psql "[^"]+"$/;
const KEPT = 200;

let socket = null;
let stop = () => {};
let queue = [];
let running = false;
let opening = false;
let prompt = null;
let history = [];
let at = 0;
let parts = null;
const openFor = new Set();

export const isLine = (text) => LINE.test(text.trim());
export const psqlRuns = () => running;

function build() {
  const screen = makeScreen((text) => {
    prompt = text;
    renderLine();
  });
  const input = el("textarea", { rows: 1, "aria-label": "Type SQL for psql", spellcheck: "false", autocapitalize: "off", autocomplete: "off" });
  const mark = el("span", { class: "prompt", "aria-hidden": "true" });
  const title = el("h2", {}, icon("terminal"), "psql", el("small", {}));
  const halt = el("button", { type: "button", class: "key", title: "Cancel what runs (Ctrl-C)", onclick: interrupt }, "Ctrl-C");
  const leave = el("button", { type: "button", class: "key", title: "Leave psql (Ctrl-D)", onclick: quit }, "Ctrl-D");
  const tall = el("button", { type: "button", class: "plain-button tall", "aria-label": "Make the terminal taller", "aria-pressed": "false", onclick: stretch }, icon("tall"));
  const close = el("button", { type: "button", class: "plain-button", "aria-label": "Hide terminal", onclick: () => toggleTerminal(false) }, icon("close"));
  const form = el("form", { class: "type", onsubmit: (event) => (event.preventDefault(), submit()) }, mark, input,
    el("span", { class: "running", role: "status" }), el("button", { type: "submit", class: "key enter", "aria-label": "Run" }, "Enter"));
  const empty = el("div", { class: "empty" });
  fill(byId("terminal"), el("header", { class: "pane-head" }, title, halt, leave, tall, close), empty, screen.node, form);
  parts = { screen, input, mark, title, halt, leave, tall, form, empty };
  input.addEventListener("keydown", onKey);
  input.addEventListener("input", grow);
  screen.node.addEventListener("click", () => String(getSelection()) || input.focus({ preventScroll: true }));
  new ResizeObserver(sendSize).observe(screen.node);
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
      sendSize();
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
  running = opening = false;
  history = [];
  at = 0;
  parts.screen.reset();
  parts.title.querySelector("small").textContent = "";
  renderEmpty();
  renderLine();
}

function tell(wish) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
  else if (wish.open) queue.push(wish);
}

function sendSize() {
  if (!parts || byId("terminal").hidden || parts.screen.node.hidden) return;
  tell({ size: [columnsOf(parts.screen.node), Math.max(5, Math.floor(parts.screen.node.clientHeight / 18))] });
  if (atEnd(parts.screen.node)) toEnd(parts.screen.node);
}

const heard = {
  opened(_, frame) {
    forget();
    running = true;
    parts.title.querySelector("small").textContent = frame.label;
    if (byId("terminal").hidden && opening) show(true);
    opening = false;
  },
  out: (text) => parts.screen.write(text),
  in(text) {
    parts.screen.typed(text);
    if (text.trim() && history.at(-1) !== text) history.push(text);
    history = history.slice(-KEPT);
    at = history.length;
  },
  refused(why, frame) {
    parts.screen.say(`Not sent: ${why}`, "refused");
    if (!parts.input.value) parts.input.value = frame.text;
    grow();
  },
  failed(why) {
    opening = false;
    parts.empty.append(el("p", { class: "problem", role: "alert" }, why));
  },
  end() {
    running = false;
    prompt = null;
    parts.screen.say("psql has ended.", "ended");
  },
};

function hear(frame) {
  const stick = atEnd(parts.screen.node);
  const name = Object.keys(heard).find((one) => one in frame);
  if (name) heard[name](frame[name], frame);
  renderLine();
  if (stick) toEnd(parts.screen.node);
}

function renderLine() {
  if (!parts) return;
  const { screen, mark, form, empty, halt, leave, input } = parts;
  const blank = !running && !screen.node.childElementCount;
  empty.hidden = !blank;
  screen.node.hidden = blank;
  form.hidden = !running;
  halt.disabled = leave.disabled = !running;
  mark.textContent = prompt === null ? "" : `${prompt} `;
  const waits = running && prompt === null;
  form.classList.toggle("waits", waits);
  form.querySelector(".running").textContent = waits ? "running" : "";
  input.placeholder = waits || !screen.node.childElementCount ? "" : innerWidth > 760 ? "SQL, or \\d to list the tables" : "SQL, or \\d";
  byId("terminal").classList.toggle("live", running);
  if (state.actions.psqlChanged) state.actions.psqlChanged(running);
}

function grow() {
  parts.input.style.height = "auto";
  parts.input.style.height = `${Math.min(parts.input.scrollHeight, 140)}px`;
  if (state.actions.textChanged) state.actions.textChanged();
}

function submit() {
  const text = parts.input.value;
  if (!running) return;
  parts.input.value = "";
  grow();
  toEnd(parts.screen.node);
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
  if (!history.length) return;
  at = Math.min(Math.max(at + step, 0), history.length);
  parts.input.value = history[at] || "";
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
  else if (control && event.key === "l") parts.screen.clear();
  else if (control && event.key === "u") (input.value = ""), grow();
  else return;
  event.preventDefault();
}

function stretch() {
  const tall = byId("terminal").classList.toggle("stretched");
  parts.tall.setAttribute("aria-pressed", String(tall));
}

function show(wanted) {
  const pane = byId("terminal");
  pane.hidden = !wanted;
  document.body.classList.toggle("with-terminal", wanted);
  if (wanted) sendSize();
  if (wanted && running) toEnd(parts.screen.node);
  state.actions.keepEnds();
}

export function toggleTerminal(wanted = byId("terminal").hidden) {
  if (wanted) openFor.add(state.me.id);
  else openFor.delete(state.me.id);
  if (wanted) state.actions.toggleInspector(false);
  show(wanted);
  if (wanted && running) parts.input.focus();
}

export function openPsql(channel, ts) {
  opening = true;
  toggleTerminal(true);
  if (state.terminal.psql) tell({ open: { channel, ts } });
  setTimeout(() => parts.input.focus(), 150);
}

export function typeThere(text) {
  toggleTerminal(true);
  if (!running) return;
  parts.input.value = text;
  grow();
  parts.input.focus();
}

export const typedText = () => (running ? parts.input.value : "");
