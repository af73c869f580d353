// Slack's mrkdwn and the inline parts of rich text, as elements.

import { el } from "./dom.js";
import { state } from "./state.js";

const EMOJI = {
  white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", warning: "⚠️", no_entry: "⛔", no_entry_sign: "🚫", lock: "🔒",
  unlock: "🔓", key: "🔑", hourglass: "⌛", hourglass_flowing_sand: "⏳", alarm_clock: "⏰", stopwatch: "⏱️", eyes: "👀",
  rotating_light: "🚨", information_source: "ℹ️", question: "❓", exclamation: "❗", bell: "🔔", tada: "🎉", wave: "👋",
  thumbsup: "👍", "+1": "👍", thumbsdown: "👎", "-1": "👎", page_facing_up: "📄", scroll: "📜", memo: "📝", link: "🔗",
  shield: "🛡️", detective: "🕵️", bust_in_silhouette: "👤", robot_face: "🤖", raised_hand: "✋", octagonal_sign: "🛑",
  large_green_circle: "🟢", large_yellow_circle: "🟡", large_orange_circle: "🟠", red_circle: "🔴", white_circle: "⚪",
  black_circle: "⚫", mag: "🔍", gear: "⚙️", wrench: "🔧", hammer_and_wrench: "🛠️", fire: "🔥", zap: "⚡", rocket: "🚀",
  closed_lock_with_key: "🔐", card_index: "📇", bar_chart: "📊", arrow_right: "➡️", point_right: "👉", sparkles: "✨",
};

const TOKEN =
  /```\n?([\s\S]+?)\n?```|`([^`\n]+)`|<([^<>\n]+)>|(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])|(?<![\w_])_(?=[^\s_])([^_\n]+?)(?<=\S)_(?![\w_])|(?<![\w~])~(?=[^\s~])([^~\n]+?)(?<=\S)~(?![\w~])|:([a-z0-9_+-]+):/;

export const unescape = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

export function safeLink(url, label) {
  let parsed = null;
  try {
    parsed = new URL(url);
  } catch {
    return label;
  }
  if (!["http:", "https:", "mailto:"].includes(parsed.protocol)) return label;
  const here = placeIn(parsed);
  if (here) return el("a", { href: here }, label);
  return el("a", { href: parsed.href, target: "_blank", rel: "noopener noreferrer" }, label);
}

// A permanent link into this workspace, as an address within the page; nothing for any other.
function placeIn(url) {
  const found = url.origin === location.origin ? /^\/archives\/(\w+)\/p(\d+)(\d{6})$/.exec(url.pathname) : null;
  if (!found) return null;
  const [, channel, seconds, rest] = found;
  return `#${channel}/${url.searchParams.get("thread_ts") || `${seconds}.${rest}`}`;
}

// Follows a link: within the page where it leads into this workspace, else beside it.
export function follow(address) {
  let parsed = null;
  try {
    parsed = new URL(address);
  } catch {
    return;
  }
  const here = placeIn(parsed);
  if (here) location.hash = here;
  else window.open(parsed.href, "_blank", "noopener,noreferrer");
}

export function mention(user) {
  const person = state.users.get(user);
  const name = person ? person.name : user === state.app.user ? state.app.display_name : user;
  return el("span", { class: user === state.me.id ? "mention me" : "mention" }, `@${name}`);
}

export function channelLink(id, label) {
  const channel = state.channels.find((one) => one.id === id);
  const name = channel ? channel.name : label || id;
  if (!channel) return el("span", { class: "mention" }, `#${name}`);
  return el("button", { type: "button", class: "mention link", onclick: () => state.actions.openChannel(id) }, `#${name}`);
}

export function groupMention(id) {
  const group = state.groups.find((one) => one.id === id);
  return el("span", { class: "mention" }, `@${group ? group.handle : id}`);
}

const PAD = (number) => String(number).padStart(2, "0");

function ordinal(number) {
  const tens = number % 100;
  const ending = tens > 10 && tens < 14 ? "th" : ["th", "st", "nd", "rd"][number % 10] || "th";
  return `${number}${ending}`;
}

export function formatDate(timestamp, format, fallback) {
  const date = new Date(Number(timestamp) * 1000);
  if (Number.isNaN(date.getTime())) return fallback;
  const long = date.toLocaleDateString("en", { month: "long" });
  const short = date.toLocaleDateString("en", { month: "short" });
  const away = Math.round((new Date(date).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86400000);
  const near = { "-1": "yesterday", 0: "today", 1: "tomorrow" }[away];
  const plain = `${long} ${ordinal(date.getDate())}, ${date.getFullYear()}`;
  const brief = `${short} ${date.getDate()}, ${date.getFullYear()}`;
  const full = `${date.toLocaleDateString("en", { weekday: "long" })}, ${plain}`;
  const parts = {
    date_num: `${date.getFullYear()}-${PAD(date.getMonth() + 1)}-${PAD(date.getDate())}`,
    date_slash: `${PAD(date.getMonth() + 1)}/${PAD(date.getDate())}/${date.getFullYear()}`,
    date: plain,
    date_short: brief,
    date_long: full,
    date_pretty: near || plain,
    date_short_pretty: near || brief,
    date_long_pretty: near || full,
    day_divider_pretty: near || full,
    time: date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }),
    time_secs: date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    ago: ago(date),
  };
  const text = format.replace(/\{(\w+)\}/g, (whole, name) => parts[name] ?? whole);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function ago(date) {
  const seconds = Math.round((date - Date.now()) / 1000);
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, one]) => Math.abs(seconds) >= one) || units[3];
  return new Intl.RelativeTimeFormat("en").format(Math.round(seconds / size), unit);
}

function dateNode(timestamp, format, fallback, url) {
  const shown = formatDate(timestamp, format, fallback);
  const node = el("time", { title: new Date(Number(timestamp) * 1000).toString() }, shown);
  return url ? safeLink(url, node) : node;
}

function angle(inside) {
  const [target, ...rest] = inside.split("|");
  const label = rest.length ? unescape(rest.join("|")) : null;
  if (target.startsWith("@")) return mention(target.slice(1));
  if (target.startsWith("#")) return channelLink(target.slice(1), label);
  if (target.startsWith("!date^")) {
    const [, timestamp, format, url] = target.split("^");
    return dateNode(timestamp, unescape(format || ""), label || timestamp, url);
  }
  if (target.startsWith("!subteam^")) return groupMention(target.slice(9));
  if (target.startsWith("!")) return el("span", { class: "mention me" }, `@${target.slice(1)}`);
  return safeLink(unescape(target), label || unescape(target).replace(/^mailto:/, ""));
}

function spans(text) {
  const nodes = [];
  let rest = text;
  while (rest) {
    const found = TOKEN.exec(rest);
    if (!found) break;
    if (found.index) nodes.push(unescape(rest.slice(0, found.index)));
    const [whole, fence, code, inside, bold, italic, strike, emoji] = found;
    if (fence !== undefined) nodes.push(codeBlock(unescape(fence)));
    else if (code !== undefined) nodes.push(el("code", {}, unescape(code)));
    else if (inside !== undefined) nodes.push(angle(inside));
    else if (bold !== undefined) nodes.push(el("strong", {}, spans(bold)));
    else if (italic !== undefined) nodes.push(el("em", {}, spans(italic)));
    else if (strike !== undefined) nodes.push(el("s", {}, spans(strike)));
    else nodes.push(EMOJI[emoji] || whole);
    rest = rest.slice(found.index + whole.length);
  }
  if (rest) nodes.push(unescape(rest));
  return nodes;
}

const QUOTED = /^(?:&gt;|>) ?/;

export function mrkdwn(text) {
  const box = el("div", { class: "mrkdwn" });
  const pieces = text.split(/(```[\s\S]+?```)/);
  for (const piece of pieces) {
    if (piece.startsWith("```") && piece.length > 6) {
      box.append(...spans(piece));
      continue;
    }
    let quote = null;
    piece.split("\n").forEach((line, index) => {
      if (QUOTED.test(line)) {
        if (!quote) box.append((quote = el("blockquote")));
        else quote.append("\n");
        quote.append(...spans(line.replace(QUOTED, "")));
      } else {
        if (index && !quote) box.append("\n");
        quote = null;
        box.append(...spans(line));
      }
    });
  }
  return box;
}

export function plain(text) {
  return el("span", { class: "plain" }, text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] || whole));
}

export function textObject(object) {
  return object.type === "plain_text" ? plain(object.text) : mrkdwn(object.text);
}

export function codeBlock(text) {
  const button = el("button", { type: "button", class: "copy", "aria-label": "Copy" }, "Copy");
  button.addEventListener("click", () => state.actions.copy(text, button));
  return el("div", { class: "code-block" }, el("pre", { tabindex: "0" }, text), button);
}

export function inlineElement(element) {
  const style = element.style || {};
  let node = inlineBase(element);
  if (style.code) node = el("code", {}, node);
  if (style.bold) node = el("strong", {}, node);
  if (style.italic) node = el("em", {}, node);
  if (style.strike) node = el("s", {}, node);
  if (style.underline) node = el("u", {}, node);
  if (style.highlight) node = el("mark", {}, node);
  return node;
}

function inlineBase(element) {
  switch (element.type) {
    case "text":
      return document.createTextNode(element.text);
    case "link":
      return safeLink(element.url, element.text || element.url);
    case "user":
      return mention(element.user_id);
    case "usergroup":
      return groupMention(element.usergroup_id);
    case "channel":
      return channelLink(element.channel_id);
    case "emoji":
      return document.createTextNode(EMOJI[element.name] || `:${element.name}:`);
    case "date":
      return dateNode(element.timestamp, element.format, element.fallback || "", element.url);
    case "broadcast":
      return el("span", { class: "mention me" }, `@${element.range}`);
    default:
      return document.createTextNode(element.value || element.team_id || "");
  }
}
