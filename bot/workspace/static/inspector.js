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

// These do not wait for anything.
const AT_ONCE = {
  drop_socket: "Every socket was cut. The app comes back by itself.",
  disconnect: "Every socket was asked to reconnect.",
  clear: "Nothing is armed any more.",
};

let seen = 0;
let timer = null;
const armed = el("p", { class: "armed", role: "status" });
const list = el("ol", { class: "entries" });

export function toggleInspector(wanted) {
  const drawer = byId("inspector");
  if (wanted === false && drawer.hidden) return;
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
    el("div", { class: "faults", role: "group", "aria-label": "Faults" }, FAULTS.map(([name, wish]) => el("button", { type: "button", class: "kit-button", onclick: () => arm(name, wish) }, name)), armed),
    el("div", { class: "pane-scroll" }, list),
  );
  refresh();
  timer = setInterval(refresh, 1000);
}

async function arm(name, wish) {
  const answer = await post("faults", wish);
  const once = Object.keys(wish).find((key) => key in AT_ONCE);
  if (!answer.ok) return toast(`${name}: ${answer.error}`);
  if (once) toast(AT_ONCE[once]);
  showArmed(answer.faults);
}

const times = (count, what) => `${what}${count > 1 ? ` (${count} left)` : ""}`;

// Says in words what is still to go wrong.
function waiting(faults) {
  const calls = faults.calls.map((one) =>
    times(one.count, `${one.count > 1 ? "the next calls" : "the next call"}${one.method ? ` of ${one.method}` : ""}: ${one.drop ? `cut ${one.drop} its work` : one.status}`));
  const rates = faults.rates.map((one) => `${one.method}: at most ${one.most} in ${one.per_ms} ms`);
  const counted = [["duplicate", "delivered twice"], ["lose_ack", "acknowledgement lost"], ["delayed", `delivered ${faults.delay_ms / 1000} s late`], ["signed_badly", `signed badly (${faults.signature})`]];
  return [...calls, ...rates, ...counted.filter(([key]) => faults[key]).map(([key, what]) => times(faults[key], `the next payload: ${what}`))];
}

function showArmed(faults) {
  const list = waiting(faults);
  armed.classList.toggle("some", list.length > 0);
  armed.textContent = list.length ? `Armed: ${list.join("; ")}.` : "Nothing is armed.";
}

async function refresh() {
  const answer = await get("journal", { since: seen });
  for (const entry of answer.entries || []) {
    seen = entry.seq;
    list.prepend(row(entry));
  }
  while (list.childElementCount > 300) list.lastElementChild.remove();
  const { faults } = await get("faults");
  if (faults) showArmed(faults);
}

// How a call was answered; what goes to the app has no answer here.
function outcome({ answer }) {
  if (!answer || typeof answer !== "object") return null;
  if (answer.drop) return { text: `cut ${answer.drop}`, failed: true };
  if (answer.fault) return { text: String(answer.fault), failed: true };
  if (answer.ok === false) return { text: answer.error || "error", failed: true };
  return { text: "ok", failed: false };
}

function row(entry) {
  const out = entry.direction === "to_app";
  const came = outcome(entry);
  const failed = Boolean(came && came.failed);
  const when = new Date(entry.at * 1000).toLocaleTimeString([], { hour12: false });
  const name = entry.kind === "interactive" ? `interactive ${entry.body.payload.type}` : entry.kind;
  const details = el("details", {}, el("summary", { class: failed ? "failed" : "" },
    el("span", { class: out ? "way out" : "way in" }, out ? "→ app" : "← app"), el("time", {}, when), el("strong", {}, name),
    came ? el("span", { class: failed ? "error" : "fine" }, came.text) : null));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) {
      details.append(el("pre", {}, JSON.stringify(entry.body, null, 2)));
      if (entry.answer !== undefined) details.append(el("p", { class: "note" }, "answered"), el("pre", {}, JSON.stringify(entry.answer, null, 2)));
    }
  });
  return el("li", {}, details);
}
