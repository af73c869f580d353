// Builds elements; text goes in as text, never as markup.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

export function patch(parent, nodes) {
  nodes.forEach((node, index) => {
    if (parent.childNodes[index] !== node) parent.insertBefore(node, parent.childNodes[index] || null);
  });
  while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}

const ended = new WeakMap();

export function atEnd(log) {
  if (!ended.has(log)) {
    ended.set(log, true);
    log.addEventListener("scroll", () => ended.set(log, log.scrollHeight - log.scrollTop - log.clientHeight < 120), { passive: true });
  }
  return ended.get(log);
}

export function toEnd(log) {
  ended.set(log, true);
  log.scrollTop = log.scrollHeight;
}

export function toast(text) {
  const note = el("div", { class: "toast" }, text);
  byId("toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const ICONS = {
  menu: "M3 5h14M3 10h14M3 15h14",
  close: "M5 5l10 10M15 5L5 15",
  send: "M3 10l14-7-5 14-3-6z",
  thread: "M3 5a2 2 0 012-2h10a2 2 0 012 2v6a2 2 0 01-2 2h-5l-4 4v-4H5a2 2 0 01-2-2z",
  chevron: "M6 8l4 4 4-4",
  guide: "M10 3a5 5 0 00-3 9c1 .8 1 1.500 1 2h4c0-.5 0-1.200 1-2a5 5 0 00-3-9zM8 17h4",
  inspect: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  copy: "M7 7h9v9H7zM4 13V4h9",
  check: "M4 10l4 4 8-9",
  file: "M5 2h7l4 4v12H5zM12 2v4h4",
  eye: "M2 10s3-5 8-5 8 5 8 5-3 5-8 5-8-5-8-5zM10 8a2 2 0 100 4 2 2 0 000-4z",
  terminal: "M3 4h14v12H3zM6 8l2.500 2L6 12M10.500 12.500H14",
  more: "M4 10h.01M10 10h.01M16 10h.01",
};

const TIME = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const days = new Map();

export const clock = (ts) => TIME.format(new Date(Number(ts) * 1000));

// The name of a message's day, worked out once until the day changes.
export function day(ts) {
  const now = new Date().toDateString();
  if (days.get("now") !== now || days.size > 20000) days.clear();
  days.set("now", now);
  if (!days.has(ts)) days.set(ts, nameOfDay(ts));
  return days.get(ts);
}

function nameOfDay(ts) {
  const date = new Date(Number(ts) * 1000);
  const today = new Date();
  const yesterday = new Date(today);
  yesterday.setDate(today.getDate() - 1);
  if (date.toDateString() === today.toDateString()) return "Today";
  if (date.toDateString() === yesterday.toDateString()) return "Yesterday";
  return date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "offscreen", value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
