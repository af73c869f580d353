"""Cards: what a message says, apart from any chat platform. A platform's renderer makes them its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from bot.text import clip, length


@dataclass(frozen=True, slots=True)
class Words:
    """Text, shown as it is whatever it holds."""

    text: str
    bold: bool = False
    code: bool = False
    kind: Literal["words"] = "words"


@dataclass(frozen=True, slots=True)
class Mention:
    """A person of the platform, who is notified."""

    account: str
    kind: Literal["mention"] = "mention"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, in the reader's own zone."""

    at: datetime
    kind: Literal["moment"] = "moment"


@dataclass(frozen=True, slots=True)
class MessageLink:
    """A link to a message that is edited in place, looked up when this is sent."""

    message: str
    text: str
    kind: Literal["link"] = "link"


Span = Annotated[Words | Mention | Moment | MessageLink, Field(discriminator="kind")]
Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    kind: Literal["heading"] = "heading"


@dataclass(frozen=True, slots=True)
class Fact:
    label: str
    value: Spans


@dataclass(frozen=True, slots=True)
class Facts:
    """Up to ten facts, two to a row."""

    facts: tuple[Fact, ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, slots=True)
class Paragraph:
    spans: Spans
    kind: Literal["paragraph"] = "paragraph"


@dataclass(frozen=True, slots=True)
class Quote:
    """People's text, literal, set apart."""

    text: str
    kind: Literal["quote"] = "quote"


@dataclass(frozen=True, slots=True)
class Code:
    """A line to copy, or a statement; literal, in one pitch."""

    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True, slots=True)
class Note:
    """Small print."""

    spans: Spans
    kind: Literal["note"] = "note"


@dataclass(frozen=True, slots=True)
class Confirm:
    """What is asked before a click counts; nothing but an approval is coloured as a success."""

    title: str
    text: str
    yes: str
    no: str
    style: Literal["primary", "danger"] = "danger"


@dataclass(frozen=True, slots=True)
class Button:
    action: str
    text: str
    value: str
    style: Literal["", "primary", "danger"] = ""
    confirm: Confirm | None = None
    label: str = ""
    """What a screen reader says, where the text alone is not enough."""
    message: str = ""
    """The message it leads to, where it does nothing else."""


@dataclass(frozen=True, slots=True)
class Buttons:
    buttons: tuple[Button, ...]
    kind: Literal["buttons"] = "buttons"


Part = Annotated[Heading | Facts | Paragraph | Quote | Code | Note | Buttons, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Card:
    """A message: `text` is a full sentence that says the same to notifications and screen readers."""

    text: str
    parts: tuple[Part, ...] = ()


APPROVE = "request.approve"
CHANGES = "request.changes"
AGAIN = "request.again"
ASK = "access.ask"
EXTEND = "grant.extend"
"""Followed by a dot and seconds: ids of buttons that stand side by side differ."""
DENY = "request.deny"
CANCEL = "request.cancel"
APPROVE_HOLD = "hold.approve"
DENY_HOLD = "hold.deny"
REVIEW_HOLD = "hold.review"
SHAPE_HOLD = "hold.shape"
WITHDRAW = "shape.withdraw"
NEW_LINE = "ticket.new"
END = "grant.end"
GO = "go"
"""Leads somewhere, and does nothing."""


def say(*spans: Span | str) -> Spans:
    """Return spans, plain strings becoming words."""
    return tuple(Words(span) if isinstance(span, str) else span for span in spans)


def moments(text: str, *times: datetime | None, bold: bool = False) -> Spans:
    """Return a sentence of ours as spans: each of these times, as `clock` writes it there, in the reader's zone."""
    spans: list[Span] = [Words(text, bold=bold)]
    for at in filter(None, times):
        found: list[Span] = []
        for span in spans:
            if not isinstance(span, Words):
                found.append(span)
                continue
            # With its date or without one, and never the beginning of the same time on another day.
            for index, piece in enumerate(re.split(rf"{clock(at)}(?:{_on(at)})?(?! on \d+ [A-Z])", span.text)):
                found += [Moment(at)] if index else []
                found += [Words(piece, bold=bold)] if piece else []
        spans = found
    return tuple(spans)


def prose(text: str) -> Spans:
    """Return a sentence of ours as spans; what stands between backticks is shown as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return say(text)
    return tuple(Words(piece, code=bool(index % 2)) for index, piece in enumerate(pieces) if piece)


def plain(text: str, *parts: Part) -> Card:
    """Return a card of one paragraph, and more parts after it."""
    return Card(text, (Paragraph(prose(text)), *parts))


def packed(values: Sequence[str], limit: int = 1_800) -> str:
    """Write texts as the value of a button, the last one cut to what a value may hold."""
    *short, last = values
    while length(text := json.dumps([*short, last], ensure_ascii=False)) > limit:
        last = clip(last, length(last) // 2)
    return text


def unpacked(value: str, count: int) -> tuple[str, ...] | None:
    """Read such a value back; None for anything else."""
    try:
        values = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or len(values) != count or not all(isinstance(one, str) for one in values):
        return None
    return tuple(values)


def clock(at: datetime, since: datetime | None = None) -> str:
    """Write a time for the fallback text, which knows no zones; with its date where that is not the one of `since`."""
    return f"{at:%H:%M} UTC{_on(at) if since and since.date() != at.date() else ''}"


def _on(at: datetime) -> str:
    return f" on {at.day} {at:%B}"
