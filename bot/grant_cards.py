"""Cards about a grant: the counter in the thread, the ticket, and what is left of a ticket when it is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from bot import cards
from bot.cards import Button, Buttons, Card, Code, Confirm, Moment, Note, Paragraph, Words, clock, say
from bot.drafts import Draft, form_button
from bot.model import Grant
from bot.request_card import with_reason
from bot.request_words import ending_words, name_of
from bot.text import clip, one_line
from policies.engine.durations import format_duration
from policies.engine.model import Policy
from workflows.wire import TicketView
from workflows.words import counted

MASKED_SHOWN = 12


def end_words(grant: Grant) -> str:
    """Write when a grant ends, for the fallback text: with the date where it is another day's."""
    return clock(grant.expires_at, grant.opened_at)


def end_button(policy: Policy, grant: Grant) -> Button:
    """Return the button that ends a grant; its dialog tells whoever may press it whose it is and what it is for."""
    has = f"{name_of(policy, grant.person)} has it until {end_words(grant)}."
    cut = "Every session under it is cut at once, and it cannot be opened again."
    return Button(
        cards.END,
        "End now",
        grant.token,
        style="danger",
        confirm=Confirm(
            clip(f"End {grant.role} on {grant.resource}?", 100),
            with_reason(f"{has} {cut}", grant.reason),
            "End now",
            "Keep it",
        ),
        label=clip(f"End now: {grant.role} on {grant.resource}", 75),
    )


def new_line_button(grant: Grant) -> Button:
    """Return the button that asks for another ticket."""
    return Button(
        cards.NEW_LINE, "New line", grant.token, label=clip(f"New line for {grant.role} on {grant.resource}", 75)
    )


def masked_list(names: tuple[str, ...]) -> str:
    """Return masked fields by name; the rest of a long list is counted."""
    short = [one_line(name.removeprefix("public."), 80) for name in names]
    rest = f" and {len(short) - MASKED_SHOWN} more" if len(short) > MASKED_SHOWN else ""
    return ", ".join(short[:MASKED_SHOWN]) + rest


def counter_card(policy: Policy, grant: Grant, held: str = "") -> Card:
    """Make the one message that counts what happens under a grant; `held` sums up its holds."""
    who = name_of(policy, grant.person)
    numbers = [
        counted(grant.open_sessions, "open session") if grant.live else counted(grant.sessions, "session"),
        counted(grant.statements, "statement"),
        f"{grant.blocked:,} blocked",
    ]
    if grant.mistyped:
        numbers.append(f"{grant.mistyped:,} mistyped")
    if held:
        numbers.append(held)
    if grant.refused:
        numbers.append(counted(grant.refused, "refused connection"))
    numbers.append(
        f"masked: {masked_list(grant.masked)}"
        if grant.masked
        else "nothing masked yet"
        if grant.live
        else "nothing masked"
    )
    line = ", ".join(numbers)
    if not grant.live:
        text = f"{who}, {grant.role} on {grant.resource}: {line}. {ending_words(policy, grant)}"
        return Card(text, (Paragraph(say(Words(line, bold=True))), Note(say(ending_words(policy, grant)))))
    text = f"{who} has {grant.role} on {grant.resource} until {end_words(grant)}: {line}."
    return Card(
        text,
        (
            Paragraph(say(Words(line, bold=True))),
            Note(say("Open until ", Moment(grant.expires_at), ". This message is kept up to date.")),
            Buttons((end_button(policy, grant),)),
        ),
    )


def refusals_card(policy: Policy, grant: Grant) -> Card:
    """Make the one message that counts refused connections, once each has no line of its own any more."""
    who = name_of(policy, grant.person)
    begin = f"Connections with the ticket of {who} go on being refused: {grant.refused:,} so far, the last one at "
    at = grant.refused_at or grant.opened_at
    text = f"{begin}{clock(at, grant.opened_at)}: {grant.refusal}."
    spans = say(begin, Moment(at), f": {grant.refusal}.")
    if not grant.live:
        return Card(text, (Paragraph(spans),))
    note = Note(
        say("This message is kept up to date. End the access unless it is a program of theirs that tries again.")
    )
    return Card(text, (Paragraph(spans), note, Buttons((end_button(policy, grant),))))


def ticket_card(policy: Policy, grant: Grant, ticket: TicketView) -> Card:
    """Make the message that hands over a ticket; it holds a secret, so it is sent and never stored.

    The line is for whoever has a terminal; a form's fields are each in a code span, which is copied as it is.
    """
    form = (
        ("\nHost ", ticket.host),
        ("  Port ", str(ticket.port)),
        ("\nDatabase ", ticket.database),
        ("  User ", ticket.user),
        ("\nPassword ", ticket.password),
    )
    fields = [span for label, value in form for span in (Words(label), Words(value, code=True))]
    return Card(
        f"Your line for {grant.role} on {grant.resource}, open until {end_words(grant)}. It is for you alone.",
        (
            Paragraph(
                say(
                    "Paste this into a terminal for ",
                    Words(f"{grant.role} on {grant.resource}", bold=True),
                    ", open until ",
                    Moment(grant.expires_at),
                    ":",
                )
            ),
            Code(ticket.line),
            Paragraph((Words("For a graphical tool, with SSL", bold=True), *fields)),
            Note(say("It works for you alone and stops when access ends. A new line replaces one that was not used.")),
            Buttons((new_line_button(grant), end_button(policy, grant))),
        ),
    )


def spent_ticket_card(policy: Policy, grant: Grant) -> Card:
    """Make what a ticket's message becomes when it opens nothing any more."""
    what = f"{grant.role} on {grant.resource}"
    text = (
        f"This line for {what} was replaced by a newer one, below. Where it was used, it goes on working until the end."
    )
    if grant.live:
        return Card(text, (Paragraph(say(text)),))
    text = f"{what}: {ending_words(policy, grant)} The line that was here opens nothing any more."
    return Card(text, (Paragraph(say(text)), Buttons((ask_again_button(grant),))))


def ask_again_button(grant: Grant) -> Button:
    """Return the button that opens the form with what a grant was for."""
    lasted = format_duration(timedelta(seconds=max(round((grant.expires_at - grant.opened_at).total_seconds()), 60)))
    button = form_button(Draft(grant.resource, grant.role, lasted, grant.reason))
    return replace(button, text="Ask again…", label=clip(f"Ask again for {grant.role} on {grant.resource}", 75))


def holding_card(policy: Policy, grant: Grant, reviewed: bool) -> Card:
    """Say to somebody who asks again that their access is open, how to get in, and what the new request is for."""
    text = f"Your access to {grant.role} on {grant.resource} is open until {end_words(grant)}."
    more = "What you asked for just now is for more time: when it opens, it is an access of its own, with its own line."
    if reviewed:
        more += " If a new line is all that you need, cancel it on its card."
    return Card(
        text,
        (
            Paragraph(
                say(
                    "Your access to ",
                    Words(f"{grant.role} on {grant.resource}", bold=True),
                    " is open until ",
                    Moment(grant.expires_at),
                    ". Press New line for another line into it.",
                )
            ),
            Note(say(more)),
            Buttons((new_line_button(grant), end_button(policy, grant))),
        ),
    )
