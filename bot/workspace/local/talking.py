"""What people type: messages and slash commands."""

import uuid
from typing import Any

from .. import payloads
from ..directory import BOT_USER_ID, TEAM_ID, Channel, Person
from ..errors import SlackError
from ..handles import Reply
from ..manifest import Command
from ..messages import Message
from ..mrkdwn import encode_command, encode_message, rich_text
from ..posting import respond
from ..workspace import Workspace
from .acting import Act, Outcome
from .wire import Refused, Wish, active_person_in, channel_in, person_in, text_in

SLACKBOT = "USLACKBOT"
LONGEST = 40_000


async def message(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Posts what a person wrote and tells the app if it listens."""
    person = active_person_in(space, wish)
    channel = channel_in(space, wish, person)
    text = text_in(wish)[:LONGEST]
    thread_ts = wish.get("thread_ts")
    if thread_ts is not None:
        parent = space.messages.find(channel.id, str(thread_ts))
        if parent is None or parent.reader is not None:
            raise Refused("thread_not_found")
    return await Act(space, person, wish).run(_write(space, person, channel, text, thread_ts))


async def _write(space: Workspace, person: Person, channel: Channel, text: str, thread_ts: str | None) -> Outcome:
    encoded = encode_message(text, space.directory)
    body = {
        "user": person.id,
        "team": person.team_id,
        "client_msg_id": str(uuid.uuid4()),
        "text": encoded,
        "blocks": [rich_text(encoded)],
    }
    posted = space.messages.post(channel.id, body, thread_ts=thread_ts)
    if BOT_USER_ID not in channel.members:
        return Outcome(waits=False)
    heard = await _tell(space, channel, posted)
    return Outcome(waits=heard)


async def _tell(space: Workspace, channel: Channel, posted: Message) -> bool:
    """Sends the events a message gives rise to; says whether the app is likely to answer."""
    base = {key: value for key, value in posted.body.items() if key != "type"}
    base |= {"channel": channel.id, "event_ts": posted.ts, "team": TEAM_ID}
    if channel.person is not None:
        error = await space.deliveries.event("message.im", {"type": "message", **base, "channel_type": "im"}, channel)
        return error is None and space.deliveries.subscribes("message.im")
    await space.deliveries.event("message.channels", {"type": "message", **base, "channel_type": "channel"}, channel)
    if f"<@{BOT_USER_ID}>" not in posted.body["text"]:
        return False
    error = await space.deliveries.event("app_mention", {"type": "app_mention", **base}, channel)
    return error is None and space.deliveries.subscribes("app_mention")


async def command(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Runs a slash command as a person typed it."""
    person = active_person_in(space, wish)
    channel = channel_in(space, wish, person)
    if wish.get("thread_ts"):
        raise Refused("commands_not_in_threads")
    typed = text_in(wish).strip()
    if not typed.startswith("/"):
        raise Refused("not_a_command")
    name, _, rest = typed.partition(" ")
    if name == "/invite":
        return await Act(space, person, wish).run(_invite(space, channel, rest.strip()))
    known = space.manifest.commands.get(name)
    if known is None:
        raise Refused("no_such_command", known=sorted(space.manifest.commands))
    return await Act(space, person, wish).run(_command(space, person, channel, known, rest.strip()))


async def _invite(space: Workspace, channel: Channel, who: str) -> Outcome:
    named = space.directory.person(who)
    user = BOT_USER_ID if who.lstrip("@").lower() == space.directory.bot_handle else named.id if named else None
    if user is None or channel.person is not None:
        return Outcome("user_not_found")
    if user in channel.members:
        return Outcome("already_in_channel")
    space.directory.change_members(channel.id, channel.members | {user})
    body = {"user": user, "text": f"<@{user}> has joined the channel", "subtype": "channel_join"}
    space.messages.post(channel.id, body)
    event = {"type": "member_joined_channel", "user": user, "channel": channel.id, "channel_type": "C"}
    await space.deliveries.event("member_joined_channel", {**event, "team": TEAM_ID}, channel)
    return Outcome(waits=False)


async def _command(space: Workspace, person: Person, channel: Channel, known: Command, text: str) -> Outcome:
    encoded = encode_command(text, space.directory) if known.should_escape else text
    secret = space.response_urls.make(person.id, channel.id)
    url = f"{space.settings.origin}/response/{secret}"
    trigger = space.triggers.make(person.id)
    payload = payloads.command(person, channel, known.name, encoded, trigger, url)
    error, answer = await space.deliveries.interaction("slash_commands", payload)
    if error is None:
        space.note("commanded", person.id, channel, f"{known.name} {text}".strip())
    if error is None and answer:
        wish = {"text": answer} if isinstance(answer, str) else answer
        try:
            respond(space, Reply(person.id, channel.id, 0), wish)
        except SlackError:
            error = "invalid_command_response"
    if error is not None:
        _slackbot(space, person, channel, f'{known.name} failed with the error "{error}"')
    return Outcome(error)


def _slackbot(space: Workspace, person: Person, channel: Channel, text: str) -> None:
    space.messages.post(channel.id, {"user": SLACKBOT, "text": text}, reader=person.id)


async def open_home(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Opens the app's home tab, or its messages tab."""
    person = active_person_in(space, wish)
    return await Act(space, person, wish).run(_open_home(space, person, str(wish.get("tab") or "home")))


async def _open_home(space: Workspace, person: Person, tab: str) -> Outcome:
    channel = space.directory.channel("@" + space.directory.bot_handle, person.id)
    home = space.views.home(person.id)
    body: dict[str, Any] = {
        "type": "app_home_opened",
        "user": person.id,
        "channel": channel.id if channel else "",
        "event_ts": payloads.action_ts(),
        "tab": tab,
    }
    if home is not None:
        body["view"] = home.body
    error = await space.deliveries.event("app_home_opened", body)
    return Outcome(error, waits=tab == "home" and space.deliveries.subscribes("app_home_opened"))


async def mark_read(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Notes how far a person has read."""
    person = person_in(space, wish)
    channel = channel_in(space, wish, person)
    space.reads.mark(person.id, channel.id, str(wish.get("ts", "")))
    return {"ok": True, "error": None}
