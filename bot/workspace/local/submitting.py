"""What people do with modals: submit them and close them."""

from typing import Any

from .. import payloads
from ..directory import Person
from ..errors import SlackError
from ..inputs import client_errors, state_values, unknown_names
from ..views import View
from ..workspace import Workspace
from .acting import Act, Outcome
from .wire import Refused, Wish, active_person_in

BAD_ANSWER = "invalid_view_response"


def _top_modal(space: Workspace, person: Person, view_id: Any) -> View:
    top = space.views.top(person.id)
    if top is None or top.id != view_id:
        raise Refused("view_not_found")
    return top


async def submit(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Submits a modal; values go by label, block id or action id, and what is omitted stays as it was."""
    person = active_person_in(space, wish)
    view = _top_modal(space, person, wish.get("view_id"))
    if not view.body.get("submit"):
        raise Refused("view_has_no_submit", view=view.body)
    given = wish.get("values") or {}
    if not isinstance(given, dict):
        raise Refused("invalid_values", view=view.body)
    strange = unknown_names(view.body["blocks"], given)
    if strange:
        raise Refused("no_such_input", view=view.body, unknown=strange)
    values = state_values(view.body["blocks"], given)
    errors = client_errors(view.body["blocks"], values)
    if errors:
        raise Refused("invalid_values", view={**view.body, "errors": errors}, errors=errors)
    return await Act(space, person, wish).run(_submit(space, person, view, values))


async def _submit(space: Workspace, person: Person, view: View, values: dict[str, Any]) -> Outcome:
    payload = payloads.view_submission(person, view, values, space.triggers.make(person.id))
    error, answer = await space.deliveries.interaction("interactive", payload)
    if error is not None:
        return Outcome(error)
    space.note("submitted", person.id, None, str(view.body["callback_id"]))
    try:
        return _follow(space, view, answer)
    except SlackError as refusal:
        messages = refusal.messages or [refusal.name]
        return Outcome(BAD_ANSWER, response_metadata={"messages": messages})


def _follow(space: Workspace, view: View, answer: Any) -> Outcome:
    """Does what the acknowledgement asks: errors, update, push, clear, or close."""
    wanted = answer.get("response_action") if isinstance(answer, dict) else None
    if wanted is None:
        space.views.close(view)
        return Outcome()
    if wanted == "clear":
        space.views.close(view, everything=True)
        return Outcome()
    if wanted == "errors":
        errors = answer.get("errors")
        known = {block["block_id"] for block in view.body["blocks"] if block["type"] == "input"}
        if not isinstance(errors, dict) or not errors or not set(errors) <= known:
            raise SlackError("invalid_arguments", ["[ERROR] errors must name input blocks"])
        return Outcome("view_errors", errors={key: str(value) for key, value in errors.items()})
    if wanted == "update":
        space.views.update(view, answer.get("view"))
        return Outcome()
    if wanted == "push":
        space.views.push(view.user, answer.get("view"))
        return Outcome()
    raise SlackError("invalid_arguments", [f"[ERROR] unknown response_action: {wanted}"])


async def close(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Dismisses the modal on top, or with `all` the whole stack."""
    person = active_person_in(space, wish)
    view = _top_modal(space, person, wish.get("view_id"))
    everything = bool(wish.get("all")) or bool(view.body.get("clear_on_close"))
    return await Act(space, person, wish).run(_close(space, person, view, everything))


async def _close(space: Workspace, person: Person, view: View, everything: bool) -> Outcome:
    error = None
    for closed in space.views.close(view, everything=everything):
        if closed.body.get("notify_on_close"):
            payload = payloads.view_closed(person, closed, cleared=everything)
            error, _ = await space.deliveries.interaction("interactive", payload)
    return Outcome(error, waits=False)
