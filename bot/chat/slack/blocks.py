"""Renders cards as Slack messages: people's words in rich text, which Slack never parses, or defused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never

from bot.cards import (
    Button,
    Buttons,
    Card,
    Code,
    Confirm,
    Fact,
    Facts,
    Heading,
    Mention,
    MessageLink,
    Moment,
    Note,
    Paragraph,
    Part,
    Quote,
    Span,
    Words,
)
from bot.chat.slack import limits
from bot.chat.slack.mrkdwn import defused, escaped
from bot.text import clip, length, reveal

Block = dict[str, Any]
OVERHEAD = 200
"""Characters of a block that are not its text."""
FACT, FACT_LEAST, FACT_OVERHEAD = 900, 130, 80
"""Characters of a fact: at most, and where there is little room; and those of its label and its markup."""
BUTTON_ROWS, HOME_BUTTON_ROWS = 10, 40
BUTTONS = 5
"""In a row; more than anything here offers."""
_DATE = "{time} {date_short_pretty}"
"""`08:37 today`, which goes with `until`, `at` and `since` alike."""


def render(card: Card, links: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a card as `text` and `blocks`; `links` are the addresses of the messages that it points at."""
    text = escaped(card.text, limits.FALLBACK)
    text = text if text.strip() else "Airlock"
    blocks = _laid_out(card, links or {}, limits.MESSAGE_CHARACTERS, limits.MESSAGE_BLOCKS, BUTTON_ROWS)
    return {"text": text, "blocks": blocks or [{"type": "section", "text": plain_text(card.text, limits.SECTION)}]}


def home_view(card: Card, links: Mapping[str, str]) -> dict[str, Any]:
    """Return a card as the view of somebody's home."""
    blocks = _laid_out(card, links, limits.HOME_CHARACTERS, limits.VIEW_BLOCKS, HOME_BUTTON_ROWS)
    return {"type": "home", "blocks": blocks}


def _laid_out(card: Card, found: Mapping[str, str], room: int, rows: int, button_rows: int) -> list[Block]:
    """Return a card's blocks, within so many characters and rows."""
    actions = [part for part in card.parts if isinstance(part, Buttons)][:button_rows]
    made = {id(part): _actions(part, found) for part in actions}
    kept = {key: block for key, block in made.items() if block["elements"]}
    # Buttons are never left out for text, so their place is taken first.
    room -= sum(map(characters, kept.values()))
    rows -= len(kept)
    blocks: list[Block] = []
    for part in card.parts:
        if isinstance(part, Buttons):
            blocks += [kept[id(part)]] if id(part) in kept else []
            continue
        block = _block(part, found, room - OVERHEAD)
        if block is not None and (cost := characters(block)) <= room and rows:
            room -= cost
            rows -= 1
            blocks.append(block)
    return blocks


def rendered(parts: Sequence[Part]) -> list[Block]:
    """Return the blocks of parts for a view, each with all of the room that one may have."""
    made = (_block(part, {}, limits.SECTION) for part in parts if not isinstance(part, Buttons))
    return [block for block in made if block is not None]


def _actions(part: Buttons, links: Mapping[str, str]) -> Block:
    buttons = [button for button in part.buttons if not button.message or button.message in links]
    return {"type": "actions", "elements": [_button(button, links) for button in buttons[:BUTTONS]]}


def _block(
    part: Heading | Facts | Paragraph | Quote | Code | Note, links: Mapping[str, str], room: int
) -> Block | None:
    most = max(min(limits.SECTION, room), 100)
    match part:
        case Heading(text=text):
            return {"type": "header", "text": plain_text(text, limits.HEADER)}
        case Facts(facts=facts):
            return _fields(facts[: limits.FIELDS], links, room)
        case Paragraph(spans=spans):
            return _rich("rich_text_section", list(_elements(spans, links, most)))
        case Quote(text=text):
            return _rich("rich_text_quote", _literal(text, most))
        case Code(text=text):
            return _rich("rich_text_preformatted", _literal(text, most))
        case Note(spans=spans):
            shown = _spans(spans, links, 1_500)
            return {"type": "context", "elements": [_mrkdwn(shown)]} if shown.strip() else None
        case _:
            assert_never(part)


def _fields(facts: Sequence[Fact], links: Mapping[str, str], room: int) -> Block:
    """Return facts; where there is little room each is cut, for one that is left out could be what decides."""
    block: Block = {}
    for limit in (FACT, max(room // max(len(facts), 1) - FACT_OVERHEAD, FACT_LEAST)):
        shown = (f"*{defused(fact.label, 60)}*\n{_spans(fact.value, links, limit)}" for fact in facts)
        block = {"type": "section", "fields": [_mrkdwn(text) for text in shown]}
        if characters(block) <= room:
            break
    return block


def _rich(kind: str, elements: list[Block]) -> Block | None:
    return {"type": "rich_text", "elements": [{"type": kind, "elements": elements}]} if elements else None


def _literal(text: str, limit: int) -> list[Block]:
    shown = clip(reveal(text), limit)
    return [{"type": "text", "text": shown}] if shown else []


def _elements(spans: tuple[Span, ...], links: Mapping[str, str], limit: int) -> Iterator[Block]:
    room = limit
    for span in spans:
        if room <= 1:
            return
        match span:
            case Words():
                shown = clip(reveal(span.text), room)
                room -= length(shown)
                style = {name: True for name in ("bold", "code") if getattr(span, name)}
                if shown:
                    yield {"type": "text", "text": shown, **({"style": style} if style else {})}
            case Mention(account=account):
                yield {"type": "user", "user_id": account}
            case Moment(at=at):
                yield {"type": "date", "timestamp": int(at.timestamp()), "format": _DATE, "fallback": _time(at)}
            case MessageLink(message=message, text=text):
                if message in links:
                    yield {"type": "link", "url": links[message], "text": clip(reveal(text), 200)}
                else:
                    yield {"type": "text", "text": clip(reveal(text), 200)}
            case _:
                assert_never(span)


def _spans(spans: tuple[Span, ...], links: Mapping[str, str], limit: int) -> str:
    shown = []
    room = limit
    for span in spans:
        if room <= 60:
            break
        piece = _span(span, links, room)
        room -= length(piece)
        shown.append(piece)
    return "".join(shown)


def _span(span: Span, links: Mapping[str, str], room: int) -> str:
    match span:
        case Words():
            text = defused(span.text, room - 2)
            return f"*{text}*" if span.bold and text.strip() == text != "" and "\n" not in text else text
        case Mention(account=account):
            return f"<@{account}>"
        case Moment(at=at):
            return f"<!date^{int(at.timestamp())}^{_DATE}|{_time(at)}>"
        case MessageLink(message=message, text=text):
            shown = defused(text, 200).replace("|", "¦")
            return f"<{links[message]}|{shown}>" if message in links else shown
        case _:
            assert_never(span)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _button(button: Button, links: Mapping[str, str]) -> Block:
    made: Block = {
        "type": "button",
        "action_id": button.action,
        "text": plain_text(button.text, limits.BUTTON_TEXT),
        "value": button.value,
    }
    if button.message:
        made["url"] = links[button.message]
    if button.style:
        made["style"] = button.style
    if button.label:
        made["accessibility_label"] = clip(reveal(button.label, keep=""), limits.BUTTON_LABEL)
    if button.confirm:
        made["confirm"] = _confirm(button.confirm)
    return made


def _confirm(confirm: Confirm) -> Block:
    # Slack takes a dialog without a style for a primary one.
    return {
        "title": plain_text(confirm.title, limits.CONFIRM_TITLE),
        "text": plain_text(confirm.text, limits.CONFIRM_TEXT),
        "confirm": plain_text(confirm.yes, limits.CONFIRM_BUTTON),
        "deny": plain_text(confirm.no, limits.CONFIRM_BUTTON),
        "style": confirm.style,
    }


def plain_text(text: str, limit: int) -> Block:
    """Return a text object that Slack takes whatever the text: it refuses one without a visible character."""
    shown = clip(reveal(text), limit)
    return {"type": "plain_text", "text": shown if shown.strip() else "…", "emoji": False}


def _mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def characters(value: Any) -> int:
    """Count the characters that a payload shows, as Slack does against its limit on a message."""
    total = 0
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            total += sum(length(inner) for inner in item.values() if isinstance(inner, str))
            todo.extend(inner for inner in item.values() if not isinstance(inner, str))
        elif isinstance(item, list):
            todo.extend(item)
    return total
