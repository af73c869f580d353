"""The form that approves a statement's shape, and the message in the thread that says what was approved."""

from __future__ import annotations

from collections.abc import Sequence

from bot import cards
from bot.cards import Button, Buttons, Card, Code, Confirm, Moment, Note, Paragraph, Part, Words, clock, say
from bot.hold_card import does, is_redacted
from bot.hold_estimate import rows_words
from bot.hold_reading import form_parts
from bot.model import Grant, Hold, Shape
from bot.request_words import name_of, names_of
from bot.text import clip, excerpt, expose
from policies.engine.model import Policy
from workflows.shapes import ShapeState
from workflows.wire import HoldView, ShapeView
from workflows.words import counted

SHOWN = 1_200
LINES_SHOWN = 30
LISTED = 40
_GONE = "The broker does not show this shape now."


def shape_form_parts(policy: Policy, hold: Hold, grant: Grant, view: HoldView) -> list[Part] | None:
    """Say all of what approving a shape gives; None where that does not fit, or there is none."""
    shown, offer = form_parts(view), view.shape
    if shown is None or offer is None:
        return None
    who = name_of(policy, grant.person)
    where = f"{grant.role} on {grant.resource}"
    runs = "runs" if view.waits else "may run when it is sent again"
    bound = f" Each run may touch at most {rows_words(view.most)}, or is rolled back." if view.most is not None else ""
    return [
        Paragraph(say(f"{who} asks to run this, as {where}. It {does(hold)}.")),
        *shown,
        Paragraph(say(Words("Its shape", bold=True))),
        Code(expose(offer.text)[0]),
        *_values(offer.values),
        Paragraph(
            say(
                Words("If you approve this, ", bold=True),
                f"the statement above {runs}, and {who} may run every statement of this shape under this access, as "
                f"{where}, with any other values and as often as they like, until ",
                Moment(grant.expires_at),
                f" (later, if the access is extended).{bound}",
            )
        ),
        Note(
            say(
                "Values are what is compared with a column or assigned to one; all else stays as it stands here. "
                "Nobody sees later runs before they run; all are recorded. It can be withdrawn in the thread."
            )
        ),
    ]


def _values(values: Sequence[str]) -> list[Part]:
    if not values:
        return [Paragraph(say("It has no values that may differ: this very statement may run again."))]
    rows = [clip(expose(value, keep="")[0], 200) for value in values[:LISTED]]
    left = len(values) - len(rows)
    return [Code("\n".join([*rows, f"and {left} more, of the same kinds"] if left else rows))]


def shape_card(policy: Policy, shape: Shape, grant: Grant, view: ShapeView | None) -> Card:
    """Make the message that says what was approved, and what has become of it."""
    by, who = names_of(policy, shape.people, "and") or "A reviewer", name_of(policy, grant.person)
    where = f"{grant.role} on {grant.resource}"
    if shape.state is ShapeState.WITHDRAWN:
        until = f"withdrawn by {name_of(policy, shape.withdrawn_by or '')}"
        ends: tuple[Words | Moment, ...] = (Words(until),)
    elif not grant.live:
        until = "over with the access"
        ends = (Words(until),)
    else:
        until = f"until {clock(grant.expires_at, grant.opened_at)}"
        ends = (Words("until "), Moment(grant.expires_at))
    active = shape.state is ShapeState.ACTIVE and grant.live
    said = f"{by} approved this shape for {who}, {where}"
    parts: list[Part] = [
        Paragraph((Words(said, bold=True), Words(", "), *ends, Words("."))),
        *_shown(policy, grant, view),
    ]
    if shape.most is not None:
        parts.append(Paragraph(say(f"Each run may touch at most {rows_words(shape.most)}, or is rolled back.")))
    ran = f" {counted(shape.runs, 'statement')} passed by it." if not active else ""
    rule = f"Rule {shape.id}, approved with hold {shape.hold}.{ran}"
    stays = " Statements of this shape are not reviewed while policy asks the same of them." if active else ""
    parts.append(Note(say(rule + stays)))
    if active:
        parts.append(Buttons((_withdraw_button(shape, who, grant),)))
    return Card(f"{said}, {until}.", tuple(parts))


def _shown(policy: Policy, grant: Grant, view: ShapeView | None) -> list[Part]:
    if view is None:
        return [Note(say(_GONE))]
    hidden = is_redacted(policy, grant.resource)
    shown, remark = excerpt(expose(view.redacted if hidden else view.text)[0], SHOWN, LINES_SHOWN)
    parts: list[Part] = [Code(shown if shown.strip() else "(a statement without a text)")]
    if remark:
        parts.append(Note(say(remark)))
    if hidden:
        parts.append(Note(say("All its values are left out here, also those that may not differ.")))
    else:
        parts += _values(view.values)
    return parts


def _withdraw_button(shape: Shape, who: str, grant: Grant) -> Button:
    told = f"Statements of this shape are reviewed again from now on. The access of {who} stays open."
    confirm = Confirm("Withdraw the shape?", told, "Withdraw", "Keep it")
    label = clip(f"Withdraw the shape that {who} may run on {grant.resource}", 75)
    return Button(cards.WITHDRAW, "Withdraw shape", shape.token, style="danger", confirm=confirm, label=label)


def shapes_words(policy: Policy, shapes: Sequence[Shape]) -> str:
    """Sum up what shapes were approved: `1 shape approved by Dan, 5 statements passed by it`."""
    if not shapes:
        return ""
    people = dict.fromkeys(person for shape in shapes for person in shape.people)
    by = names_of(policy, list(people), "and")
    withdrawn = sum(shape.state is ShapeState.WITHDRAWN for shape in shapes)
    runs = counted(sum(shape.runs for shape in shapes), "statement")
    gone = f" ({withdrawn} withdrawn)" if withdrawn else ""
    approved = f"{counted(len(shapes), 'shape')} approved{f' by {by}' if by else ''}{gone}"
    return f"{approved}, {runs} passed by {'it' if len(shapes) == 1 else 'them'}"
