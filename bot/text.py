"""People's text made safe to show: what is invisible or reorders lines becomes a visible escape."""

from __future__ import annotations

import unicodedata

REASON_SHOWN = 1000
LINES_SHOWN = 15

_ZWJ = "\u200d"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters by name that show as nothing."""
_VARY = frozenset("\u034f\u17b4\u17b5") | {chr(number) for number in range(0xFE00, 0xFE10)}
"""Marks that show as nothing, or change only how what is before them is drawn."""


def whole(text: str) -> str:
    """Make text storable: lone surrogates become U+FFFD, NUL becomes its picture."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\u2400")


def is_blank(text: str) -> bool:
    """Say whether text shows nothing at all."""
    return all(character.isspace() or _hides(character) for character in text)


def reveal(text: str, keep: str = "\n\t") -> str:
    """Show control characters, direction marks and zero-width marks as escapes like `\\u202e`."""
    shown = []
    for index, character in enumerate(text):
        if character in keep or not _hides(character) or _joins_emoji(text, index):
            shown.append(character)
        else:
            shown.append(escape(character))
    return "".join(shown)


def escape(character: str) -> str:
    """Write a character by its number."""
    return f"\\u{{{ord(character):x}}}" if ord(character) > 0xFFFF else f"\\u{ord(character):04x}"


def expose(text: str, keep: str = "\n\t") -> tuple[str, int]:
    """Show a statement's characters as they are, and return how many had to be written as escapes.

    Stricter than `reveal`: spaces that are no space, what joins or varies its neighbours, and marks that are put over
    signs (an `=` that looks like `≠`) are written by their numbers as well. Nothing is left out or joined.
    """
    shown, hidden, before = [], 0, " "
    for character in text:
        if character in keep or not (_hides(character) or _misleads(character, before)):
            shown.append(character)
        else:
            shown.append(escape(character))
            hidden += 1
        before = character
    return "".join(shown), hidden


def _misleads(character: str, before: str) -> bool:
    if character.isascii():
        return False
    kind = unicodedata.category(character)
    if kind == "Zs" or kind == "Me" or character in _VARY or 0xE0100 <= ord(character) <= 0xE01EF:
        return True
    return kind[0] == "M" and not before.isalpha()


def _hides(character: str) -> bool:
    return character in _BLANK_LETTERS or unicodedata.category(character) in _HIDDEN


def _joins_emoji(text: str, index: int) -> bool:
    """Say whether a zero-width joiner stands between two pictures, as in a family's emoji."""
    if text[index] != _ZWJ or not 0 < index < len(text) - 1:
        return False
    before = (
        text[index - 2]
        if index > 1 and text[index - 1] in "\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
        else text[index - 1]
    )
    return unicodedata.category(before) == "So" and unicodedata.category(text[index + 1]) == "So"


def length(text: str) -> int:
    """Count as chat clients do: in UTF-16 units."""
    return len(text) + sum(1 for character in text if ord(character) > 0xFFFF)


def clip(text: str, limit: int, ending: str = "…") -> str:
    """Cut text to a length in UTF-16 units, never inside a character."""
    if length(text) <= limit:
        return text
    room, kept = limit - length(ending), 0
    for index, character in enumerate(text):
        kept += 2 if ord(character) > 0xFFFF else 1
        if kept > room:
            return text[:index] + ending
    return text


def clip_head(text: str, limit: int, beginning: str = "…") -> str:
    """Keep the end of a text, as `clip` keeps its beginning."""
    if length(text) <= limit:
        return text
    return beginning + clip(text[::-1], limit - length(beginning), "")[::-1]


def excerpt(text: str, limit: int = REASON_SHOWN, lines: int = LINES_SHOWN) -> tuple[str, str]:
    """Return people's text ready to show, and a remark on what was left out (empty where nothing was)."""
    shown = reveal(text)
    rows = shown.split("\n")
    cut = clip("\n".join(rows[:lines]), limit)
    if cut == shown:
        return shown, ""
    return cut, f"shown in part: {len(text):,} characters, {len(rows):,} lines in all"


def sentence(text: str, limit: int = 300) -> str:
    """Return what a program says in lower case without a full stop as a sentence of its own."""
    said = one_line(text, limit)
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '?', '!', '…')) else '.'}"


def one_line(text: str, limit: int = 200) -> str:
    """Return people's text as one line of a sentence."""
    return clip(reveal(" ".join(text.split()), keep=""), limit)
