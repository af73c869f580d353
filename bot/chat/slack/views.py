"""The modals behind Deny…, and what is read from those and from Review's; their metadata is the button's token."""

from __future__ import annotations

from typing import Any

from bot.chat.slack import limits
from bot.chat.slack.blocks import plain_text
from bot.text import is_blank, whole
from workflows.reviews import Answer

DENY_VIEW = "request.deny"
DENY_HOLD_VIEW = "hold.deny"
REVIEW_VIEW = "hold.review"
SHAPE_VIEW = "hold.shape"
FORMS = (DENY_VIEW, DENY_HOLD_VIEW, REVIEW_VIEW)
CHOICE = "answer"
"""The block, and the action, of an answer in the form behind Review."""
_TITLES = {DENY_VIEW: "Deny the request", DENY_HOLD_VIEW: "Deny the statement"}
_BLOCK, _ACTION = "reason", "text"


def deny_view(token: str, title: str, kind: str = DENY_VIEW) -> dict[str, Any]:
    """Return the form that asks why a request, or a held statement, is denied."""
    return {
        "type": "modal",
        "callback_id": kind,
        "private_metadata": token,
        "title": plain_text(_TITLES[kind], limits.VIEW_TITLE),
        "submit": plain_text("Deny", limits.VIEW_TITLE),
        "close": plain_text("Back", limits.VIEW_TITLE),
        "blocks": [
            {"type": "section", "text": plain_text(title, limits.SECTION)},
            reason_input("The requester and the thread will read it."),
        ],
    }


def reason_input(hint: str) -> dict[str, Any]:
    """Return the input that a reason is typed into."""
    return {
        "type": "input",
        "block_id": _BLOCK,
        "label": plain_text("Reason", limits.INPUT_LABEL),
        "hint": plain_text(hint, limits.INPUT_LABEL),
        "element": {
            "type": "plain_text_input",
            "action_id": _ACTION,
            "multiline": True,
            "min_length": 1,
            "max_length": limits.INPUT_TEXT,
        },
    }


def deny_reason(view: dict[str, Any]) -> str:
    """Return the reason that was typed, empty where there is none."""
    value = view.get("state", {}).get("values", {}).get(_BLOCK, {}).get(_ACTION, {}).get("value")
    return whole(value).strip() if isinstance(value, str) else ""


def chosen(view: dict[str, Any]) -> Answer | None:
    """Return the answer that was chosen in the form behind Review."""
    option = view.get("state", {}).get("values", {}).get(CHOICE, {}).get(CHOICE, {}).get("selected_option")
    value = option.get("value") if isinstance(option, dict) else None
    return next((answer for answer in Answer if answer.value == value), None)


def form_errors(view: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with a sent form, by block; empty where nothing is."""
    if view.get("callback_id") not in FORMS:
        return {}
    if view.get("callback_id") == REVIEW_VIEW:
        if (answer := chosen(view)) is None:
            return {CHOICE: "Choose an answer."}
        if answer is Answer.APPROVE:
            return {}
    return deny_errors(view)


def deny_errors(view: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with a sent denial."""
    return {_BLOCK: "A reason is needed: the requester will read it."} if is_blank(deny_reason(view)) else {}
