// Shared files: a card with the beginning of the text, and a viewer for the rest.

import { byId, el, fill, icon, toast } from "./dom.js";
import { codeBlock } from "./mrkdwn.js";
import { state } from "./state.js";

const LINES = 8;

function address(file, more = "") {
  return `${file.url.split("?")[0]}?as=${encodeURIComponent(state.me.handle)}${more}`;
}

function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${(bytes / 1024).toFixed(1)} KB` : `${(bytes / 1048576).toFixed(1)} MB`;
}

export function renderFile(file) {
  const preview = el("div", { class: "file-preview" });
  const card = el(
    "div",
    { class: "file", role: "group", "aria-label": `File ${file.name}` },
    el(
      "div",
      { class: "file-head" },
      icon("file"),
      el("span", { class: "file-name" }, el("strong", {}, file.title), el("small", {}, `${file.name} · ${size(file.size)}`)),
      el("button", { type: "button", class: "kit-button", "aria-label": `Open ${file.name}`, onclick: () => open(file) }, "Open"),
      el("a", { href: address(file, "&download=1"), download: file.name, class: "kit-button" }, "Download"),
    ),
    preview,
  );
  if (file.mimetype && file.mimetype.startsWith("text/")) showText(file, preview);
  else if (file.mimetype && file.mimetype.startsWith("image/")) preview.append(el("img", { src: address(file), alt: file.title }));
  return card;
}

const texts = new Map();

async function showText(file, preview) {
  if (!texts.has(file.id)) {
    const response = await fetch(address(file));
    if (!response.ok) return;
    texts.set(file.id, await response.text());
  }
  const text = texts.get(file.id);
  const lines = text.split("\n");
  preview.append(el("pre", { tabindex: "0", class: /\.jsonl?$/.test(file.name) ? "data" : null }, lines.slice(0, LINES).join("\n")));
  if (lines.length > LINES + 1) {
    preview.append(el("button", { type: "button", class: "more", onclick: () => open(file) }, `Show all ${lines.length} lines`));
  }
  state.actions.keepEnds();
}

// `opened` says that a person reads it, not the page for its preview.
async function open(file) {
  const response = await fetch(address(file, "&opened=1"));
  if (!response.ok) return toast("This file is not there any more.");
  if (file.mimetype && file.mimetype.startsWith("text/")) view(file, await response.text());
  else window.open(address(file), "_blank", "noopener");
}

function view(file, text) {
  const dialog = byId("viewer");
  fill(
    dialog,
    el(
      "header",
      { class: "dialog-head" },
      icon("file"),
      el("h2", { id: "viewer-title" }, file.title),
      el("button", { type: "button", class: "plain-button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")),
    ),
    el("div", { class: "dialog-body" }, codeBlock(text)),
  );
  dialog.showModal();
}
