"""A held statement's text as parts of a card, or of the form behind Review, where it is shown whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from bot.cards import Code, Note, Paragraph, Part, Words, say
from bot.hold_estimate import has_locks
from bot.model import Exhibit, Hold
from bot.statement_text import FOREIGN_SHOWN, Reading, file_of, fingerprint, read
from bot.text import clip, escape, excerpt, length
from workflows.wire import HoldView

PIECE = 2_800
"""Characters of a text that stand in one block of a form."""
MOST_PIECES = 60
REDACTED_SHOWN = 2_000
REDACTED_LINES = 40


def statement_parts(view: HoldView | None, hold: Hold, waiting: bool) -> list[Part]:
    """Show a statement on its card, its middle left out where it does not fit."""
    if view is None or view.digest != hold.digest:
        return [_absent(waiting)]
    reading = read(view)
    head, *tail = reading.pieces()
    parts: list[Part] = [Code(head if head.strip() else "(an empty statement)")]
    if tail:
        left = len(reading.text) - len(head) - len(tail[0])
        parts += [Paragraph(say(Words(f"… {left:,} characters are left out here …", bold=True))), Code(tail[0])]
    if reading.parameters:
        parts += [Paragraph(say(Words("Parameters", bold=True))), Code(reading.listed())]
    parts += _remarks(view, reading, waiting)
    if not reading.fits:
        parts.append(_exhibit_note(hold, view, reading))
    return parts


def redacted_parts(view: HoldView | None, hold: Hold, waiting: bool) -> list[Part]:
    """Show a statement on its card without its values."""
    if view is None or view.digest != hold.digest:
        return [_absent(waiting)]
    shown, remark = excerpt(view.redacted, REDACTED_SHOWN, REDACTED_LINES)
    parts: list[Part] = [Code(shown if shown.strip() else "(a statement without a text)")]
    if remark:
        parts.append(Note(say(remark)))
    what = f"{len(view.parameters)} parameters are" if view.parameters else "Its values are"
    words = f"{what} left out here. Review shows all of it, to those who may answer."
    parts.append(Note(say(words, " Digest ", Words(view.digest[:12], code=True), ".")))
    return parts


def form_parts(view: HoldView) -> list[Part] | None:
    """Show a statement whole in a form; None where it is too long for one."""
    reading = read(view)
    text = list(_cut(reading.text if reading.text.strip() else "(an empty statement)"))
    listed = list(_cut("\n".join(reading.parameters))) if reading.parameters else []
    if len(text) + len(listed) > MOST_PIECES:
        return None
    parts: list[Part] = list(_numbered("The statement", text))
    parts += _numbered("Parameters", listed)
    return [*parts, *_remarks(view, reading, True)]


def _absent(waiting: bool) -> Part:
    if waiting:
        return Note(say("The broker does not show this statement, so it cannot be approved here."))
    return Note(say("The record of this access has the statement."))


def _remarks(view: HoldView, reading: Reading, waiting: bool) -> list[Part]:
    parts: list[Part] = [Paragraph(say(Words(text, bold=True))) for text in _warnings(view, reading, waiting)]
    size = f"{reading.characters:,} character{'' if reading.characters == 1 else 's'}"
    lines = f"{reading.lines:,} line{'' if reading.lines == 1 else 's'}"
    parts.append(Note(say(f"{size}, {lines}. Digest ", Words(view.digest[:12], code=True), ".")))
    return parts


def _numbered(title: str, pieces: list[str]) -> Iterator[Part]:
    for number, piece in enumerate(pieces, 1):
        part = f", part {number} of {len(pieces)}" if len(pieces) > 1 else ""
        yield Paragraph(say(Words(f"{title}{part}", bold=True)))
        yield Code(piece)


def _cut(text: str) -> Iterator[str]:
    """Cut a text into pieces that fit, at the ends of lines where that is possible; joined they are the text."""
    while len(text) > PIECE or length(text) > PIECE:
        piece = clip(text[: PIECE + 1], PIECE, "")
        at = piece.rfind("\n") + 1
        piece = piece[:at] if at > PIECE // 4 else piece
        yield piece
        text = text[len(piece) :]
    yield text


def _warnings(view: HoldView, reading: Reading, waiting: bool) -> list[str]:
    found = []
    if waiting and has_locks(view):
        found.append("In an open transaction: locks are held while this waits.")
    if reading.escapes:
        found.append(f"Look closely: {reading.escapes:,} of its characters do not show, or change how others look.")
        found.append("They are written by their numbers here, like \\u202e.")
    if reading.gaps:
        found.append("Look closely: it has wide gaps, and what stands behind them counts too.")
    if reading.foreign:
        letters = ", ".join(f"{letter} ({escape(letter)})" for letter in reading.foreign[:FOREIGN_SHOWN])
        more = " and more" if len(reading.foreign) > FOREIGN_SHOWN else ""
        found.append(f"It holds letters that are not Latin and may look like it: {letters}{more}.")
    return found


def _exhibit_note(hold: Hold, view: HoldView, reading: Reading) -> Part:
    digest = fingerprint(file_of(hold.id, view, reading))
    match hold.exhibit:
        case Exhibit.FILE:
            text = f"Shown in part. All of it is in the file {file_name(hold)} in this thread, SHA-256 {digest}."
        case Exhibit.IMPOSSIBLE:
            text = "Shown in part, and Slack takes no file: what cannot be shown whole cannot be approved."
        case _:
            text = "Shown in part. All of it comes as a file in this thread; it can be approved once that is there."
    return Paragraph(say(Words(text, bold=True)))


def file_name(hold: Hold) -> str:
    """Name the file that holds all of a statement."""
    return f"statement-{hold.id}.txt"
