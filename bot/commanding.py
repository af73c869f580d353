"""Reads the words after `/access`, strictly: what does not fit is answered, never guessed."""

from __future__ import annotations

import html
import re

from bot.intents import Ask, Help, Intent, List, Revoke, Source, Status
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
        case "list", []:
            return List(source)
        case "status", []:
            return Status(source)
        case "help", _:
            return Help(source)
        case "revoke", []:
            return Revoke(source, None, reason)
        case "revoke", [one]:
            return Revoke(source, one, reason)
        case "revoke", _:
            return Help(source, "`revoke` takes one id; a reason comes after the word `because`")
        case ("list" | "status") as word, _:
            return Help(source, f"`{word}` does not take that many words")
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
