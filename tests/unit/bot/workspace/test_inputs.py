"""Values reach the app as a client would send them."""

from typing import Any

import pytest

from bot.workspace.inputs import client_errors, state_values, unknown_names
from bot.workspace.messages import name_blocks
from tests.unit.bot.workspace.world import field_of


def with_element(element: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    label = {"type": "plain_text", "text": "What"}
    blocks = [{"type": "input", "block_id": "b", "label": label, "element": {"action_id": "a", **element}, **more}]
    name_blocks(blocks)
    return blocks


OPTIONS = [{"text": {"type": "plain_text", "text": name.title()}, "value": name} for name in ("read", "write")]


@pytest.mark.parametrize("name", ["b", "a", "What"])
def test_value_goes_by_block_id_action_id_or_label(name: str) -> None:
    blocks = with_element({"type": "plain_text_input"})
    assert state_values(blocks, {name: "x"})["b"]["a"] == {"type": "plain_text_input", "value": "x"}


@pytest.mark.parametrize(
    ("element", "given", "state"),
    [
        ({"type": "plain_text_input", "initial_value": "old"}, {}, {"value": "old"}),
        ({"type": "plain_text_input", "initial_value": "old"}, {"a": ""}, {"value": None}),
        ({"type": "plain_text_input"}, {"b": {"a": "in"}}, {"value": "in"}),
        ({"type": "static_select", "options": OPTIONS}, {"a": "read"}, {"selected_option": OPTIONS[0]}),
        ({"type": "static_select", "options": OPTIONS}, {"a": "Write"}, {"selected_option": OPTIONS[1]}),
        ({"type": "radio_buttons", "options": OPTIONS}, {}, {"selected_option": None}),
        ({"type": "checkboxes", "options": OPTIONS}, {"a": ["write"]}, {"selected_options": [OPTIONS[1]]}),
        ({"type": "checkboxes", "options": OPTIONS, "initial_options": OPTIONS}, {}, {"selected_options": OPTIONS}),
        ({"type": "users_select"}, {"a": "U1"}, {"selected_user": "U1"}),
        ({"type": "datepicker", "initial_date": "2026-01-02"}, {}, {"selected_date": "2026-01-02"}),
    ],
)
def test_state_has_the_shape_of_the_element(element: dict[str, Any], given: dict[str, Any], state: Any) -> None:
    assert state_values(with_element(element), given)["b"]["a"] == {"type": element["type"], **state}


@pytest.mark.parametrize(
    ("element", "value", "refused"),
    [
        ({"type": "plain_text_input"}, "", True),
        ({"type": "plain_text_input"}, "   ", True),
        ({"type": "plain_text_input", "max_length": 3}, "four", True),
        ({"type": "plain_text_input", "min_length": 5}, "four", True),
        ({"type": "plain_text_input"}, "x" * 3001, True),
        ({"type": "plain_text_input"}, "x" * 3000, False),
        ({"type": "number_input", "is_decimal_allowed": False}, "1.5", True),
        ({"type": "number_input", "is_decimal_allowed": False, "max_value": "10"}, "11", True),
        ({"type": "number_input", "is_decimal_allowed": True}, "1.5", False),
        ({"type": "email_text_input"}, "nobody", True),
        ({"type": "checkboxes", "options": OPTIONS}, [], True),
    ],
)
def test_client_refuses_what_slack_clients_refuse(element: dict[str, Any], value: Any, refused: bool) -> None:
    blocks = with_element(element)
    assert bool(client_errors(blocks, state_values(blocks, {"a": value}))) is refused


def test_optional_input_may_stay_empty() -> None:
    blocks = with_element({"type": "plain_text_input"}, optional=True)
    assert client_errors(blocks, state_values(blocks, {})) == {}


def test_name_that_matches_no_input_is_reported() -> None:
    assert unknown_names([field_of("Reason", "reason")], {"Reason": "x", "Raeson": "x"}) == ["Raeson"]
