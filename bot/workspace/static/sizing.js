// A bar that makes what is below it taller or lower: dragged, or moved by keys; the height is remembered.

import { el } from "./dom.js";

const STEP = 24;
const MOST = 0.8;

export function resizer(pane, { label, key, least, changed }) {
  const most = () => Math.max(least, Math.round(innerHeight * MOST));
  const height = () => Math.round(pane.getBoundingClientRect().height);
  const bar = el("div", { class: "resizer", role: "separator", tabindex: "0", "aria-orientation": "horizontal", "aria-label": label, "aria-valuemin": least,
    title: "Drag, or press Up and Down; twice for the usual height" });

  function say() {
    bar.setAttribute("aria-valuemax", most());
    bar.setAttribute("aria-valuenow", height());
  }

  function set(wanted) {
    const kept = wanted === null ? null : Math.min(Math.max(Math.round(wanted), least), most());
    pane.style.height = kept === null ? "" : `${kept}px`;
    if (kept === null) localStorage.removeItem(key);
    else localStorage.setItem(key, kept);
    say();
    changed();
  }

  const steps = { ArrowUp: () => height() + STEP, ArrowDown: () => height() - STEP, PageUp: () => height() + 5 * STEP, PageDown: () => height() - 5 * STEP,
    Home: () => most(), End: () => least, Enter: () => null };
  bar.addEventListener("keydown", (event) => {
    if (!steps[event.key]) return;
    event.preventDefault();
    set(steps[event.key]());
  });
  bar.addEventListener("dblclick", () => set(null));
  bar.addEventListener("focus", say);
  bar.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const from = event.clientY;
    const before = height();
    event.preventDefault();
    bar.focus();
    bar.setPointerCapture(event.pointerId);
    // Only a drag moves it: a click, or two, must not.
    const move = (to) => Math.abs(to.clientY - from) > 2 && set(before + from - to.clientY);
    bar.addEventListener("pointermove", move);
    bar.addEventListener("lostpointercapture", () => bar.removeEventListener("pointermove", move), { once: true });
  });

  const remembered = Number(localStorage.getItem(key));
  if (remembered) pane.style.height = `${Math.max(remembered, least)}px`;
  return bar;
}
