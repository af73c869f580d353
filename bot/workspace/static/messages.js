// Messages: one by one, in the channel, in the thread.

import { clock, day, el, icon, toast } from "./dom.js";
import { post, said } from "./api.js";
import { renderBlocks } from "./blocks.js";
import { renderFile } from "./files.js";
import { mrkdwn } from "./mrkdwn.js";
import { currentChannel, nameOf, state } from "./state.js";
import { isLine, openPsql } from "./terminal.js";

const TOGETHER_SECONDS = 300;
const MOST_KEPT = 5000;

export function avatar(user, small = false) {
  const name = nameOf(user);
  const person = state.users.get(user);
  const kind = user === state.app.user ? "app" : person ? `tone-${[...state.users.keys()].indexOf(user) % 6}` : "system";
  return el("span", { class: `avatar ${kind}${small ? " small" : ""}`, "aria-hidden": "true" }, name.slice(0, 1).toUpperCase());
}

export function badge(user) {
  const person = state.users.get(user);
  if (user === state.app.user) return el("span", { class: "tag" }, "APP");
  if (!person) return null;
  if (person.is_stranger) return el("span", { class: "tag outside" }, "EXTERNAL");
  if (person.is_restricted) return el("span", { class: "tag outside" }, "GUEST");
  return null;
}

const drawn = new Map();

export function forgetMessages() {
  drawn.clear();
}

export function renderMessage(message, { inThread = false, follows = false } = {}) {
  const key = `${message.channel}/${message.ts}/${inThread}`;
  const known = drawn.get(key);
  // The same object has not changed: an update puts a new one in its place.
  if (known && known.message === message && known.follows === follows) return known.node;
  const signature = JSON.stringify([message, follows]);
  if (known && known.signature === signature) {
    known.message = message;
    return known.node;
  }
  const node = draw(message, inThread, follows);
  if (drawn.size > MOST_KEPT) drawn.clear();
  drawn.set(key, { message, follows, signature, node });
  return node;
}

function draw(message, inThread, follows) {
  const system = message.subtype === "channel_join" || message.subtype === "tombstone";
  const classes = ["message", follows && "follows", message.ephemeral && "ephemeral", system && "system"].filter(Boolean).join(" ");
  const when = el("time", { class: "when", title: new Date(Number(message.ts) * 1000).toString() }, clock(message.ts));
  const head = el("header", { class: "message-head" }, el("strong", {}, nameOf(message.user)), badge(message.user), when);
  const body = el("div", { class: "message-body" }, follows ? el("span", { class: "offscreen" }, `${nameOf(message.user)} `) : head);
  if (message.ephemeral) body.append(el("p", { class: "only-you" }, icon("eye"), "Only visible to you"));
  if (inThread && message.broadcast) body.append(el("p", { class: "only-you" }, "Also sent to the channel"));
  body.append(...content(message));
  offerPsql(message, body);
  for (const file of message.files) body.append(renderFile(file));
  if (message.reactions.length) body.append(el("p", { class: "reactions" }, message.reactions.map((one) => mrkdwn(`:${one.name}: ${one.count}`))));
  if (!inThread && message.reply_count) body.append(threadLink(message));
  return el(
    "article",
    { class: classes, "data-ts": message.ts, "aria-label": `${nameOf(message.user)} at ${clock(message.ts)}` },
    follows ? el("span", { class: "gutter" }, clock(message.ts).replace(/\s?[AP]M/i, "")) : avatar(message.user),
    body,
    inThread || message.ephemeral || system ? null : tools(message),
  );
}

function content(message) {
  const place = { user: state.me.id, channel: message.channel, message_ts: message.ts };
  const values = new Map();
  const host = { values, place, act: (action) => act(place, action, values) };
  const typed = !message.from_app && message.blocks.length === 1 && message.blocks[0].type === "rich_text";
  if (message.blocks.length && !typed) return [el("div", { class: "kit" }, renderBlocks(message.blocks, host)), edited(message)];
  return message.text ? [mrkdwn(message.text), edited(message)] : [];
}

// A line for psql, sent to this person alone: the pane can run it.
function offerPsql(message, body) {
  const channel = currentChannel();
  if (!message.from_app || !(message.ephemeral || (channel && channel.direct))) return;
  for (const block of body.querySelectorAll(".code-block")) {
    if (!isLine(block.querySelector("pre").textContent)) continue;
    block.classList.add("runs");
    block.append(el("button", { type: "button", class: "kit-button primary run-psql", onclick: () => openPsql(message.channel, message.ts) }, icon("terminal"), "Open psql here"));
  }
}

function edited(message) {
  return message.edited ? el("span", { class: "edited" }, "(edited)") : "";
}

async function act(place, action, values) {
  const given = {};
  for (const [key, value] of values) given[key.slice(key.lastIndexOf("/") + 1)] = value;
  const answer = await post("click", { ...place, ...action, values: given, wait_ms: 1000 });
  if (!answer.ok) toast(said(answer.error));
}

function threadLink(message) {
  const faces = message.reply_users.slice(0, 3).map((user) => avatar(user, true));
  const many = message.reply_count === 1 ? "1 reply" : `${message.reply_count} replies`;
  return el(
    "button",
    { type: "button", class: "thread-link", onclick: () => state.actions.openThread(message.ts) },
    faces,
    el("strong", {}, many),
    message.latest_reply ? el("span", { class: "when" }, `Last reply ${clock(message.latest_reply)}`) : null,
  );
}

function tools(message) {
  const shortcuts = state.app.shortcuts
    .filter((shortcut) => shortcut.type === "message")
    .map((shortcut) =>
      el("button", { type: "button", onclick: () => useShortcut(shortcut, message) }, shortcut.name),
    );
  return el(
    "div",
    { class: "tools" },
    el("button", { type: "button", "aria-label": "Reply in thread", title: "Reply in thread", onclick: () => state.actions.openThread(message.ts) }, icon("thread")),
    shortcuts,
  );
}

async function useShortcut(shortcut, message) {
  const answer = await post("shortcut", {
    user: state.me.id, callback_id: shortcut.callback_id, channel: message.channel, message_ts: message.ts,
  });
  if (!answer.ok) toast(said(answer.error));
}

function follows(message, before) {
  return (
    before &&
    before.user === message.user &&
    before.ephemeral === message.ephemeral &&
    !before.subtype &&
    !before.reply_count &&
    !message.from_app &&
    day(before.ts) === day(message.ts) &&
    Number(message.ts) - Number(before.ts) < TOGETHER_SECONDS
  );
}

function divider(key, text) {
  if (!drawn.has(key)) drawn.set(key, { node: el("div", { class: "day" }, el("span")) });
  const { node } = drawn.get(key);
  node.firstChild.textContent = text;
  return node;
}

export function renderLog(messages, emptyNote) {
  const nodes = [];
  let before = null;
  for (const message of messages) {
    if (!before || day(before.ts) !== day(message.ts)) nodes.push(divider(`day-${day(message.ts)}`, day(message.ts)));
    nodes.push(renderMessage(message, { follows: follows(message, before) }));
    before = message;
  }
  return nodes.length ? nodes : [emptyNote];
}

export function renderThread(parent, all, replies, more) {
  if (!parent) return [el("p", { class: "empty" }, "This thread is not there any more.")];
  // What only this person sees is no reply.
  const count = all.filter((reply) => !reply.ephemeral).length;
  const many = count === 1 ? "1 reply" : `${count} replies`;
  return [
    renderMessage(parent, { inThread: true }),
    count ? divider(`replies-${parent.ts}`, many) : null,
    more,
    ...replies.map((reply, index) => renderMessage(reply, { inThread: true, follows: follows(reply, replies[index - 1]) })),
  ].filter(Boolean);
}
