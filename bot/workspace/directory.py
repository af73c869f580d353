"""The people, channels and groups of the workspace, and who belongs where."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .store import Store

TEAM_ID = "T0LOCAL001"
TEAM_DOMAIN = "local"
TEAM_NAME = "Local workspace"
PARTNER_TEAM_ID = "T0PARTNER1"
BOT_USER_ID = "U0APPBOT01"
BOT_ID = "B0APPBOT01"
APP_ID = "A0LOCALAPP"


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who can be played in the page."""

    id: str
    handle: str
    name: str
    title: str
    team_id: str = TEAM_ID
    restricted: bool = False
    stranger: bool = False
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel, or a direct message between one person and the app."""

    id: str
    name: str
    purpose: str
    members: frozenset[str]
    shared: bool = False
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A user group."""

    id: str
    handle: str
    name: str
    users: tuple[str, ...]


ALICE, BOB, DANA = "U0ALICE001", "U0BOB00001", "U0DANA0001"
ERIN, GUS, SAM = "U0ERIN0001", "U0GUEST001", "U0STRANGER1"

PEOPLE = (
    Person(ALICE, "alice", "Alice", "Engineer"),
    Person(BOB, "bob", "Bob", "Database administrator"),
    Person(DANA, "dana", "Dana", "Database administrator"),
    Person(ERIN, "erin", "Erin", "Security"),
    Person(GUS, "gus", "Gus", "Guest", restricted=True),
    Person(SAM, "sam", "Sam", "From another company, in a shared channel", team_id=PARTNER_TEAM_ID, stranger=True),
)

STAFF = frozenset({ALICE, BOB, DANA, ERIN})

CHANNELS = (
    Channel("C0ACCESS01", "access-requests", "Requests for access and what became of them", STAFF | {BOT_USER_ID}),
    Channel("C0GENERAL1", "general", "For everyone who works here", STAFF | {GUS}),
    Channel("C0INCIDNT1", "incidents", "What is on fire", STAFF | {BOT_USER_ID}),
    Channel(
        "C0PARTNER1",
        "partners",
        "Shared with another company",
        frozenset({ALICE, BOB, GUS, SAM, BOT_USER_ID}),
        shared=True,
    ),
)

GROUPS = (
    Group("S0DBAS0001", "dbas", "Database administrators", (BOB, DANA)),
    Group("S0SECURITY", "security", "Security", (ERIN,)),
)


def direct_channel_id(user: str) -> str:
    """Gives the id of the direct message between a person and the app."""
    return "D" + user[1:]


class Directory:
    """Answers who someone is and what they may see; remembers changes."""

    def __init__(self, store: Store, bot_handle: str) -> None:
        self._store = store
        self.bot_handle = bot_handle
        self.people: dict[str, Person] = {person.id: person for person in PEOPLE}
        self.channels: dict[str, Channel] = {channel.id: channel for channel in CHANNELS}
        self.groups: dict[str, Group] = {group.id: group for group in GROUPS}
        for person in PEOPLE:
            channel_id = direct_channel_id(person.id)
            members = frozenset({person.id, BOT_USER_ID})
            self.channels[channel_id] = Channel(channel_id, bot_handle, "", members, person=person.id)
        self._recall()

    def _recall(self) -> None:
        for user, change in self._store.all("person"):
            self.people[user] = replace(self.people[user], **change)
        for channel, members in self._store.all("members"):
            self.channels[channel] = replace(self.channels[channel], members=frozenset(members))
        for group, users in self._store.all("group"):
            self.groups[group] = replace(self.groups[group], users=tuple(users))

    def person(self, reference: Any) -> Person | None:
        """Finds a person by id, handle or name."""
        wanted = str(reference or "").lstrip("@")
        if wanted in self.people:
            return self.people[wanted]
        return next((p for p in self.people.values() if p.handle == wanted.lower()), None)

    def channel(self, reference: Any, viewer: str | None = None) -> Channel | None:
        """Finds a channel by id or name; `@app` is the viewer's direct message with it."""
        wanted = str(reference or "")
        if wanted in self.channels:
            return self.channels[wanted]
        if wanted.lower() == "@" + self.bot_handle and viewer is not None:
            return self.channels.get(direct_channel_id(viewer))
        name = wanted.lstrip("#").lower()
        return next((c for c in self.channels.values() if c.person is None and c.name == name), None)

    def visible(self, user: str) -> list[Channel]:
        """Gives the channels a person is in, their direct message last."""
        return [channel for channel in self.channels.values() if user in channel.members]

    def group(self, reference: Any) -> Group | None:
        """Finds a user group by id or handle."""
        wanted = str(reference or "").lstrip("@")
        return self.groups.get(wanted) or next((g for g in self.groups.values() if g.handle == wanted.lower()), None)

    def change_person(self, user: str, *, deleted: bool, restricted: bool) -> Person:
        """Deactivates or restricts someone, or takes that back."""
        person = self.people[user] = replace(self.people[user], deleted=deleted, restricted=restricted)
        self._store.put("person", user, {"deleted": person.deleted, "restricted": person.restricted})
        return person

    def change_members(self, channel: str, members: Iterable[str]) -> Channel:
        """Sets who is in a channel."""
        self.channels[channel] = replace(self.channels[channel], members=frozenset(members))
        self._store.put("members", channel, sorted(self.channels[channel].members))
        return self.channels[channel]

    def change_group(self, group: str, users: Iterable[str]) -> Group:
        """Sets who is in a user group."""
        self.groups[group] = replace(self.groups[group], users=tuple(users))
        self._store.put("group", group, list(self.groups[group].users))
        return self.groups[group]
