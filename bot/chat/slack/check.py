"""Holds a finished payload against Slack's limits; the bot sends nothing that this finds fault with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from bot.chat.slack import limits
from bot.chat.slack.blocks import characters
from bot.text import length

_RICH = {
    "rich_text_section": ("text", "user", "date", "link"),
    "rich_text_quote": ("text",),
    "rich_text_preformatted": ("text",),
}
_SPECIAL = re.compile(r"<(?!@[A-Z][A-Z0-9]+>|!date\^\d+\^[^<>|]+\|[^<>|]+>|https?://[^<>|\s]+\|[^<>|]+>)")
"""Any angle bracket but a mention of a person, a date, or a link with a text."""


class PayloadInvalid(Exception):
    """Slack would refuse this payload"""


def check_payload(payload: dict[str, Any]) -> None:
    """Check a message or a view; raises PayloadInvalid with everything that is wrong."""
    found = list(_view(payload) if payload.get("type") in ("modal", "home") else _message(payload))
    if found:
        raise PayloadInvalid("; ".join(found[:10]))


def _message(payload: dict[str, Any]) -> Iterator[str]:
    text = payload.get("text")
    if not isinstance(text, str) or not text.strip():
        yield "text: a message needs a text"
    elif length(text) > limits.FALLBACK or _SPECIAL.search(text):
        yield "text: too long, or holds markup"
    blocks = payload.get("blocks")
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= limits.MESSAGE_BLOCKS:
        yield "blocks: between 1 and 50"
        return
    if characters(blocks) > limits.MESSAGE_CHARACTERS:
        yield "blocks: too long together"
    if len(json.dumps(payload.get("metadata", {}))) > limits.METADATA_BYTES:
        yield "metadata: too long"
    yield from _blocks(blocks)


def _view(view: dict[str, Any]) -> Iterator[str]:
    for key in ("title", "submit", "close"):
        if key in view:
            yield from _plain(view[key], limits.VIEW_TITLE, key)
    modal = view["type"] == "modal"
    if "title" not in view and modal:
        yield "title: missing"
    if length(view.get("private_metadata", "")) > limits.PRIVATE_METADATA:
        yield "private_metadata: too long"
    if not modal <= length(view.get("callback_id", "")) <= limits.CALLBACK_ID:
        yield "callback_id: missing or too long"
    blocks = view.get("blocks", [])
    if len(blocks) > limits.VIEW_BLOCKS or len(json.dumps(view)) > limits.VIEW_BYTES:
        yield "blocks: too many"
    if any(block.get("type") == "input" for block in blocks) and "submit" not in view:
        yield "submit: needed where there is an input"
    yield from _blocks(blocks)


def _blocks(blocks: list[Any]) -> Iterator[str]:
    ids: set[str] = set()
    for index, block in enumerate(blocks):
        at = f"blocks/{index}"
        if block_id := block.get("block_id"):
            if block_id in ids or length(block_id) > limits.BLOCK_ID:
                yield f"{at}: block_id repeated or too long"
            ids.add(block_id)
        check = _CHECKS.get(block.get("type"))
        if check is None:
            yield f"{at}: a type that this bot does not use"
        else:
            yield from check(block, at)


def _header(block: dict[str, Any], at: str) -> Iterator[str]:
    yield from _plain(block["text"], limits.HEADER, at)


def _section(block: dict[str, Any], at: str) -> Iterator[str]:
    if "text" in block:
        yield from _text(block["text"], limits.SECTION, at)
    fields = block.get("fields", [])
    if len(fields) > limits.FIELDS or ("text" not in block and not fields):
        yield f"{at}: a section has a text or up to ten fields"
    for field in fields:
        yield from _text(field, limits.FIELD, f"{at}/fields")


def _context(block: dict[str, Any], at: str) -> Iterator[str]:
    if not 1 <= len(block["elements"]) <= limits.CONTEXT_ELEMENTS:
        yield f"{at}: between 1 and 10 elements"
    for element in block["elements"]:
        yield from _text(element, limits.SECTION, at)


def _actions(block: dict[str, Any], at: str) -> Iterator[str]:
    elements = block["elements"]
    if not 1 <= len(elements) <= limits.ACTION_ELEMENTS:
        yield f"{at}: between 1 and 25 elements"
    ids = [element.get("action_id", "") for element in elements]
    if len(set(ids)) != len(ids) or not all(1 <= length(one) <= limits.ACTION_ID for one in ids):
        yield f"{at}: action ids are needed, once each"
    for element in elements:
        yield from _button(element, at)


def _button(element: dict[str, Any], at: str) -> Iterator[str]:
    if element.get("type") != "button":
        yield f"{at}: only buttons"
        return
    yield from _plain(element["text"], limits.BUTTON_TEXT, at)
    if length(element.get("url", "")) > limits.BUTTON_URL:
        yield f"{at}: url too long"
    if length(element.get("value", "")) > limits.BUTTON_VALUE:
        yield f"{at}: value too long"
    if element.get("style", "primary") not in ("primary", "danger"):
        yield f"{at}: no such style"
    if length(element.get("accessibility_label", "")) > limits.BUTTON_LABEL:
        yield f"{at}: accessibility_label too long"
    if confirm := element.get("confirm"):
        yield from _plain(confirm["title"], limits.CONFIRM_TITLE, at)
        yield from _plain(confirm["text"], limits.CONFIRM_TEXT, at)
        yield from _plain(confirm["confirm"], limits.CONFIRM_BUTTON, at)
        yield from _plain(confirm["deny"], limits.CONFIRM_BUTTON, at)
        if confirm.get("style") not in ("primary", "danger"):
            yield f"{at}: a dialog without a style is coloured as a success"


def _rich_text(block: dict[str, Any], at: str) -> Iterator[str]:
    for element in block["elements"]:
        allowed = _RICH.get(element.get("type"))
        if allowed is None:
            yield f"{at}: a rich text that this bot does not use"
            continue
        if not element["elements"]:
            yield f"{at}: empty"
        for inner in element["elements"]:
            if inner["type"] not in allowed:
                yield f"{at}: {inner['type']} does not go here"
            elif inner["type"] == "user" and not re.match(limits.ID_PATTERN, inner["user_id"]):
                yield f"{at}: not a person's id"
            elif inner["type"] == "text" and not inner["text"]:
                yield f"{at}: empty text"


def _input(block: dict[str, Any], at: str) -> Iterator[str]:
    yield from _plain(block["label"], limits.INPUT_LABEL, at)
    if "hint" in block:
        yield from _plain(block["hint"], limits.INPUT_LABEL, at)
    element = block["element"]
    if not 1 <= element.get("max_length", 1) <= limits.INPUT_TEXT:
        yield f"{at}: max_length out of range"
    if length(element.get("initial_value", "")) > element.get("max_length", limits.INPUT_TEXT):
        yield f"{at}: initial_value too long"
    if "placeholder" in element:
        yield from _plain(element["placeholder"], limits.PLACEHOLDER, at)
    if element.get("type") in ("static_select", "external_select"):
        yield from _menu(element, at)


def _menu(element: dict[str, Any], at: str) -> Iterator[str]:
    options = element.get("options", [])
    if element["type"] == "static_select" and not 1 <= len(options) <= limits.OPTIONS:
        yield f"{at}: between 1 and 100 options"
    chosen = element.get("initial_option")
    if chosen is not None and element["type"] == "static_select" and chosen not in options:
        yield f"{at}: initial_option is none of the options"
    for option in [*options, *([chosen] if chosen else [])]:
        yield from _plain(option["text"], limits.OPTION_TEXT, at)
        if not 1 <= length(option.get("value", "")) <= limits.OPTION_VALUE:
            yield f"{at}: an option's value is missing or too long"


def _text(value: dict[str, Any], limit: int, at: str) -> Iterator[str]:
    if value.get("type") == "plain_text":
        yield from _plain(value, limit, at)
    elif value.get("type") != "mrkdwn" or not 1 <= length(value.get("text", "")) <= limit:
        yield f"{at}: text missing or too long"
    elif value.get("verbatim") is not True or _SPECIAL.search(value["text"]):
        yield f"{at}: markup that nothing here writes"


def _plain(value: dict[str, Any], limit: int, at: str) -> Iterator[str]:
    if value.get("type") != "plain_text" or not 1 <= length(value.get("text", "")) <= limit:
        yield f"{at}: plain text missing or too long"
    elif value.get("emoji") is not False:
        yield f"{at}: emoji names must stay as they are written"


_CHECKS = {
    "header": _header,
    "section": _section,
    "context": _context,
    "actions": _actions,
    "rich_text": _rich_text,
    "input": _input,
}
