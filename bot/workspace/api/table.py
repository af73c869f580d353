"""The table of methods and what each of them needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..directory import BOT_USER_ID, Channel, Person
from ..errors import SlackError
from ..workspace import Workspace

Args = dict[str, Any]
Handler = Callable[[Workspace, Args], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method; any one of `scopes` is enough, `bearer` names the token it takes: `bot`, `app` or `none`."""

    name: str
    run: Handler
    scopes: tuple[str, ...]
    bearer: str


METHODS: dict[str, Method] = {}


def method(name: str, *scopes: str, bearer: str = "bot") -> Callable[[Handler], Handler]:
    """Enters a function into the table."""

    def enter(run: Handler) -> Handler:
        METHODS[name] = Method(name, run, scopes, bearer)
        return run

    return enter


def need(args: Args, name: str) -> str:
    """Gives a required argument."""
    value = args.get(name)
    if not isinstance(value, str) or not value:
        raise SlackError("invalid_arguments", [f"[ERROR] missing required field: {name}"])
    return value


def flag(args: Args, name: str) -> bool:
    """Reads a truth value, however it was sent."""
    return args.get(name) in (True, 1, "true", "True", "1")


def channel_of(space: Workspace, args: Args, name: str = "channel") -> Channel:
    """Finds the channel an argument names."""
    channel = space.directory.channel(args.get(name)) if args.get(name) else None
    if channel is None:
        raise SlackError("channel_not_found")
    return channel


def joined_channel(space: Workspace, args: Args, name: str = "channel") -> Channel:
    """Finds a channel that the app is in."""
    channel = channel_of(space, args, name)
    if BOT_USER_ID not in channel.members:
        raise SlackError("not_in_channel")
    return channel


def person_of(space: Workspace, args: Args, name: str = "user") -> Person:
    """Finds a person by id; names are not accepted here."""
    person = space.directory.people.get(str(args.get(name, "")))
    if person is None:
        raise SlackError("user_not_found")
    return person


def page(items: list[Any], args: Args, default: int = 100) -> tuple[list[Any], str]:
    """Cuts one page out of a list; gives it with the next cursor."""
    try:
        limit = min(int(args.get("limit") or default), 1000)
        start = int(str(args.get("cursor") or "0").removeprefix("next:"))
    except ValueError as error:
        raise SlackError("invalid_cursor") from error
    chosen = items[start : start + max(limit, 1)]
    more = start + len(chosen) < len(items)
    return chosen, f"next:{start + len(chosen)}" if more else ""
