"""What people put into inputs: initial values, values given by label or id, and the rules a client enforces."""

from collections.abc import Iterator, Mapping
from typing import Any

from .checks import interactive_elements, length, options_of

_CHOICE = {"static_select": "options", "external_select": "options", "radio_buttons": "options"}
_CHOICES = {"multi_static_select": "options", "checkboxes": "options"}
_SIMPLE = {
    "plain_text_input": ("value", "initial_value"),
    "email_text_input": ("value", "initial_value"),
    "url_text_input": ("value", "initial_value"),
    "number_input": ("value", "initial_value"),
    "users_select": ("selected_user", "initial_user"),
    "channels_select": ("selected_channel", "initial_channel"),
    "conversations_select": ("selected_conversation", "initial_conversation"),
    "datepicker": ("selected_date", "initial_date"),
    "timepicker": ("selected_time", "initial_time"),
    "datetimepicker": ("selected_date_time", "initial_date_time"),
    "multi_users_select": ("selected_users", "initial_users"),
}
REQUIRED = "This is a required field"


def fields(blocks: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Gives every block and element that holds a value."""
    for block in blocks:
        for _, element in interactive_elements(block):
            if element.get("type") not in ("button", "overflow"):
                yield block, element


def state_values(blocks: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Builds `state.values`: what was given by label, block id or action id, else the initial value.

    Where two inputs share an action id, `{block_id: {action_id: value}}` tells them apart.
    """
    values: dict[str, dict[str, Any]] = {}
    for block, element in fields(blocks):
        found = [given[name] for name in _names(block, element) if name in given]
        inner = [value for value in found if isinstance(value, dict)]
        if inner:
            found = [inner[0][element["action_id"]]] if element["action_id"] in inner[0] else []
        state = entered(element, found[0]) if found else initial(element)
        values.setdefault(block["block_id"], {})[element["action_id"]] = state
    return values


def unknown_names(blocks: list[dict[str, Any]], given: Mapping[str, Any]) -> list[str]:
    """Gives the names that match no input."""
    known = {name for block, element in fields(blocks) for name in _names(block, element)}
    return [name for name in given if name not in known]


def _names(block: Mapping[str, Any], element: Mapping[str, Any]) -> Iterator[str]:
    yield str(block.get("block_id"))
    yield str(element.get("action_id"))
    label = block.get("label")
    if isinstance(label, dict):
        yield str(label.get("text"))


def _pick(element: Mapping[str, Any], value: Any) -> dict[str, Any]:
    option: dict[str, Any]
    for option in options_of(element):
        if value in (option["value"], option["text"]["text"]):
            return option
    return {"text": {"type": "plain_text", "text": str(value), "emoji": True}, "value": str(value)}


def initial(element: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the state of an element nobody has touched."""
    kind = str(element["type"])
    if kind in _CHOICE:
        return {"type": kind, "selected_option": element.get("initial_option")}
    if kind in _CHOICES:
        return {"type": kind, "selected_options": element.get("initial_options") or []}
    name, start = _SIMPLE[kind]
    return {"type": kind, name: element.get(start, [] if kind.startswith("multi") else None)}


def entered(element: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """Gives the state of an element into which a value was put."""
    kind = str(element["type"])
    if kind in _CHOICE:
        return {"type": kind, "selected_option": None if value in (None, "") else _pick(element, value)}
    if kind in _CHOICES:
        chosen = value if isinstance(value, list) else [] if value in (None, "") else [value]
        return {"type": kind, "selected_options": [_pick(element, item) for item in chosen]}
    name, _ = _SIMPLE[kind]
    if kind.startswith("multi"):
        return {"type": kind, name: value if isinstance(value, list) else [value]}
    if kind == "datetimepicker":
        return {"type": kind, name: value}
    return {"type": kind, name: None if value in (None, "") else str(value)}


def client_errors(blocks: list[dict[str, Any]], values: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Gives what a client refuses to submit, by block id."""
    errors: dict[str, str] = {}
    for block, element in fields(blocks):
        if block["type"] != "input":
            continue
        state = values[block["block_id"]][element["action_id"]]
        held = next((value for key, value in state.items() if key != "type"), None)
        if not block.get("optional") and (held in (None, "", []) or (isinstance(held, str) and not held.strip())):
            errors[block["block_id"]] = REQUIRED
        elif isinstance(held, str):
            problem = _text_error(element, held)
            if problem:
                errors[block["block_id"]] = problem
    return errors


def _text_error(element: Mapping[str, Any], text: str) -> str | None:
    kind = element["type"]
    least, most = element.get("min_length", 0), element.get("max_length", 3000)
    if kind == "plain_text_input" and length(text) < least:
        return f"Please enter at least {least} characters"
    if kind == "plain_text_input" and length(text) > most:
        return f"Please enter no more than {most} characters"
    if kind == "email_text_input" and ("@" not in text or " " in text):
        return "Please enter a valid email address"
    if kind == "url_text_input" and not text.startswith(("http://", "https://")):
        return "Please enter a valid URL"
    return _number_error(element, text) if kind == "number_input" else None


def _number_error(element: Mapping[str, Any], text: str) -> str | None:
    try:
        number = float(text) if element.get("is_decimal_allowed") else int(text)
        least, most = float(element.get("min_value", "-inf")), float(element.get("max_value", "inf"))
    except ValueError:
        return "Please enter a number"
    return None if least <= number <= most else f"Please enter a number from {least:g} to {most:g}"
