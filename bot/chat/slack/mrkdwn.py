"""Text for the few places that take mrkdwn or a bare string: escaped, defused, then cut, never inside an entity."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bot.text import length, reveal

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LOOKALIKES = {"*": "＊", "~": "～", "`": "｀"}
"""mrkdwn has no escape for its own signs, so they are shown by their full-width twins."""
_UNDERLINE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""An underscore inside a name formats nothing, and stays, so that names can be copied."""
_EMOJI = re.compile(r":(?=[a-z0-9_+'-]+(?:::[a-z0-9-]+)?:)")


def escaped(text: str, limit: int) -> str:
    """Return text as a bare string field shows it: entities escaped, hidden characters revealed, cut to a limit."""
    return _fitted((_ENTITIES.get(character, character) for character in reveal(text)), limit)


def defused(text: str, limit: int) -> str:
    """Return text that a mrkdwn object shows as it is: no formatting, no emoji names, no quotes, no mentions."""
    shown = _UNDERLINE.sub("＿", _EMOJI.sub("：", reveal(text)))
    return _fitted((_LOOKALIKES.get(character) or _ENTITIES.get(character, character) for character in shown), limit)


def _fitted(pieces: Iterable[str], limit: int) -> str:
    """Join whole pieces up to a length; what is cut ends in an ellipsis."""
    kept: list[str] = []
    size = whole_to = 0
    for piece in pieces:
        size += length(piece)
        kept.append(piece)
        if size <= limit - 1:
            whole_to = len(kept)
        if size > limit:
            return "".join(kept[:whole_to]) + "…"
    return "".join(kept)
