// Block Kit, as elements.

import { el } from "./dom.js";
import { image, renderElement } from "./inputs.js";
import { codeBlock, inlineElement, mrkdwn, plain, textObject } from "./mrkdwn.js";

export function renderBlocks(blocks, host) {
  return blocks.map((block) => renderBlock(block, host));
}

function renderBlock(block, host) {
  switch (block.type) {
    case "header":
      return el("h3", { class: "kit-header" }, plain(block.text.text));
    case "divider":
      return el("hr", { class: "kit-divider" });
    case "section":
      return section(block, host);
    case "context":
      return el("div", { class: "kit-context" }, block.elements.map(contextElement));
    case "actions":
      return el("div", { class: "kit-actions" }, block.elements.map((element) => renderElement(element, block, host)));
    case "image":
      return el("figure", { class: "kit-image" }, block.title ? el("figcaption", {}, plain(block.title.text)) : null, image(block));
    case "markdown":
      return el("div", { class: "kit-section" }, mrkdwn(block.text.replaceAll("**", "*")));
    case "rich_text":
      return el("div", { class: "kit-rich" }, block.elements.map(richElement));
    case "input":
      return inputBlock(block, host);
    default:
      return el("p", { class: "unknown" }, `Block of type ${block.type}`);
  }
}

function contextElement(element) {
  return element.type === "image" ? image(element) : textObject(element);
}

function section(block, host) {
  const words = el("div", { class: "words" });
  if (block.text) words.append(textObject(block.text));
  if (block.fields) words.append(el("div", { class: "fields" }, block.fields.map((field) => el("div", {}, textObject(field)))));
  const accessory = block.accessory ? el("div", { class: "accessory" }, renderElement(block.accessory, block, host)) : null;
  return el("div", { class: "kit-section" }, words, accessory);
}

function richElement(element) {
  switch (element.type) {
    case "rich_text_preformatted":
      return codeBlock(element.elements.map((one) => one.text || one.url || "").join(""));
    case "rich_text_quote":
      return el("blockquote", {}, element.elements.map(inlineElement));
    case "rich_text_list": {
      const list = el(element.style === "ordered" ? "ol" : "ul", { class: `indent-${element.indent || 0}` });
      if (element.style === "ordered" && element.offset) list.start = element.offset + 1;
      list.append(...element.elements.map((item) => el("li", {}, item.elements.map(inlineElement))));
      return list;
    }
    default:
      return el("p", {}, element.elements.map(inlineElement));
  }
}

let count = 0;

function inputBlock(block, host) {
  const id = `input-${(count += 1)}`;
  const error = host.errors ? host.errors[block.block_id] : null;
  const grouped = ["radio_buttons", "checkboxes"].includes(block.element.type);
  const described = [block.hint ? `${id}-hint` : null, error ? `${id}-error` : null].filter(Boolean).join(" ") || null;
  const labelled = {
    id: grouped ? null : id,
    "aria-labelledby": grouped ? `${id}-label` : null,
    "aria-describedby": described,
    "aria-invalid": error ? "true" : null,
    "aria-required": block.optional ? null : "true",
  };
  const title = [plain(block.label.text), block.optional ? el("span", { class: "optional" }, " (optional)") : null];
  return el(
    "div",
    { class: error ? "kit-input wrong" : "kit-input", "data-block": block.block_id },
    grouped ? el("div", { class: "label", id: `${id}-label` }, title) : el("label", { class: "label", for: id }, title),
    renderElement(block.element, block, host, labelled),
    block.hint ? el("p", { class: "hint", id: `${id}-hint` }, plain(block.hint.text)) : null,
    error ? el("p", { class: "error", id: `${id}-error`, role: "alert" }, error) : null,
  );
}
