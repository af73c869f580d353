// The left side: who you are, channels, the app, and the drawers.

import { byId, el, fill, icon, toast } from "./dom.js";
import { post, said } from "./api.js";
import { avatar, badge } from "./messages.js";
import { state } from "./state.js";
import { anyOpened, anyRuns } from "./terminal.js";

export function renderSidebar() {
  const open = byId("people") && byId("people").matches(":popover-open");
  if (open) return;
  const channels = state.channels.filter((channel) => !channel.direct);
  const direct = state.channels.filter((channel) => channel.direct);
  fill(
    byId("sidebar"),
    el("div", { class: "side-head" }, el("strong", { class: "team" }, state.team)),
    me(),
    el("div", { class: "side-scroll", onkeydown: (event) => walk(event, event.currentTarget) },
      el("h2", {}, "Channels"),
      el("ul", {}, channels.map((channel) => el("li", {}, channelButton(channel)))),
      el("h2", {}, "Apps"),
      el("ul", {}, direct.map((channel) => el("li", {}, channelButton(channel)))),
      shortcuts(),
    ),
    el("div", { class: "side-foot" },
      state.guide ? el("button", { type: "button", onclick: () => state.actions.toggleGuide() }, icon("guide"), "What to try next") : null,
      el("button", { type: "button", id: "psql-button", onclick: () => (state.actions.showSidebar(false), state.actions.toggleTerminal()) }, icon("terminal"), "Terminal", el("small", {})),
      el("button", { type: "button", onclick: () => (state.actions.showSidebar(false), state.actions.toggleInspector()) }, icon("inspect"), "Payloads and faults"),
    ),
  );
  renderSessions();
}

// Says beside the button whether psql has a session.
export function renderSessions() {
  const button = byId("psql-button");
  if (!button) return;
  const runs = anyRuns();
  button.className = runs ? "on" : anyOpened() ? "over" : "";
  button.querySelector("small").textContent = runs ? "open" : anyOpened() ? "ended" : "";
}

// Up and down walk through a list, home and end go to its ends.
export function walk(event, list) {
  const places = [...list.querySelectorAll("button")];
  const at = places.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: places.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  places[(to + places.length) % places.length].focus();
}

function me() {
  const button = el(
    "button",
    { type: "button", class: "me-button", popovertarget: "people", "aria-label": `You are ${state.me.name}, ${state.me.title}. Switch user` },
    avatar(state.me.id),
    el("span", { class: "who" }, el("strong", {}, state.me.name), el("small", {}, state.me.title)),
    icon("chevron"),
  );
  const list = el("div", { id: "people", popover: "auto", role: "menu", "aria-label": "Switch user" });
  list.addEventListener("keydown", (event) => walk(event, list));
  list.addEventListener("beforetoggle", () => {
    list.style.top = `${button.getBoundingClientRect().bottom + 6}px`;
  });
  list.append(
    el("p", { class: "note" }, "Be someone else"),
    ...[...state.users.values()].map((person) =>
      el(
        "button",
        {
          type: "button",
          role: "menuitemradio",
          autofocus: person.id === state.me.id,
          "aria-checked": person.id === state.me.id ? "true" : "false",
          onclick: () => (list.hidePopover(), state.actions.become(person.id)),
        },
        avatar(person.id),
        el("span", { class: "who" }, el("strong", {}, person.name, badge(person.id)), el("small", {}, person.deleted ? "Deactivated" : person.title)),
        person.id === state.me.id ? icon("check") : null,
      ),
    ),
  );
  return el("div", { class: "me" }, button, list);
}

function channelButton(channel) {
  const current = channel.id === state.channel;
  const mark = channel.direct ? avatar(state.app.user, true) : el("span", { class: "hash", "aria-hidden": "true" }, "#");
  const name = channel.direct ? state.app.display_name : channel.name;
  const unread = channel.unread ? `, ${channel.unread} unread` : "";
  return el(
    "button",
    {
      type: "button",
      class: `channel${current ? " current" : ""}${channel.unread ? " unread" : ""}`,
      "aria-current": current ? "page" : null,
      "aria-label": `${channel.direct ? "" : "#"}${name}${unread}`,
      onclick: () => state.actions.openChannel(channel.id),
    },
    mark,
    el("span", { class: "name" }, name),
    channel.shared ? el("span", { class: "shared", title: "Shared with another company" }, "shared") : null,
    channel.unread ? el("span", { class: "count" }, channel.unread > 99 ? "99+" : channel.unread) : null,
  );
}

function shortcuts() {
  const global = state.app.shortcuts.filter((shortcut) => shortcut.type === "global");
  if (!global.length) return null;
  return [
    el("h2", {}, "Shortcuts"),
    el("ul", {}, global.map((shortcut) => el("li", {}, el("button", { type: "button", class: "channel", title: shortcut.description, onclick: () => begin(shortcut) },
      el("span", { class: "hash", "aria-hidden": "true" }, "⚡"), el("span", { class: "name" }, shortcut.name))))),
  ];
}

async function begin(shortcut) {
  const answer = await post("shortcut", { user: state.me.id, callback_id: shortcut.callback_id });
  if (!answer.ok) toast(said(answer.error));
}
