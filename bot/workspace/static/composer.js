// The box people write in: Enter sends, hints for commands, people and channels.

import { byId, el, fill, icon, toast } from "./dom.js";
import { post, said } from "./api.js";
import { currentChannel, state } from "./state.js";

const INVITE = { command: "/invite", description: "Bring someone into this channel", usage_hint: "@name" };

export function prepareComposer(form, { label, threadOf = () => null, onText = () => {} }) {
  const box = el("textarea", { rows: 1, "aria-label": label(), placeholder: label(), "aria-autocomplete": "list", spellcheck: "true" });
  const hints = el("ul", { class: "hints", role: "listbox", "aria-label": "Suggestions", hidden: true });
  const send = el("button", { type: "submit", class: "send", "aria-label": "Send" }, icon("send"));
  fill(form, hints, el("div", { class: "write" }, box, send));
  let chosen = 0;
  let offers = [];

  const grow = () => {
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight, 180)}px`;
    send.disabled = !box.value.trim();
    onText(box.value);
  };
  const hide = () => {
    offers = [];
    hints.hidden = true;
  };
  const take = (offer) => {
    box.value = box.value.slice(0, offer.from) + offer.put + box.value.slice(box.selectionStart);
    hide();
    grow();
    box.focus();
  };
  const show = () => {
    offers = suggestions(box.value, box.selectionStart, Boolean(threadOf()));
    chosen = 0;
    mark();
  };
  const mark = () => {
    hints.hidden = !offers.length;
    fill(
      hints,
      offers.map((offer, index) =>
        el(
          "li",
          { role: "option", "aria-selected": index === chosen ? "true" : "false", onmousedown: (event) => (event.preventDefault(), take(offer)) },
          el("strong", {}, offer.title),
          offer.usage ? el("code", {}, offer.usage) : null,
          el("span", {}, offer.note),
        ),
      ),
    );
  };
  const submit = async () => {
    const text = box.value;
    if (!text.trim()) return;
    box.value = "";
    hide();
    grow();
    const answer = await say(text, threadOf());
    if (!answer.ok && !answer.shown) {
      toast(said(answer.error));
      if (!box.value) box.value = text;
      grow();
    }
  };

  form.addEventListener("submit", (event) => (event.preventDefault(), submit()));
  box.addEventListener("input", () => (grow(), show()));
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (offers.length && ["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      chosen = (chosen + (event.key === "ArrowDown" ? 1 : offers.length - 1)) % offers.length;
      mark();
    } else if (offers.length && (event.key === "Tab" || (event.key === "Enter" && offers[chosen].eager))) {
      event.preventDefault();
      take(offers[chosen]);
    } else if (offers.length && event.key === "Escape") {
      event.stopPropagation();
      hide();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    }
  });
  grow();
  return {
    put: (text) => {
      box.value = text;
      grow();
      box.focus();
    },
    relabel: () => {
      box.setAttribute("aria-label", label());
      box.placeholder = label();
    },
    focus: () => box.focus(),
    text: () => box.value,
  };
}

function suggestions(text, at, inThread) {
  const word = /(^|\s)([/@#][\w.-]*)$/.exec(text.slice(0, at));
  if (!word) {
    const known = inThread ? null : state.app.commands.find((one) => text.startsWith(`${one.command} `));
    return known && known.usage_hint && !text.includes("\n") && text.trim() === known.command
      ? [{ title: known.command, usage: known.usage_hint, note: known.description, from: at, put: "", eager: false }]
      : [];
  }
  const [, , typed] = word;
  const from = at - typed.length;
  const start = typed.slice(1).toLowerCase();
  if (typed[0] === "/") {
    if (from !== 0 || inThread) return [];
    return [...state.app.commands, INVITE]
      .filter((one) => one.command.startsWith(typed))
      .map((one) => ({
        title: one.command, usage: one.usage_hint, note: one.description, from, put: `${one.command} `, eager: one.command !== typed,
      }));
  }
  if (typed[0] === "#") {
    return state.channels
      .filter((channel) => !channel.direct && channel.name.startsWith(start))
      .map((channel) => ({ title: `#${channel.name}`, note: channel.purpose, from, put: `#${channel.name} `, eager: `#${channel.name}` !== typed }));
  }
  const people = [...state.users.values()].map((person) => [person.handle, `${person.name}, ${person.title}`]);
  return [...people, [state.app.handle, `${state.app.display_name}, app`]]
    .filter(([handle]) => handle.startsWith(start))
    .map(([handle, note]) => ({ title: `@${handle}`, note, from, put: `@${handle} `, eager: `@${handle}` !== typed }));
}

async function say(text, threadTs) {
  const channel = currentChannel();
  const base = { user: state.me.id, channel: channel.id };
  if (text.startsWith("/")) {
    if (threadTs) return { ok: false, error: "commands_not_in_threads" };
    working(`${state.app.display_name} is working on ${text.split(/\s/)[0]} …`);
    const answer = await post("command", { ...base, text });
    working("");
    return { ...answer, shown: ["operation_timeout", "app_not_connected", "invalid_command_response"].includes(answer.error) };
  }
  return post("message", { ...base, text, thread_ts: threadTs });
}

let slow = null;

function working(text) {
  clearTimeout(slow);
  const note = byId("working");
  note.hidden = true;
  if (!text) return;
  slow = setTimeout(() => {
    note.textContent = text;
    note.hidden = false;
  }, 250);
}
