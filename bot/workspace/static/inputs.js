// Elements that hold a value or are pressed. `host` says what happens: host.act(action), host.values, host.put(key, value).

import { el } from "./dom.js";
import { askFirst } from "./dialogs.js";
import { follow, safeLink, textObject } from "./mrkdwn.js";
import { state } from "./state.js";
import { post } from "./api.js";

const SIMPLE = {
  email_text_input: "email",
  url_text_input: "url",
  number_input: "text",
  datepicker: "date",
  timepicker: "time",
  datetimepicker: "datetime-local",
};

export function renderElement(element, block, host, labelled) {
  const context = { element, block, host, labelled, key: `${block.block_id}/${element.action_id}` };
  if (element.type === "button") return button(context);
  if (element.type === "overflow") return overflow(context);
  if (element.type === "image") return image(element);
  const held = host.values.has(context.key) ? host.values.get(context.key) : startValue(element);
  host.values.set(context.key, held);
  if (element.type === "plain_text_input") return textInput(context, held);
  if (element.type in SIMPLE) return simpleInput(context, held);
  if (element.type === "radio_buttons" || element.type === "checkboxes") return choices(context, held);
  if (element.type === "external_select") return externalSelect(context, held);
  return select(context, held);
}

export function image(element) {
  const source = element.image_url || "";
  if (source.startsWith("/") || source.startsWith("data:image/") || source.startsWith(location.origin)) {
    return el("img", { src: source, alt: element.alt_text });
  }
  return el("span", { class: "image-stand-in" }, "🖼 ", safeLink(source, element.alt_text));
}

function startValue(element) {
  const single = element.initial_option;
  if (["radio_buttons", "static_select", "external_select"].includes(element.type)) return single ? single.value : "";
  if (["checkboxes", "multi_static_select"].includes(element.type)) return (element.initial_options || []).map((one) => one.value);
  if (element.type === "multi_users_select") return element.initial_users || [];
  return (
    element.initial_value || element.initial_user || element.initial_channel || element.initial_conversation ||
    element.initial_date || element.initial_time || element.initial_date_time || ""
  );
}

function changed({ element, block, host, key }, value, dispatch = true) {
  host.values.set(key, value);
  const wanted = block.type !== "input" || block.dispatch_action;
  if (wanted && dispatch) host.act({ action_id: element.action_id, block_id: block.block_id, value });
}

function button({ element, block, host }) {
  const node = el(
    "button",
    {
      type: "button",
      class: `kit-button ${element.style || ""}`,
      "aria-label": element.accessibility_label || null,
      "data-action": element.action_id,
    },
    textObject(element.text),
  );
  node.addEventListener("click", async () => {
    if (element.confirm && !(await askFirst(element.confirm))) return;
    if (element.url) follow(element.url);
    node.setAttribute("aria-busy", "true");
    node.disabled = true;
    await host.act({ action_id: element.action_id, block_id: block.block_id });
    node.removeAttribute("aria-busy");
    node.disabled = false;
  });
  return node;
}

function overflow({ element, block, host }) {
  const menu = el("select", { class: "overflow", "aria-label": "More actions" }, el("option", { value: "" }, "⋯"));
  for (const option of element.options) menu.append(el("option", { value: option.value }, option.text.text));
  menu.addEventListener("change", async () => {
    const value = menu.value;
    menu.value = "";
    if (!value || (element.confirm && !(await askFirst(element.confirm)))) return;
    host.act({ action_id: element.action_id, block_id: block.block_id, value });
  });
  return menu;
}

function attributes({ element, labelled, key }) {
  const placeholder = element.placeholder ? element.placeholder.text : null;
  return { ...labelled, "data-key": key, placeholder, "aria-label": labelled ? null : placeholder || element.action_id };
}

function textInput(context, held) {
  const { element } = context;
  const base = { ...attributes(context), maxlength: element.max_length || 3000, autofocus: element.focus_on_load };
  const node = element.multiline ? el("textarea", { ...base, rows: 4 }) : el("input", { ...base, type: "text", autocomplete: "off" });
  node.value = held;
  node.addEventListener("input", () => changed(context, node.value, false));
  node.addEventListener("change", () => context.block.dispatch_action && changed(context, node.value));
  return node;
}

function simpleInput(context, held) {
  const kind = context.element.type;
  const node = el("input", { ...attributes(context), type: SIMPLE[kind], autocomplete: "off" });
  if (kind === "datetimepicker") {
    const local = held ? new Date(held * 1000 - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 16) : "";
    node.value = local;
    node.addEventListener("change", () => changed(context, node.value ? Math.floor(new Date(node.value) / 1000) : null));
    return node;
  }
  node.value = held;
  node.addEventListener(SIMPLE[kind] === "date" || SIMPLE[kind] === "time" ? "change" : "input", () => changed(context, node.value));
  return node;
}

function choices(context, held) {
  const { element, block, labelled } = context;
  const single = element.type === "radio_buttons";
  const box = el("div", { class: "choices", role: single ? "radiogroup" : "group", ...labelled, id: null });
  for (const option of element.options) {
    const checked = single ? held === option.value : held.includes(option.value);
    const input = el("input", { type: single ? "radio" : "checkbox", name: `${block.block_id}-${element.action_id}`, value: option.value });
    input.checked = checked;
    input.addEventListener("change", () => {
      const marked = [...box.querySelectorAll("input:checked")].map((one) => one.value);
      changed(context, single ? marked[0] : marked);
    });
    const words = el("span", {}, textObject(option.text), option.description ? el("small", {}, textObject(option.description)) : null);
    box.append(el("label", { class: "choice" }, input, words));
  }
  return box;
}

function offered(element) {
  if (element.options) return element.options.map((option) => [option.value, option.text.text]);
  if (element.type.endsWith("users_select")) return [...state.users.values()].map((person) => [person.id, person.name]);
  return state.channels.filter((channel) => !channel.direct).map((channel) => [channel.id, `#${channel.name}`]);
}

function select(context, held) {
  const { element } = context;
  const many = element.type.startsWith("multi_");
  const node = el("select", { ...attributes(context), placeholder: null, multiple: many });
  if (!many) node.append(el("option", { value: "" }, element.placeholder ? element.placeholder.text : "Choose…"));
  for (const group of element.option_groups || []) {
    node.append(
      el("optgroup", { label: group.label.text }, group.options.map((option) => el("option", { value: option.value }, option.text.text))),
    );
  }
  if (!element.option_groups) for (const [value, text] of offered(element)) node.append(el("option", { value }, text));
  for (const option of node.options) option.selected = many ? held.includes(option.value) : option.value === held;
  node.addEventListener("change", () => {
    changed(context, many ? [...node.selectedOptions].map((option) => option.value) : node.value);
  });
  return node;
}

function externalSelect(context, held) {
  const { element, block, host, key } = context;
  const list = el("datalist", { id: `options-${key.replace(/\W/g, "-")}` });
  const node = el("input", { ...attributes(context), type: "text", autocomplete: "off", list: list.id });
  let known = element.initial_option ? [element.initial_option] : [];
  const shown = known.find((option) => option.value === held);
  node.value = shown ? shown.text.text : held;
  const ask = async () => {
    const answer = await post("suggest", { ...host.place, action_id: element.action_id, block_id: block.block_id, value: node.value });
    known = [...(answer.options || []), ...(answer.option_groups || []).flatMap((group) => group.options)];
    list.replaceChildren(...known.map((option) => el("option", { value: option.text.text })));
  };
  node.addEventListener("focus", ask);
  node.addEventListener("input", () => {
    const match = known.find((option) => option.text.text === node.value);
    if (match) changed(context, match.value);
    else ask();
  });
  return el("span", { class: "external" }, node, list);
}

