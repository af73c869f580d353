// Confirm dialogs and the stack of modals.

import { byId, el, fill, icon } from "./dom.js";
import { post, said } from "./api.js";
import { renderBlocks } from "./blocks.js";
import { textObject } from "./mrkdwn.js";
import { state } from "./state.js";

export function askFirst(confirm) {
  const dialog = byId("confirm");
  return new Promise((resolve) => {
    const answer = (yes) => {
      dialog.onclose = null;
      dialog.close();
      resolve(yes);
    };
    fill(
      dialog,
      el("h2", { id: "confirm-title" }, textObject(confirm.title)),
      el("div", { class: "dialog-body" }, textObject(confirm.text)),
      el(
        "div",
        { class: "dialog-foot" },
        el("button", { type: "button", class: "kit-button", onclick: () => answer(false) }, textObject(confirm.deny)),
        el("button", { type: "button", class: `kit-button ${confirm.style || "primary"}`, autofocus: true, onclick: () => answer(true) }, textObject(confirm.confirm)),
      ),
    );
    dialog.onclose = () => resolve(false);
    dialog.showModal();
  });
}

const held = new Map();
let shown = null;
let errors = {};
let problem = "";
let sending = false;

function valuesOf(view) {
  if (!held.has(view.id)) held.set(view.id, new Map());
  return held.get(view.id);
}

export function showViews() {
  const dialog = byId("modal");
  const top = state.views.at(-1) || null;
  if (!top) {
    shown = null;
    held.clear();
    if (dialog.open) dialog.close();
    return;
  }
  if (!shown || shown.id !== top.id || shown.hash !== top.hash) {
    errors = {};
    problem = "";
  }
  shown = top;
  draw(dialog, top);
  if (dialog.open) return;
  dialog.showModal();
  const first = dialog.querySelector(".kit-input :is(input, textarea, select), button[type=submit]");
  if (first) first.focus();
}

function draw(dialog, view) {
  const place = { user: state.me.id, view_id: view.id };
  const focused = document.activeElement && dialog.contains(document.activeElement) ? document.activeElement : null;
  const key = focused && focused.dataset.key;
  const at = key && "selectionStart" in focused ? focused.selectionStart : null;
  const host = { values: valuesOf(view), errors, place, act: (action) => act(view, action) };
  const closing = view.close ? textObject(view.close) : "Cancel";
  const submit = view.submit
    ? el("button", { type: "submit", class: "kit-button submit", "aria-busy": sending ? "true" : null, disabled: sending }, textObject(view.submit))
    : null;
  fill(
    dialog,
    el(
      "form",
      { method: "dialog", novalidate: true, onsubmit: (event) => (event.preventDefault(), send(view)) },
      el(
        "header",
        { class: "dialog-head" },
        el("span", { class: "avatar app", "aria-hidden": "true" }, state.app.display_name.slice(0, 1).toUpperCase()),
        el("h2", { id: "modal-title" }, textObject(view.title)),
        el("button", { type: "button", class: "plain-button", "aria-label": "Close", onclick: () => dismiss(view) }, icon("close")),
      ),
      el("div", { class: "dialog-body" }, problem ? el("p", { class: "problem", role: "alert" }, problem) : null, renderBlocks(view.blocks, host)),
      el("footer", { class: "dialog-foot" }, el("button", { type: "button", class: "kit-button", onclick: () => dismiss(view) }, closing), submit),
    ),
  );
  const again = key ? [...dialog.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key) : null;
  if (!again) return;
  again.focus();
  if (typeof at === "number") again.setSelectionRange(at, at);
}

function redraw(view) {
  if (shown && shown.id === view.id) draw(byId("modal"), shown);
}

function nested(view) {
  const values = {};
  for (const [key, value] of valuesOf(view)) {
    const cut = key.lastIndexOf("/");
    values[key.slice(0, cut)] = { ...values[key.slice(0, cut)], [key.slice(cut + 1)]: value };
  }
  const present = new Set(view.blocks.map((block) => block.block_id));
  return Object.fromEntries(Object.entries(values).filter(([block]) => present.has(block)));
}

async function act(view, action) {
  const answer = await post("click", { user: state.me.id, view_id: view.id, ...action, values: nested(view), wait_ms: 1000 });
  if (!answer.ok) {
    problem = said(answer.error);
    redraw(view);
  }
}

async function send(view) {
  if (sending) return;
  sending = true;
  errors = {};
  problem = "";
  const waiting = setTimeout(() => redraw(view), 150);
  const answer = await post("submit", { user: state.me.id, view_id: view.id, values: nested(view), wait_ms: 0 });
  clearTimeout(waiting);
  sending = false;
  if (answer.ok) {
    redraw(view);
    return;
  }
  errors = answer.errors || {};
  problem = answer.errors ? "" : said(answer.error);
  redraw(view);
  const wrong = byId("modal").querySelector('[aria-invalid="true"]');
  if (wrong) wrong.focus();
}

async function dismiss(view) {
  const answer = await post("close", { user: state.me.id, view_id: view.id });
  if (!answer.ok && answer.error === "view_not_found") state.actions.refreshViews();
}

export function prepareDialogs() {
  byId("modal").addEventListener("cancel", (event) => {
    event.preventDefault();
    if (shown) dismiss(shown);
  });
}
