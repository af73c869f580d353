"""What people press: buttons and menus in messages and views, and shortcuts."""

from collections.abc import Mapping
from typing import Any

from .. import payloads
from ..checks import interactive_elements, options_of
from ..directory import Channel, Person
from ..inputs import entered, state_values
from ..messages import Message
from ..views import View
from ..workspace import Workspace
from .acting import Act, Outcome
from .wire import Refused, Wish, active_person_in, channel_in


async def click(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Presses a button or chooses in a menu; a confirm dialog counts as confirmed."""
    person = active_person_in(space, wish)
    if wish.get("view_id"):
        view = visible_view(space, person, wish["view_id"])
        action = _action(view.body["blocks"], wish)
        return await Act(space, person, wish).run(_click_view(space, person, view, action, _given(wish)))
    channel = channel_in(space, wish, person)
    message = visible_message(space, person, channel, wish.get("message_ts"))
    action = _action(message.body.get("blocks", []), wish)
    return await Act(space, person, wish).run(_click_message(space, person, channel, message, action, _given(wish)))


def visible_message(space: Workspace, person: Person, channel: Channel, ts: Any) -> Message:
    """Finds a message that this person can see."""
    message = space.messages.find(channel.id, str(ts or ""))
    if message is None or person.id not in space.messages.readers(message):
        raise Refused("message_not_found")
    return message


def visible_view(space: Workspace, person: Person, view_id: Any) -> View:
    """Finds the view that this person looks at: the top modal, or their home tab."""
    top, home = space.views.top(person.id), space.views.home(person.id)
    for view in (top, home):
        if view is not None and view.id == view_id:
            return view
    raise Refused("view_not_found")


def _given(wish: Wish) -> Mapping[str, Any]:
    values = wish.get("values") or {}
    if not isinstance(values, dict):
        raise Refused("invalid_values")
    return values


def _action(blocks: list[dict[str, Any]], wish: Wish) -> dict[str, Any]:
    """Builds the entry in `actions`; with `force`, also for a button that is not there."""
    named = [
        (block, element)
        for block in blocks
        for _, element in interactive_elements(block)
        if element.get("action_id") == wish.get("action_id")
    ]
    # An edit names blocks anew: who pressed a button that the edit has kept has pressed that one.
    here = [one for one in named if wish.get("block_id") in (None, one[0]["block_id"])]
    if here or len(named) == 1:
        block, element = (here or named)[0]
        return {
            **_pressed(element, wish),
            "action_id": element["action_id"],
            "block_id": block["block_id"],
            "type": element["type"],
            "action_ts": payloads.action_ts(),
        }
    if wish.get("force") and wish.get("action_id"):
        return {
            "action_id": str(wish["action_id"]),
            "block_id": str(wish.get("block_id") or "forged"),
            "type": "button",
            "text": {"type": "plain_text", "text": "", "emoji": True},
            "value": str(wish.get("value") or ""),
            "action_ts": payloads.action_ts(),
        }
    raise Refused("no_such_button")


def _pressed(element: dict[str, Any], wish: Wish) -> dict[str, Any]:
    if element["type"] == "button":
        pressed: dict[str, Any] = {key: element[key] for key in ("text", "value", "style", "url") if key in element}
        if "value" in wish:
            pressed["value"] = str(wish["value"])
        return pressed
    if element["type"] == "overflow":
        chosen = [option for option in options_of(element) if wish.get("value") in (option["value"], None)]
        if not chosen:
            raise Refused("no_such_option")
        return {"selected_option": chosen[0]}
    return entered(element, wish.get("value"))


async def _click_message(
    space: Workspace,
    person: Person,
    channel: Channel,
    message: Message,
    action: dict[str, Any],
    given: Mapping[str, Any],
) -> Outcome:
    secret = space.response_urls.make(person.id, channel.id, message.ts)
    payload = payloads.message_action(
        person,
        channel,
        message,
        space.messages,
        action,
        _with_choice(state_values(message.body.get("blocks", []), given), action),
        space.triggers.make(person.id),
        f"{space.settings.origin}/response/{secret}",
    )
    error, _ = await space.deliveries.interaction("interactive", payload)
    if error is None:
        space.note("clicked", person.id, channel, str(action["action_id"]))
    return Outcome(error)


async def _click_view(
    space: Workspace, person: Person, view: View, action: dict[str, Any], given: Mapping[str, Any]
) -> Outcome:
    values = _with_choice(state_values(view.body["blocks"], given), action)
    payload = payloads.view_action(person, view, action, values, space.triggers.make(person.id))
    error, _ = await space.deliveries.interaction("interactive", payload)
    if error is None:
        space.note("clicked", person.id, None, str(action["action_id"]))
    return Outcome(error)


def _with_choice(values: dict[str, dict[str, Any]], action: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Puts what was just chosen into the state, as Slack does."""
    held = values.get(action["block_id"], {})
    if action["action_id"] in held:
        chosen = {key: value for key, value in action.items() if key not in ("action_id", "block_id", "action_ts")}
        held[action["action_id"]] = chosen
    return values


async def shortcut(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Uses a global shortcut, or one on a message."""
    person = active_person_in(space, wish)
    known = next((s for s in space.manifest.shortcuts if s.callback_id == wish.get("callback_id")), None)
    if known is None:
        raise Refused("no_such_shortcut")
    trigger = space.triggers.make(person.id)
    if known.kind == "global":
        payload = payloads.shortcut(person, known.callback_id, trigger)
    else:
        channel = channel_in(space, wish, person)
        message = visible_message(space, person, channel, wish.get("message_ts"))
        url = f"{space.settings.origin}/response/{space.response_urls.make(person.id, channel.id)}"
        payload = payloads.message_shortcut(person, channel, message, space.messages, known.callback_id, trigger, url)
    return await Act(space, person, wish).run(_shortcut(space, payload))


async def _shortcut(space: Workspace, payload: dict[str, Any]) -> Outcome:
    error, _ = await space.deliveries.interaction("interactive", payload)
    return Outcome(error)


async def suggest(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Asks the app for the options of an external select."""
    person = active_person_in(space, wish)
    if wish.get("view_id"):
        view = visible_view(space, person, wish["view_id"])
        blocks = view.body["blocks"]
        container: dict[str, Any] = {"container": {"type": "view", "view_id": view.id}, "view": view.body}
    else:
        channel = channel_in(space, wish, person)
        message = visible_message(space, person, channel, wish.get("message_ts"))
        blocks = message.body.get("blocks", [])
        place = {"type": "message", "message_ts": message.ts, "channel_id": channel.id}
        container = {"container": place, "message": space.messages.as_api(message)}
    action = _action(blocks, {**wish, "value": None, "force": False})
    payload = payloads.suggestion(
        person, container, action["action_id"], action["block_id"], str(wish.get("value") or "")
    )
    error, answer = await space.deliveries.interaction("interactive", payload)
    found = answer if isinstance(answer, dict) else {}
    return {
        "ok": error is None,
        "error": error,
        "options": found.get("options", []),
        "option_groups": found.get("option_groups", []),
    }
