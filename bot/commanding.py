"""Reads the words after `/access`, strictly: what does not fit is answered, never guessed."""

from __future__ import annotations

import html
import re

from bot.intents import Ask, Connect, ExtendNamed, Help, Intent, List, Revoke, Source, Status
from bot.text import whole
from policies.engine.durations import duration_at

_ENTITY = re.compile(r"<([@#!])?([^<>|]*)(?:\|([^<>]*))?>")
_TYPED = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "\u00a0": " ", "\u202f": " "}
)
"""What chat clients put in while people type."""
_BECAUSE = re.compile(r"\s*because\b[\s:]*(.*)", re.IGNORECASE | re.DOTALL)


def read_command(text: str, source: Source) -> Intent:
    """Return what a command asks for."""
    words, reason = _split(whole(_decoded(text)))
    if not words:
        return Ask(source, None)
    match words[0].lower(), words[1:]:
        case "list", ([] | [_]) as named:
            return List(source, *named)
        case "status", ([] | [_]) as named:
            return Status(source, *named)
        case "help", _:
            return Help(source)
        case "revoke", []:
            return Revoke(source, None, reason)
        case "revoke", [one]:
            return Revoke(source, one, reason)
        case "revoke", [resource, role]:
            return Revoke(source, resource, reason, role)
        case "revoke", _:
            return Help(source, "`revoke` takes a resource, or an id; a reason comes after the word `because`")
        case ("list" | "status") as word, _:
            return Help(source, f"`{word}` takes one resource, or nothing")
        case "connect", ([] | [_] | [_, _]) as named:
            return Connect(source, *named)
        case "connect", _:
            return Help(source, "`connect` takes a resource, or an id, or nothing")
        case "extend", rest:
            return _extend(source, rest)
        case "task", _:
            return Help(source, "there are no tasks here yet")
    return _ask(source, words, reason)


def _ask(source: Source, words: list[str], reason: str) -> Ask:
    resource, *rest = words
    role = rest.pop(0) if rest else None
    if rest and rest[0].lower() == "for":
        rest.pop(0)
    written = " ".join(rest)
    duration = duration_at(written) or (rest[0] if rest else None)
    return Ask(source, resource, role, duration, reason, written[len(duration or "") :].strip())


def _extend(source: Source, words: list[str]) -> ExtendNamed | Help:
    """Read what is to be extended and by how long; the duration comes last, and may be left out."""
    words = [word for word in words if word.lower() not in ("for", "by")]
    named = next((words[:at] for at in range(len(words)) if words[at][:1].isdigit()), words)
    rest = words[len(named) :]
    duration = " ".join(rest)
    if len(named) > 2 or (len(rest) > 1 and duration_at(duration) != duration):
        return Help(source, "`extend` takes a resource, or an id, and how much longer, like `15m`")
    name, role = [*named, None, None][:2]
    return ExtendNamed(source, name, role, duration or None)


def _split(text: str) -> tuple[list[str], str]:
    """Return the words before `because`, and all that follows it as it was written."""
    words: list[str] = []
    rest = text
    while rest := rest.lstrip():
        if words and (found := _BECAUSE.fullmatch(rest)):
            return words, found[1].strip()
        if rest.startswith(('"', "“", "”")) and (quoted := re.match(r'["“”]([^"“”]*)["“”](?=\s|$)', rest)):
            words.append(quoted[1].translate(_TYPED))
            rest = rest[quoted.end() :]
            continue
        word, *more = re.split(r"\s", rest, maxsplit=1)
        words.append(word.translate(_TYPED))
        rest = more[0] if more else ""
    return words, ""


def _decoded(text: str) -> str:
    """Undo the escapes of a command's text once; of mentions only the id is kept, which is all that can be trusted."""

    def plain(found: re.Match[str]) -> str:
        sigil, target, _label = found.groups()
        return f"{sigil}{target}" if sigil else target

    return html_decoded(_ENTITY.sub(plain, text))


def html_decoded(text: str) -> str:
    """Decode the three entities that Slack writes, once."""
    return re.sub(r"&(amp|lt|gt);", lambda found: html.unescape(found[0]), text)
