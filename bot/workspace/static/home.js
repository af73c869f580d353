// The app's home tab, as it has published it for the current person.

import { byId, el, fill, toast } from "./dom.js";
import { post, said } from "./api.js";
import { renderBlocks } from "./blocks.js";
import { state } from "./state.js";

let drawn = null;
let values = new Map();

export function renderHome() {
  const view = state.home;
  const key = view ? `${state.me.id}/${view.id}/${view.hash}` : null;
  // Drawn again only when it has changed, so that what somebody types there stays.
  if (key && key === drawn) return;
  if (!drawn || !view || !drawn.startsWith(`${state.me.id}/${view.id}/`)) values = new Map();
  drawn = key;
  if (!view) {
    fill(byId("home"), el("div", { class: "empty" }, el("h2", {}, `${state.app.display_name} has nothing here yet`), el("p", {}, "An app fills its home when you open it. This one has not, so far.")));
    return;
  }
  fill(byId("home"), el("div", { class: "kit" }, renderBlocks(view.blocks, { values, act, place: { user: state.me.id, view_id: view.id } })));
}

async function act(action) {
  const given = {};
  for (const [key, value] of values) given[key.slice(key.lastIndexOf("/") + 1)] = value;
  const answer = await post("click", { user: state.me.id, view_id: state.home.id, ...action, values: given, wait_ms: 1000 });
  if (!answer.ok) toast(said(answer.error));
}

export async function showHome() {
  const answer = await post("home", { user: state.me.id });
  if (!answer.ok) toast(said(answer.error));
}
