"""Slack's limits hold at the boundary, and nothing makes the check itself fail."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.workspace.checks import check_blocks, check_view
from bot.workspace.limits import (
    BLOCKS,
    ELEMENTS,
    FAMILIES,
    RICH,
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
from tests.unit.bot.workspace.world import button, field_of, modal, section


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def option(value: str = "v", text: str = "t") -> dict[str, Any]:
    return {"text": plain(text), "value": value}


def actions(*elements: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "actions", "elements": list(elements)}]


def confirming(**change: dict[str, Any]) -> list[dict[str, Any]]:
    words = {"title": plain("t"), "text": plain("t"), "confirm": plain("c"), "deny": plain("d")}
    return actions(button("a", confirm=words | change))


def selecting(*options: dict[str, Any]) -> list[dict[str, Any]]:
    return actions({"type": "static_select", "action_id": "a", "options": list(options)})


MESSAGES: dict[str, tuple[Any, int]] = {
    "blocks": (lambda n: [{"type": "divider"}] * n, 50),
    "section text": (lambda n: [section("x" * n)], 3000),
    "fields": (lambda n: [{"type": "section", "fields": [plain("x")] * n}], 10),
    "field text": (lambda n: [{"type": "section", "fields": [plain("x" * n)]}], 2000),
    "header": (lambda n: [{"type": "header", "text": plain("x" * n)}], 150),
    "context elements": (lambda n: [{"type": "context", "elements": [plain("x")] * n}], 10),
    "actions elements": (lambda n: actions(*(button(f"a{i}") for i in range(n))), 25),
    "markdown": (lambda n: [{"type": "markdown", "text": "x" * n}], 12000),
    "button text": (lambda n: actions({"type": "button", "action_id": "a", "text": plain("x" * n)}), 75),
    "button value": (lambda n: actions(button("a", "x" * n)), 2000),
    "button url": (lambda n: actions(button("a", url="x" * n)), 3000),
    "button label": (lambda n: actions(button("a", accessibility_label="x" * n)), 75),
    "action_id": (lambda n: actions(button("x" * n) | {"text": plain("b")}), 255),
    "block_id": (lambda n: [section("x") | {"block_id": "x" * n}], 255),
    "confirm title": (lambda n: confirming(title=plain("x" * n)), 100),
    "confirm text": (lambda n: confirming(text=plain("x" * n)), 300),
    "confirm yes": (lambda n: confirming(confirm=plain("x" * n)), 30),
    "confirm no": (lambda n: confirming(deny=plain("x" * n)), 30),
    "option text": (lambda n: selecting(option(text="x" * n)), 75),
    "option value": (lambda n: selecting(option("x" * n)), 150),
    "options": (lambda n: selecting(*(option(str(i)) for i in range(n))), 100),
    "overflow": (lambda n: actions({"type": "overflow", "action_id": "a", "options": [option()] * n}), 5),
    "radio": (lambda n: actions({"type": "radio_buttons", "action_id": "a", "options": [option()] * n}), 10),
    "checkboxes": (lambda n: actions({"type": "checkboxes", "action_id": "a", "options": [option()] * n}), 10),
}

MODALS: dict[str, tuple[Any, int]] = {
    "blocks": (lambda n: modal(*[{"type": "divider"}] * n), 100),
    "title": (lambda n: modal(title=plain("x" * n)), 24),
    "submit": (lambda n: modal(submit=plain("x" * n)), 24),
    "close": (lambda n: modal(close=plain("x" * n)), 24),
    "private_metadata": (lambda n: modal(private_metadata="x" * n), 3000),
    "callback_id": (lambda n: modal(callback_id="x" * n), 255),
    "label": (lambda n: modal(field_of("x" * n, "a")), 2000),
    "hint": (lambda n: modal(field_of("l", "a") | {"hint": plain("x" * n)}), 2000),
    "initial value": (lambda n: modal(field_of("l", "a", initial_value="x" * n)), 3000),
    "max_length": (lambda n: modal(field_of("l", "a", max_length=n)), 3000),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message_is_accepted_at_the_limit_and_refused_above(name: str) -> None:
    make, most = MESSAGES[name]
    assert check_blocks(make(most)) == []
    assert check_blocks(make(most + 1)) != []


@pytest.mark.parametrize("name", MODALS)
def test_modal_is_accepted_at_the_limit_and_refused_above(name: str) -> None:
    make, most = MODALS[name]
    assert check_view(make(most)) == []
    assert check_view(make(most + 1)) != []


@pytest.mark.parametrize(
    ("blocks", "pointer", "words"),
    [
        ([{"type": "nonsense"}], "/0/type", "unsupported type: nonsense"),
        ([section("x") | {"colour": "red"}], "/0", "invalid additional property: colour"),
        ([{"type": "section"}], "/0", "missing required field: text or fields"),
        ([section("")], "/0/text/text", "must be more than 0 characters"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "/0/text/type", "unsupported type: mrkdwn"),
        (actions(button("a"), button("a")), "/0/elements/1/action_id", "action_id already exists: a"),
        (
            [section("x") | {"block_id": "b"}, section("y") | {"block_id": "b"}],
            "/1/block_id",
            "block_id already exists: b",
        ),
        (actions(button("a", style="green")), "/0/elements/0/style", "must be one of: primary, danger"),
        (selecting(), "/0/elements/0/options", "no fewer than 1 items allowed"),
        ([{"type": "section", "text": "x"}], "/0/text", "must provide an object"),
        ([{"type": "actions", "elements": [{"type": "plain_text_input", "action_id": "a"}]}], "/0/elements/0/type", ""),
        (["text"], "/0", "must provide an object"),
    ],
)
def test_problem_says_what_and_where(blocks: Any, pointer: str, words: str) -> None:
    found = {(problem.pointer, problem.message) for problem in check_blocks(blocks)}
    assert any(at == pointer and words in message for at, message in found), found


def test_same_action_id_in_two_blocks_is_fine() -> None:
    assert check_blocks([*actions(button("a")), *actions(button("a"))]) == []


def test_modal_with_an_input_needs_a_submit_button() -> None:
    view = modal(field_of("Reason", "reason"))
    assert check_view(view) == []
    del view["submit"]
    assert [problem.message for problem in check_view(view)] == ["missing required field: submit"]


def test_emoji_count_as_two_characters() -> None:
    assert check_blocks([{"type": "header", "text": plain("🚀" * 75)}]) == []
    assert check_blocks([{"type": "header", "text": plain("🚀" * 76)}]) != []


def test_deep_nesting_is_refused_not_followed() -> None:
    block: Any = section("x")
    for _ in range(5000):
        block = {"type": "section", "accessory": block}
    assert check_blocks([block]) != []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "text", "elements", "element", "accessory", "options", "block_id", "fields", "x"]),
            inner | st.sampled_from([*BLOCKS, *ELEMENTS, *RICH, "plain_text", "modal", "home"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(ANYTHING)
@settings(max_examples=150, deadline=None)
def test_any_json_gets_an_answer(payload: Any) -> None:
    check_blocks(payload)
    check_view(payload)


def valid(rule: Rule, depth: int = 0) -> st.SearchStrategy[Any]:
    """Gives payloads that the table allows."""
    match rule:
        case Text():
            words = st.text(st.characters(codec="ascii"), min_size=max(rule.least, 1), max_size=min(rule.most, 20))
            return st.fixed_dictionaries({"type": st.sampled_from(rule.kinds), "text": words})
        case Str():
            if rule.choices:
                return st.sampled_from(rule.choices)
            return st.text(st.characters(codec="ascii"), min_size=max(rule.least, 1), max_size=min(rule.most, 5))
        case Flag():
            return st.booleans()
        case Whole():
            return st.integers(rule.least, rule.most)
        case Many():
            return st.lists(valid(rule.of, depth + 1), min_size=max(rule.least, 1), max_size=min(rule.most, 2))
        case Record():
            return valid_record(rule, depth)
        case Typed():
            names = list(rule.only or FAMILIES[rule.family])
            return st.sampled_from(names).flatmap(lambda name: valid_typed(rule.family, name, depth))


def valid_record(rule: Record, depth: int, **fixed: str) -> st.SearchStrategy[Any]:
    needs = {key: valid(inner, depth + 1) for key, inner in rule.needs.items()}
    may = {key: valid(inner, depth + 1) for key, inner in rule.may.items() if depth < 4}
    return st.fixed_dictionaries({**{key: st.just(value) for key, value in fixed.items()}, **needs}, optional=may)


def valid_typed(family: str, name: str, depth: int) -> st.SearchStrategy[Any]:
    rule = FAMILIES[family][name]
    return valid_record(rule, depth, type=name) if isinstance(rule, Record) else valid(rule, depth)


RELATIONS = ("text or fields", "image_url", "option_groups", "already exists", "max_length", "one of the options")


@given(valid(Many(Typed("block"), 2)))
@settings(max_examples=60, deadline=None)
def test_what_the_table_allows_breaks_only_rules_between_attributes(blocks: Any) -> None:
    strange = [p for p in check_blocks(blocks) if not any(words in p.message for words in RELATIONS)]
    assert strange == []


@given(valid(Many(Typed("block"), 2)), st.data())
@settings(max_examples=60, deadline=None)
def test_unknown_attribute_anywhere_is_refused(blocks: Any, data: st.DataObject) -> None:
    objects = [item for item in walk(blocks) if isinstance(item, dict)]
    data.draw(st.sampled_from(objects))["not_in_slack"] = 1
    assert any("not_in_slack" in problem.message for problem in check_blocks(blocks))


def walk(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(item for part in inner for item in walk(part))]


def test_every_view_type_is_described() -> None:
    assert set(VIEWS) == {"modal", "home"}


def test_initial_option_must_be_one_of_the_options() -> None:
    def menu(chosen: str) -> list[dict[str, Any]]:
        element = {"type": "static_select", "options": [option("a")], "initial_option": option(chosen)}
        return [{"type": "actions", "elements": [element]}]

    assert check_blocks(menu("a")) == []
    [problem] = check_blocks(menu("b"))
    assert problem.pointer == "/0/elements/0/initial_option"
