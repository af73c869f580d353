"""The forms to ask with and to approve less with: what they offer, and what is read from them.

Block ids name what a choice depends on, so that Slack forgets a choice when what it depended on has changed, and
keeps everything else that was typed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.chat.slack import limits
from bot.chat.slack.blocks import plain_text
from bot.drafts import DURATION, REASON, RESOURCE, ROLE, Draft, durations_to, limit_of, roles_of
from bot.narrowing import Scene
from bot.request_words import name_of, requirement_words, wish_words
from bot.text import REASON_SHOWN, clip, whole
from policies.engine.decide import Terms as Offered
from policies.engine.decide import may_ask
from policies.engine.decisions import Ask
from policies.engine.durations import DurationUnreadable, format_duration, parse_duration
from policies.engine.model import Policy

ASK_VIEW, CHANGES_VIEW = "access.ask", "request.changes"
PICK_RESOURCE, PICK_ROLE, PICK_DURATION = "form.resource", "form.role", "form.duration"
TYPE_DURATION, TYPE_REASON = "form.other", "form.reason"
PICKS = (PICK_RESOURCE, PICK_ROLE)
"""Choices on which the rest of a form depends."""
_OTHER = "other"
USUAL = "30m"
"""The duration that a form starts with, where the policy gives as much."""
EXAMPLES = ("1m", "5m", "10m", "20m", "45m", "1h30m", "3h")
"""Durations to type, of which those are shown that the policy gives."""
Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody opened a form; `reply_url` answers there also where the app is no member, for half an hour."""

    channel: str = ""
    reply_url: str = ""


def ask_form(policy: Policy, person: str, draft: Draft, place: Place) -> dict[str, Any]:
    """Return the form to ask with, for one person; `place` is where they asked, for the answer."""
    offered = may_ask(policy, person)
    resources = list(dict.fromkeys(term.resource for term in offered))
    resource = draft.resource or (resources[0] if len(resources) == 1 else "")
    roles = roles_of(offered, resource)
    role = draft.role or (roles[0] if len(roles) == 1 else "")
    blocks = [_input(RESOURCE, "What", _resources(resources, resource), dispatches=True)]
    if roles:
        blocks.append(_input(f"{ROLE}.{resource}", "As", _select(PICK_ROLE, roles, role), dispatches=True))
        blocks += _durations(format_duration(limit_of(offered, resource, role)), draft.duration)
    if role:
        blocks.append(_context(_who_answers(policy, person, offered, resource, role)))
    blocks.append(_reason(draft.reason))
    return _view(ASK_VIEW, "Ask for access", "Ask", blocks, _packed(place))


def changes_form(scene: Scene) -> dict[str, Any]:
    """Return the form to approve less with."""
    request = scene.request
    who = name_of(scene.policy, request.requester)
    asked = f"{who} asks for {wish_words(request)}"
    blocks = [{"type": "section", "text": plain_text(f"{asked}. {scene.narrowed_by()}".strip(), limits.SECTION)}]
    roles = scene.roles()
    blocks.append(_input(ROLE, "As", _select(PICK_ROLE, roles, roles[0])))
    longest = format_duration(timedelta(minutes=max(scene.ceiling.seconds // 60, 1)))
    blocks += _durations(longest, longest)
    return _view(CHANGES_VIEW, "Approve with changes", "Approve", blocks, request.token)


def draft_in(view: dict[str, Any]) -> Draft:
    """Return what a form holds; what was typed as a duration counts before what was chosen."""
    duration = _entered(view, TYPE_DURATION) or _entered(view, PICK_DURATION)
    reason = _entered(view, TYPE_REASON)
    return Draft(_entered(view, PICK_RESOURCE), _entered(view, PICK_ROLE), duration, reason)


def place_in(view: dict[str, Any]) -> Place:
    """Return where somebody was when they opened the form."""
    try:
        found = json.loads(str(view.get("private_metadata") or "{}"))
    except ValueError:
        return Place()
    channel, reply = (found.get("channel"), found.get("reply")) if isinstance(found, dict) else (None, None)
    return Place(channel[:30] if isinstance(channel, str) else "", reply[:500] if isinstance(reply, str) else "")


def _packed(place: Place) -> str:
    return json.dumps({"channel": place.channel[:30], "reply": place.reply_url[:500]})


def errors_in(view: dict[str, Any], problems: dict[str, str]) -> dict[str, str]:
    """Return problems by the blocks that a form has now; one whose block is not there is shown on the first."""
    inputs = [str(block.get("block_id")) for block in _dicts(view.get("blocks")) if block.get("type") == "input"]
    fallback = inputs[0] if inputs else RESOURCE
    typed = bool(_entered(view, TYPE_DURATION))
    found: dict[str, str] = {}
    for field, text in problems.items():
        name = _OTHER if field == DURATION and typed else field
        block = next((one for one in inputs if one == name or one.startswith(f"{name}.")), fallback)
        found[block] = clip(text, 2_000)
    return found


def resource_options(policy: Policy, person: str, typed: str) -> list[Block]:
    """Return the options of a menu that is too long to be sent whole, for what was typed into it."""
    names = dict.fromkeys(term.resource for term in may_ask(policy, person))
    fitting = [name for name in names if typed.lower() in name]
    return [_option(name) for name in fitting[: limits.OPTIONS]]


def _who_answers(policy: Policy, person: str, offered: list[Offered], resource: str, role: str) -> str:
    term = next((term for term in offered if (term.resource, term.role) == (resource, role)), None)
    if term is None:
        return "This role is not offered."
    level = policy.resources[resource].roles[role].description
    who = "at once"
    if isinstance(term.decision, Ask):
        who = f"after review by {requirement_words(policy, term.decision.requirement.needs, person)}"
    return f"{f'{level}; ' if level else ''}at most {format_duration(term.max_duration)}, {who}"


def _view(kind: str, title: str, submit: str, blocks: list[Block], metadata: str) -> dict[str, Any]:
    return {
        "type": "modal",
        "callback_id": kind,
        "private_metadata": metadata,
        "title": plain_text(title, limits.VIEW_TITLE),
        "submit": plain_text(submit, limits.VIEW_TITLE),
        "close": plain_text("Back", limits.VIEW_TITLE),
        "blocks": blocks,
    }


def _input(
    block: str, label: str, element: Block, *, optional: bool = False, dispatches: bool = False, hint: str = ""
) -> Block:
    made: Block = {
        "type": "input",
        "block_id": block,
        "label": plain_text(label, limits.INPUT_LABEL),
        "element": element,
        "optional": optional,
    }
    if dispatches:
        made["dispatch_action"] = True
    return {**made, "hint": plain_text(hint, limits.INPUT_LABEL)} if hint else made


def _resources(names: list[str], chosen: str) -> Block:
    if len(names) <= limits.OPTIONS:
        return _select(PICK_RESOURCE, names, chosen)
    made = {"type": "external_select", "action_id": PICK_RESOURCE, "min_query_length": 0}
    return {**made, "initial_option": _option(chosen)} if chosen else made


def _select(action: str, names: list[str], chosen: str) -> Block:
    # Slack refuses a menu without options, and more than a hundred.
    made: Block = {
        "type": "static_select",
        "action_id": action,
        "options": [_option(n) for n in names][: limits.OPTIONS],
    }
    return {**made, "initial_option": _option(chosen)} if chosen in names[: limits.OPTIONS] else made


def _option(name: str) -> Block:
    return {"text": plain_text(name, limits.OPTION_TEXT), "value": name}


def _durations(longest: str, chosen: str) -> list[Block]:
    choices = durations_to(parse_duration(longest))
    typed = _written(chosen) not in choices and bool(chosen)
    text: Block = {"type": "plain_text_input", "action_id": TYPE_DURATION, "max_length": 20}
    if typed:
        text["initial_value"] = clip(chosen, 20, "")
    limit = parse_duration(longest)
    fitting = [one for one in EXAMPLES if parse_duration(one) < limit]
    text["placeholder"] = plain_text(", ".join(fitting[-2:]) or longest, limits.PLACEHOLDER)
    # One of them is chosen from the start, so that the menu need not be called optional beside the field below it.
    usual = USUAL if USUAL in choices else longest
    pick = _select(PICK_DURATION, choices, usual if typed or not chosen else _written(chosen))
    return [
        _input(f"{DURATION}.{longest}", "For how long", pick, hint="One of these, or another time below."),
        _input(_OTHER, "Or another time", text, optional=True, hint=f"At most {longest}. What is typed here counts."),
    ]


def _written(text: str) -> str:
    """Return a duration as the choices write it."""
    try:
        return format_duration(parse_duration(text))
    except DurationUnreadable:
        return text


def _reason(text: str) -> Block:
    element: Block = {
        "type": "plain_text_input",
        "action_id": TYPE_REASON,
        "multiline": True,
        "max_length": REASON_SHOWN,
    }
    if text:
        element["initial_value"] = clip(whole(text), REASON_SHOWN)
    return _input(REASON, "Why", element, optional=True, hint="Reviewers and the record will read it.")


def _context(text: str) -> Block:
    return {"type": "context", "elements": [plain_text(text, limits.SECTION)]}


def _entered(view: dict[str, Any], action: str) -> str:
    """Return what was chosen or typed, in whichever block it stands."""
    state = view.get("state")
    values = state.get("values") if isinstance(state, dict) else None
    for block in _dicts(list(values.values()) if isinstance(values, dict) else None):
        found = block.get(action)
        if isinstance(found, dict):
            option = found.get("selected_option")
            value = option.get("value") if isinstance(option, dict) else found.get("value")
            return whole(value).strip() if isinstance(value, str) else ""
    return ""


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
