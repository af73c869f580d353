"""Payloads as Slack writes them, with invented people."""

from __future__ import annotations

from typing import Any


def command(text: str = "prod-db read 30m", **more: Any) -> dict[str, Any]:
    body = {
        "token": "x",
        "team_id": "T0",
        "channel_id": "C0ACCESS01",
        "user_id": "U0ALICE001",
        "command": "/access",
        "text": text,
        "response_url": "https://hooks.slack.com/commands/1",
        "trigger_id": "1.2.3",
    }
    return {**body, **more}


def click(action: str, value: Any = "t0", **more: Any) -> dict[str, Any]:
    body = {
        "type": "block_actions",
        "team": {"id": "T0"},
        "user": {"id": "U0BOB00001", "team_id": "T0"},
        "trigger_id": "4.5.6",
        "channel": {"id": "C0ACCESS01"},
        "container": {"type": "message", "message_ts": "9.1", "channel_id": "C0ACCESS01"},
        "message": {"ts": "9.1", "thread_ts": "9.1"},
        "response_url": "https://hooks.slack.com/actions/1",
        "actions": [{"type": "button", "action_id": action, "block_id": "b", "value": value, "action_ts": "10.1"}],
    }
    return {**body, **more}


def submission(reason: str | None, callback: str = "request.deny") -> dict[str, Any]:
    values = {"reason": {"text": {"type": "plain_text_input", "value": reason}}}
    return {
        "type": "view_submission",
        "team": {"id": "T0"},
        "user": {"id": "U0BOB00001", "team_id": "T0"},
        "trigger_id": "7.8.9",
        "view": {
            "id": "V1",
            "type": "modal",
            "callback_id": callback,
            "private_metadata": "t0",
            "state": {"values": values},
        },
    }


def form(callback: str, metadata: str = "t0", **values: Any) -> dict[str, Any]:
    """A form of ours, sent: values by action id."""
    state = {f"b{n}": {action: state_of(value)} for n, (action, value) in enumerate(values.items())}
    body = submission(None, callback)
    blocks = [{"type": "input", "block_id": block} for block in state]
    return {
        **body,
        "view": {**body["view"], "private_metadata": metadata, "blocks": blocks, "state": {"values": state}},
    }


def state_of(value: Any) -> dict[str, Any]:
    chosen = {"type": "static_select", "selected_option": {"value": value}}
    return chosen if isinstance(value, str) else {"type": "plain_text_input", "value": None}


def event(inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "event_callback", "team_id": "T0", "event_id": "Ev1", "event": inner}
