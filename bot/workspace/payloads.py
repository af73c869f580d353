"""The payloads of Slack's own shape: slash commands, interactions, events."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from .directory import APP_ID, BOT_USER_ID, TEAM_DOMAIN, TEAM_ID, Channel, Directory, Person
from .ids import make_id
from .messages import Message, Messages
from .views import View

VERIFICATION = "local-verification-token"


def command(person: Person, channel: Channel, name: str, text: str, trigger: str, response_url: str) -> dict[str, Any]:
    """Builds a slash command."""
    return {
        "token": VERIFICATION,
        "team_id": person.team_id,
        "team_domain": TEAM_DOMAIN,
        "channel_id": channel.id,
        "channel_name": "directmessage" if channel.person else channel.name,
        "user_id": person.id,
        "user_name": person.handle,
        "command": name,
        "text": text,
        "api_app_id": APP_ID,
        "is_enterprise_install": "false",
        "response_url": response_url,
        "trigger_id": trigger,
    }


def _interaction(kind: str, person: Person, trigger: str | None) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "type": kind,
        "user": {"id": person.id, "username": person.handle, "name": person.handle, "team_id": person.team_id},
        "api_app_id": APP_ID,
        "token": VERIFICATION,
        "team": {"id": TEAM_ID, "domain": TEAM_DOMAIN},
        "enterprise": None,
        "is_enterprise_install": False,
    }
    if trigger is not None:
        payload["trigger_id"] = trigger
    return payload


def _channel(channel: Channel) -> dict[str, str]:
    return {"id": channel.id, "name": "directmessage" if channel.person else channel.name}


def message_action(
    person: Person,
    channel: Channel,
    message: Message,
    messages: Messages,
    action: dict[str, Any],
    values: Mapping[str, Any],
    trigger: str,
    response_url: str,
) -> dict[str, Any]:
    """Builds a click in a message; an ephemeral message is not carried along."""
    payload = _interaction("block_actions", person, trigger)
    payload["container"] = {
        "type": "message",
        "message_ts": message.ts,
        "channel_id": channel.id,
        "is_ephemeral": message.reader is not None,
    }
    if message.thread_ts:
        payload["container"]["thread_ts"] = message.thread_ts
    payload["channel"] = _channel(channel)
    if message.reader is None:
        payload["message"] = messages.as_api(message)
    payload["state"] = {"values": dict(values)}
    payload["response_url"] = response_url
    payload["actions"] = [action]
    return payload


def view_action(
    person: Person, view: View, action: dict[str, Any], values: Mapping[str, Any], trigger: str
) -> dict[str, Any]:
    """Builds a click in a modal or a home tab."""
    payload = _interaction("block_actions", person, trigger)
    payload["container"] = {"type": "view", "view_id": view.id}
    payload["view"] = {**view.body, "state": {"values": dict(values)}}
    payload["actions"] = [action]
    return payload


def view_submission(person: Person, view: View, values: Mapping[str, Any], trigger: str) -> dict[str, Any]:
    """Builds the submission of a modal."""
    payload = _interaction("view_submission", person, trigger)
    payload["view"] = {**view.body, "state": {"values": dict(values)}}
    payload["response_urls"] = []
    return payload


def view_closed(person: Person, view: View, *, cleared: bool) -> dict[str, Any]:
    """Builds the notice that a modal was dismissed."""
    payload = _interaction("view_closed", person, None)
    payload["view"] = view.body
    payload["is_cleared"] = cleared
    return payload


def suggestion(person: Person, container: dict[str, Any], action_id: str, block_id: str, value: str) -> dict[str, Any]:
    """Builds the question for the options of an external select."""
    payload = _interaction("block_suggestion", person, None)
    return {**payload, **container, "action_id": action_id, "block_id": block_id, "value": value}


def shortcut(person: Person, callback_id: str, trigger: str) -> dict[str, Any]:
    """Builds a global shortcut."""
    payload = _interaction("shortcut", person, trigger)
    return {**payload, "callback_id": callback_id, "action_ts": action_ts()}


def message_shortcut(
    person: Person,
    channel: Channel,
    message: Message,
    messages: Messages,
    callback_id: str,
    trigger: str,
    response_url: str,
) -> dict[str, Any]:
    """Builds a shortcut used on a message."""
    payload = _interaction("message_action", person, trigger)
    return {
        **payload,
        "callback_id": callback_id,
        "action_ts": action_ts(),
        "message_ts": message.ts,
        "channel": _channel(channel),
        "message": messages.as_api(message),
        "response_url": response_url,
    }


def event(body: dict[str, Any], channel: Channel | None = None) -> dict[str, Any]:
    """Builds the wrapper of an Events API event."""
    return {
        "token": VERIFICATION,
        "team_id": TEAM_ID,
        "context_team_id": TEAM_ID,
        "context_enterprise_id": None,
        "api_app_id": APP_ID,
        "event": body,
        "type": "event_callback",
        "event_id": make_id("Ev"),
        "event_time": int(time.time()),
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": TEAM_ID,
                "user_id": BOT_USER_ID,
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        "is_ext_shared_channel": bool(channel and channel.shared),
        "event_context": f"4-{secrets.token_urlsafe(24)}",
    }


def action_ts() -> str:
    """Gives the moment of a click, as precise as Slack's."""
    return f"{time.time():.6f}"


def user_object(person: Person, *, email: bool = True) -> dict[str, Any]:
    """Builds a user as `users.info` gives it; a deactivated user lacks the keys about rights."""
    profile: dict[str, Any] = {
        "title": person.title,
        "real_name": person.name,
        "real_name_normalized": person.name,
        "display_name": person.handle,
        "display_name_normalized": person.handle,
        "team": person.team_id,
    }
    if email and not person.stranger:
        profile["email"] = f"{person.handle}@example.test"
    body: dict[str, Any] = {
        "id": person.id,
        "team_id": person.team_id,
        "name": person.handle,
        "deleted": person.deleted,
        "profile": profile,
        "is_bot": False,
        "is_app_user": False,
        "updated": 1_700_000_000,
    }
    if person.deleted:
        return body
    body |= {
        "color": "4bbe2e",
        "real_name": person.name,
        "tz": "Etc/UTC",
        "tz_label": "Coordinated Universal Time",
        "tz_offset": 0,
        "is_admin": False,
        "is_owner": False,
        "is_primary_owner": False,
        "is_restricted": person.restricted,
        "is_ultra_restricted": False,
        "is_email_confirmed": True,
        "who_can_share_contact_card": "EVERYONE",
    }
    if person.stranger:
        body["is_stranger"] = True
    return body


def bot_object(directory: Directory, name: str) -> dict[str, Any]:
    """Builds the app's own user."""
    return {
        "id": BOT_USER_ID,
        "team_id": TEAM_ID,
        "name": directory.bot_handle,
        "deleted": False,
        "real_name": name,
        "profile": {"real_name": name, "display_name": name, "api_app_id": APP_ID, "team": TEAM_ID},
        "is_bot": True,
        "is_admin": False,
        "is_owner": False,
        "is_primary_owner": False,
        "is_restricted": False,
        "is_ultra_restricted": False,
        "is_app_user": False,
        "updated": 1_700_000_000,
    }
