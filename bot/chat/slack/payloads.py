"""Payload -> inbox key and intent; Slack's payloads are read here and nowhere else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from bot import cards
from bot.chat.slack.forms import ASK_VIEW, CHANGES_VIEW, PICK_RESOURCE, PICK_ROLE, draft_in, place_in
from bot.chat.slack.views import DENY_HOLD_VIEW, DENY_VIEW, REVIEW_VIEW, SHAPE_VIEW, chosen, deny_reason
from bot.commanding import read_command
from bot.intents import (
    AccountChanged,
    Approve,
    ApproveChanged,
    ApproveHold,
    ApproveShape,
    Ask,
    AskAgain,
    Cancel,
    EndNow,
    Extend,
    Help,
    HomeOpened,
    Ignored,
    Intent,
    NewLine,
    OpenAsk,
    OpenChanges,
    OpenDeny,
    OpenDenyHold,
    OpenReview,
    OpenShape,
    Refuse,
    RefuseHold,
    ReviewHold,
    Source,
    Unknown,
    Withdraw,
)
from bot.text import one_line

MAX_TOKEN = 100
_EXTEND = re.compile(re.escape(cards.EXTEND) + r"\.([0-9]{1,7})", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEPT = ("ts", "thread_ts", "type", "user", "bot_id", "app_id", "team")
"""Of the message that a clicked button is in; its words are made from the database, never read back."""
_CLICKS: dict[str, Callable[[Source, str], Intent]] = {
    cards.APPROVE: Approve,
    cards.CHANGES: OpenChanges,
    cards.AGAIN: AskAgain,
    cards.DENY: OpenDeny,
    cards.CANCEL: Cancel,
    cards.APPROVE_HOLD: ApproveHold,
    cards.DENY_HOLD: OpenDenyHold,
    cards.REVIEW_HOLD: OpenReview,
    cards.SHAPE_HOLD: OpenShape,
    cards.WITHDRAW: Withdraw,
    cards.NEW_LINE: NewLine,
    cards.END: EndNow,
}
_FORMS: dict[str, Callable[[Source, str, str], Intent]] = {DENY_VIEW: Refuse, DENY_HOLD_VIEW: RefuseHold}


def kind_of(body: dict[str, Any]) -> str:
    """Name what sort of payload this is."""
    if "command" in body:
        return "command"
    return str(body.get("type") or "unknown")[:40]


def key_of(body: dict[str, Any], envelope: str = "") -> str:
    """Return what Slack repeats when it delivers a payload twice; the envelope's id where a payload has no id."""
    match kind_of(body):
        case "event_callback":
            parts = [body.get("event_id")]
        case "block_actions":
            parts = [_action(body).get("action_ts"), body.get("trigger_id")]
        case _:
            parts = [body.get("trigger_id")]
    named = [str(part) for part in parts if part]
    if not named and envelope:
        named = [envelope]
    if not named:
        named = [hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()]
    return f"{kind_of(body)}:{':'.join(named)}"[:180]


def kept_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return what of a payload is kept.

    Slack repeats a clicked message, or a sent form, whole, and held statements must not stay.
    """
    kept = dict(body)
    if kind_of(body) == "block_actions" and isinstance(body.get("message"), dict):
        kept["message"] = {key: value for key, value in body["message"].items() if key in _KEPT}
    view = _dict(body.get("view"))
    if view.get("type") == "home":
        kept["view"] = _named(view)
    elif view.get("callback_id") in (REVIEW_VIEW, SHAPE_VIEW):
        kept["view"] = {key: value for key, value in view.items() if key != "blocks"}
    if isinstance(_dict(body.get("event")).get("view"), dict):
        kept["event"] = {**body["event"], "view": _named(body["event"]["view"])}
    return kept


def _named(view: dict[str, Any]) -> dict[str, Any]:
    return {key: view[key] for key in ("id", "type", "hash") if key in view}


def source_of(body: dict[str, Any]) -> Source:
    """Return who sent a payload, and where."""
    if kind_of(body) == "command":
        return Source(
            "slack",
            _text(body.get("team_id")),
            _text(body.get("user_id")),
            channel=_text(body.get("channel_id")),
            action=_text(body.get("trigger_id")),
            reply_url=_text(body.get("response_url"), 500),
        )
    if kind_of(body) == "event_callback":
        return _event_source(body)
    user = _dict(body.get("user"))
    container = _dict(body.get("container"))
    message = _text(_dict(body.get("message")).get("ts") or container.get("message_ts"))
    thread = _text(_dict(body.get("message")).get("thread_ts") or container.get("thread_ts"))
    return Source(
        "slack",
        _text(user.get("team_id") or _dict(body.get("team")).get("id")),
        _text(user.get("id")),
        channel=_text(_dict(body.get("channel")).get("id") or container.get("channel_id")),
        message=message,
        thread=thread if thread != message else "",  # a thread's own parent is answered beside, not under it
        action=_text(_action(body).get("action_ts") or body.get("trigger_id")),
        reply_url=_text(body.get("response_url"), 500),
    )


def _event_source(body: dict[str, Any]) -> Source:
    event = _dict(body.get("event"))
    user = event.get("user")
    account = _text(user.get("id")) if isinstance(user, dict) else _text(user)
    return Source(
        "slack",
        _text(event.get("user_team") or event.get("team") or body.get("team_id")),
        account,
        channel=_text(event.get("channel")),
        message=_text(event.get("ts")),
        thread=_text(event.get("thread_ts")),
        action=_text(body.get("event_id")),
    )


def intent_of(body: dict[str, Any], command: str) -> Intent:
    """Return what a payload asks for; what nothing here sends is Unknown."""
    source = source_of(body)
    match kind_of(body):
        case "command" if body["command"] == command:
            return read_command(str(body.get("text") or ""), source)
        case "command":
            return Unknown(source, f"the command {one_line(str(body['command']), 40)}")
        case "block_actions":
            return _click(body, source)
        case "view_submission":
            return _submission(body, source)
        case "event_callback":
            return _event(body, source)
        case "view_closed" | "block_suggestion":
            return Ignored(source)
        case kind:
            return Unknown(source, f"a payload of the kind {one_line(kind, 40)}")


def _click(body: dict[str, Any], source: Source) -> Intent:
    action = _action(body)
    name, value = str(action.get("action_id")), action.get("value")
    if name in (PICK_RESOURCE, PICK_ROLE, cards.GO):
        return Ignored(source)  # an open form follows a choice, and a link its address: there is nothing to do
    if name == cards.ASK:
        return _open_ask(source, value)
    made = _CLICKS.get(name)
    if found := _EXTEND.fullmatch(name):
        made = partial(Extend, seconds=int(found[1]))
    if made is None:
        return Unknown(source, "this button")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TOKEN:
        return Unknown(source, "what this button carries")
    return made(source, value)


def _open_ask(source: Source, value: Any) -> Intent:
    words = cards.unpacked(value, 4) if isinstance(value, str) else None
    if words is None:
        return Unknown(source, "what this button carries")
    resource, role, duration, reason = words
    return OpenAsk(source, Ask(source, resource or None, role or None, duration or None, reason))


def _submission(body: dict[str, Any], source: Source) -> Intent:
    view = _dict(body.get("view"))
    token = view.get("private_metadata")
    if view.get("callback_id") == REVIEW_VIEW:
        return _reviewed(view, source)
    if view.get("callback_id") == SHAPE_VIEW:
        return _shaped(view, source)
    if view.get("callback_id") == ASK_VIEW:
        draft, opened = draft_in(view), place_in(view)
        place = replace(source, channel=opened.channel, reply_url=opened.reply_url)
        return Ask(place, draft.resource or None, draft.role or None, draft.duration or None, draft.reason)
    if view.get("callback_id") == CHANGES_VIEW and isinstance(token, str):
        draft = draft_in(view)
        return ApproveChanged(source, token[:MAX_TOKEN], draft.role[:100], draft.duration[:100])
    made = _FORMS.get(str(view.get("callback_id")))
    if made is None or not isinstance(token, str):
        return Unknown(source, "this form")
    return made(source, token[:MAX_TOKEN], deny_reason(view))


def _reviewed(view: dict[str, Any], source: Source) -> Intent:
    token, _, digest = str(view.get("private_metadata")).partition(":")
    answer = chosen(view)
    if answer is None or not 0 < len(token) <= MAX_TOKEN:
        return Unknown(source, "this form")
    return ReviewHold(source, token, digest[:MAX_TOKEN], answer, deny_reason(view))


def _shaped(view: dict[str, Any], source: Source) -> Intent:
    token, digest, shape = [*str(view.get("private_metadata")).split(":"), "", ""][:3]
    if not 0 < len(token) <= MAX_TOKEN or not _DIGEST.fullmatch(shape):
        return Unknown(source, "this form")
    return ApproveShape(source, token, digest[:MAX_TOKEN], shape)


def _event(body: dict[str, Any], source: Source) -> Intent:
    event = _dict(body.get("event"))
    made = _EVENTS.get(str(event.get("type")))
    return made(source, event) if made else Ignored(source)


def _opened_home(source: Source, event: dict[str, Any]) -> Intent:
    return HomeOpened(source) if event.get("tab") == "home" else Ignored(source)


def _changed(source: Source, event: dict[str, Any]) -> Intent:
    return AccountChanged(source, _dict(event.get("user")).get("deleted") is True)


_EVENTS: dict[str, Callable[[Source, dict[str, Any]], Intent]] = {
    "app_home_opened": _opened_home,
    "app_mention": lambda source, _: Help(source),
    "user_change": _changed,
}


def picked(body: dict[str, Any]) -> str:
    """Return the id of what was clicked or chosen."""
    return _text(_action(body).get("action_id"), 255)


def _action(body: dict[str, Any]) -> dict[str, Any]:
    actions = body.get("actions")
    return _dict(actions[0]) if isinstance(actions, list) and actions else {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, limit: int = 100) -> str:
    return value[:limit] if isinstance(value, str) else ""
