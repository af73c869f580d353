"""Holds a payload against the table of limits and says, in Slack's words, where it breaks them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from .limits import (
    FAMILIES,
    MARKDOWN_CHARACTERS,
    MESSAGE_BLOCKS,
    VIEW_BLOCKS,
    VIEWS,
    Flag,
    Many,
    Record,
    Rule,
    Str,
    Text,
    Typed,
    Whole,
)

DEEPEST = 12


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule, and where."""

    pointer: str
    message: str
    constraint: str
    expected: Any = None

    def line(self, prefix: str) -> str:
        """Words the problem as `response_metadata.messages` does."""
        return f"[ERROR] {self.message} [json-pointer:{prefix}{self.pointer}]"

    def entry(self) -> dict[str, Any]:
        """Words the problem as `blocks.validate` does."""
        constraint = {"type": self.constraint}
        if self.expected is not None:
            constraint["expected"] = self.expected
        return {
            "code": "failed_constraint",
            "message": self.message,
            "pointer": self.pointer,
            "constraint": constraint,
        }


def check_blocks(blocks: Any, most: int = MESSAGE_BLOCKS) -> list[Problem]:
    """Checks the blocks of a message."""
    return [
        *_check(Many(Typed("block"), most, 0), blocks, "", 0),
        *_check_markdown(blocks),
        *_check_identities(blocks, ""),
    ]


def check_view(view: Any) -> list[Problem]:
    """Checks a modal or a home tab."""
    if not isinstance(view, dict):
        return [Problem("", "must provide an object", "type", "object")]
    record = VIEWS.get(str(view.get("type")))
    if record is None:
        return [Problem("/type", f"unsupported type: {view.get('type')}", "enum", sorted(VIEWS))]
    problems = [*_check_record(record, view, "", 0, typed=True), *_check_identities(view.get("blocks"), "/blocks")]
    blocks = view.get("blocks")
    if isinstance(blocks, list):
        if len(blocks) > VIEW_BLOCKS:
            return problems
        has_input = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
        if view["type"] == "modal" and has_input and not view.get("submit"):
            problems.append(Problem("", "missing required field: submit", "required", "submit"))
    return problems


def _check(rule: Rule, value: Any, at: str, depth: int) -> Iterator[Problem]:
    if depth > DEEPEST:
        yield Problem(at, "nested too deeply", "depth", DEEPEST)
        return
    match rule:
        case Text():
            yield from _check_text(rule, value, at)
        case Str():
            yield from _check_string(rule, value, at)
        case Flag():
            if not isinstance(value, bool):
                yield Problem(at, "must provide a boolean", "type", "boolean")
        case Whole():
            yield from _check_whole(rule, value, at)
        case Many():
            yield from _check_many(rule, value, at, depth)
        case Record():
            yield from _check_record(rule, value, at, depth)
        case Typed():
            yield from _check_typed(rule, value, at, depth)
        case _:
            assert_never(rule)


def _check_text(rule: Text, value: Any, at: str) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(at, "must provide an object", "type", "object")
        return
    kind = value.get("type")
    if kind not in rule.kinds:
        yield Problem(f"{at}/type", f"unsupported type: {kind}", "enum", list(rule.kinds))
    allowed = {"type", "text", "emoji"} if kind == "plain_text" else {"type", "text", "verbatim"}
    yield from (
        Problem(at, f"invalid additional property: {key}", "additionalProperties", False)
        for key in value
        if key not in allowed
    )
    yield from (
        Problem(f"{at}/{key}", "must provide a boolean", "type", "boolean")
        for key in ("emoji", "verbatim")
        if key in value and not isinstance(value[key], bool)
    )
    if "text" not in value:
        yield Problem(at, "missing required field: text", "required", "text")
    else:
        yield from _check_string(Str(rule.most, rule.least), value["text"], f"{at}/text")


def _check_string(rule: Str, value: Any, at: str) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield Problem(at, "must provide a string", "type", "string")
    elif rule.choices and value not in rule.choices:
        yield Problem(at, f"must be one of: {', '.join(rule.choices)}", "enum", list(rule.choices))
    elif length(value) > rule.most:
        yield Problem(at, f"must be less than {rule.most + 1} characters", "maxLength", rule.most)
    elif len(value) < rule.least:
        yield Problem(at, f"must be more than {rule.least - 1} characters", "minLength", rule.least)


def _check_whole(rule: Whole, value: Any, at: str) -> Iterator[Problem]:
    if not isinstance(value, int) or isinstance(value, bool):
        yield Problem(at, "must provide an integer", "type", "integer")
    elif not rule.least <= value <= rule.most:
        yield Problem(at, f"must be between {rule.least} and {rule.most}", "range", [rule.least, rule.most])


def _check_many(rule: Many, value: Any, at: str, depth: int) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem(at, "must provide an array", "type", "array")
        return
    if len(value) > rule.most:
        yield Problem(at, f"no more than {rule.most} items allowed", "maxItems", rule.most)
    if len(value) < rule.least:
        yield Problem(at, f"no fewer than {rule.least} items allowed", "minItems", rule.least)
    for index, item in enumerate(value):
        yield from _check(rule.of, item, f"{at}/{index}", depth + 1)


def _check_record(rule: Record, value: Any, at: str, depth: int, *, typed: bool = False) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(at, "must provide an object", "type", "object")
        return
    for key in rule.needs:
        if value.get(key) is None:
            yield Problem(at, f"missing required field: {key}", "required", key)
    for key, inner in value.items():
        known = rule.needs.get(key) or rule.may.get(key)
        if known is not None:
            if inner is not None:
                yield from _check(known, inner, f"{at}/{key}", depth + 1)
        elif not (typed and key == "type"):
            yield Problem(at, f"invalid additional property: {key}", "additionalProperties", False)
    yield from _check_relations(value, at)


def _check_typed(rule: Typed, value: Any, at: str, depth: int) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem(at, "must provide an object", "type", "object")
        return
    family = FAMILIES[rule.family]
    kind = value.get("type")
    allowed = rule.only or tuple(family)
    if not isinstance(kind, str) or kind not in allowed:
        yield Problem(f"{at}/type", f"unsupported type: {kind}", "enum", list(allowed))
        return
    found = family[kind]
    if isinstance(found, Record):
        yield from _check_record(found, value, at, depth, typed=True)
    else:
        yield from _check_text(found, value, at)


def _check_relations(value: Mapping[str, Any], at: str) -> Iterator[Problem]:
    """Checks what one attribute says about another."""
    kind = value.get("type")
    if kind == "section" and not value.get("text") and not value.get("fields"):
        yield Problem(at, "missing required field: text or fields", "required", "text")
    if kind == "image" and not value.get("image_url"):
        yield Problem(at, "missing required field: image_url", "required", "image_url")
    if kind in ("static_select", "multi_static_select") and bool(value.get("options")) == bool(
        value.get("option_groups")
    ):
        yield Problem(at, "must provide exactly one of: options, option_groups", "required", "options")
    chosen = value.get("initial_option")
    if kind == "static_select" and chosen is not None and chosen not in options_of(value):
        yield Problem(f"{at}/initial_option", "must be one of the options", "enum")
    least, most = value.get("min_length"), value.get("max_length")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield Problem(f"{at}/min_length", "must be no more than max_length", "range", most)


def options_of(element: Mapping[str, Any]) -> list[Any]:
    """Gives every option an element offers, in groups or not."""
    groups = element.get("option_groups") or []
    grouped = [option for group in groups if isinstance(group, dict) for option in group.get("options") or []]
    return [*(element.get("options") or []), *grouped]


def _check_markdown(blocks: Any) -> Iterator[Problem]:
    texts = [
        block["text"]
        for block in (blocks if isinstance(blocks, list) else [])
        if isinstance(block, dict) and block.get("type") == "markdown" and isinstance(block.get("text"), str)
    ]
    if len(texts) > 1 and sum(map(length, texts)) > MARKDOWN_CHARACTERS:
        message = f"markdown blocks must be less than {MARKDOWN_CHARACTERS + 1} characters together"
        yield Problem("", message, "maxLength", MARKDOWN_CHARACTERS)


def _check_identities(blocks: Any, at: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, block in enumerate(blocks if isinstance(blocks, list) else []):
        if not isinstance(block, dict):
            continue
        block_id = block.get("block_id")
        if isinstance(block_id, str) and block_id:
            if block_id in seen:
                yield Problem(f"{at}/{index}/block_id", f"block_id already exists: {block_id}", "unique")
            seen.add(block_id)
        actions: set[str] = set()
        for pointer, element in interactive_elements(block):
            action = element.get("action_id")
            if isinstance(action, str) and action:
                if action in actions:
                    yield Problem(f"{at}/{index}{pointer}/action_id", f"action_id already exists: {action}", "unique")
                actions.add(action)


def interactive_elements(block: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives the elements of a block that people can act on, with where they stand."""
    for key in ("accessory", "element"):
        if isinstance(block.get(key), dict) and block[key].get("type") != "image":
            yield f"/{key}", block[key]
    if block.get("type") == "actions" and isinstance(block.get("elements"), list):
        for index, element in enumerate(block["elements"]):
            if isinstance(element, dict):
                yield f"/elements/{index}", element


def length(text: str) -> int:
    """Counts as Slack's clients do: in UTF-16 units."""
    return len(text) + sum(1 for character in text if ord(character) > 0xFFFF)


def characters(value: Any) -> int:
    """Counts the characters of the texts a payload shows."""
    total = 0
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(inner, str):
                    total += length(inner) if key in ("text", "url", "value", "alt_text") else 0
                else:
                    todo.append(inner)
        elif isinstance(item, list):
            todo.extend(item)
    return total
