// The drawer: every payload in and out, and faults to try.

import { byId, el, fill, icon, toast } from "./dom.js";
import { get, post } from "./api.js";
import { state } from "./state.js";

const FAULTS = [
  ["Next call: 429", { status: 429, retry_after: 2 }],
  ["Next call: 500", { status: 500 }],
  ["Next call: cut after", { drop: "after" }],
  ["Drop the socket", { drop_socket: true }],
  ["Ask to reconnect", { disconnect: true }],
  ["Deliver next twice", { duplicate: 1 }],
  ["Delay next by 2 s", { delay_ms: 2000 }],
  ["Lose next ack", { lose_ack: 1 }],
  ["Clear", { clear: true }],
];

let seen = 0;
let timer = null;
const list = el("ol", { class: "entries" });

export function toggleInspector(wanted) {
  const drawer = byId("inspector");
  drawer.hidden = wanted === undefined ? !drawer.hidden : !wanted;
  document.body.classList.toggle("inspecting", !drawer.hidden);
  clearInterval(timer);
  if (drawer.hidden) return;
  state.actions.toggleTerminal(false);
  seen = 0;
  list.replaceChildren();
  fill(
    drawer,
    el("header", { class: "pane-head" }, el("h2", {}, icon("inspect"), "Payloads and faults"),
      el("button", { type: "button", class: "plain-button", "aria-label": "Close inspector", onclick: () => toggleInspector(false) }, icon("close"))),
    el("div", { class: "faults", role: "group", "aria-label": "Faults" }, FAULTS.map(([name, wish]) => el("button", { type: "button", class: "kit-button", onclick: () => arm(name, wish) }, name))),
    el("div", { class: "pane-scroll" }, list),
  );
  refresh();
  timer = setInterval(refresh, 1000);
}

async function arm(name, wish) {
  const answer = await post("faults", wish);
  toast(answer.ok ? `${name}: armed` : `${name}: ${answer.error}`);
}

async function refresh() {
  const answer = await get("journal", { since: seen });
  for (const entry of answer.entries || []) {
    seen = entry.seq;
    list.prepend(row(entry));
  }
  while (list.childElementCount > 300) list.lastElementChild.remove();
}

function row(entry) {
  const out = entry.direction === "to_app";
  const failed = entry.answer && entry.answer.ok === false;
  const when = new Date(entry.at * 1000).toLocaleTimeString([], { hour12: false });
  const name = entry.kind === "interactive" ? `interactive ${entry.body.payload.type}` : entry.kind;
  const details = el("details", {}, el("summary", { class: failed ? "failed" : "" },
    el("span", { class: out ? "way out" : "way in" }, out ? "→ app" : "← app"), el("time", {}, when), el("strong", {}, name),
    failed ? el("span", { class: "error" }, entry.answer.error) : null));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) {
      details.append(el("pre", {}, JSON.stringify(entry.body, null, 2)));
      if (entry.answer !== undefined) details.append(el("p", { class: "note" }, "answered"), el("pre", {}, JSON.stringify(entry.answer, null, 2)));
    }
  });
  return el("li", {}, details);
}
