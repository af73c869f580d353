"""Decides what an approval with less than was asked for may give, and what policy demands for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.model import Given, Request
from bot.request_words import given_words, name_of
from policies.engine.decide import decide_access
from policies.engine.decisions import Allow, Ask, Deny, Requirement
from policies.engine.durations import DurationUnreadable, format_duration, parse_duration
from policies.engine.model import Policy
from workflows.reviews import Answer, effective
from workflows.terms import Terms, roles_below

ROLE, DURATION = "role", "duration"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an approval, in which field of its form."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A request with what everybody else has answered; `held` is what the grant that it extends has already."""

    policy: Policy
    request: Request
    others: tuple[Given, ...]
    held: timedelta = timedelta()

    @property
    def ceiling(self) -> Terms:
        """The most that an approval can still give: what was asked for, or what others have narrowed it to."""
        return self.agreed(()) or self.request.asked

    def agreed(self, more: Sequence[Given]) -> Terms | None:
        """Return what all approvals agree on, or None where they contradict each other."""
        request = self.request
        reviews = [given.review() for given in (*self.others, *more)]
        return effective(self.policy, request.resource, request.requester, request.asked, reviews)

    def needed(self, terms: Terms) -> Requirement | Deny:
        """Return what is needed to give terms now; nothing where the policy gives them to the requester at once."""
        request = self.request
        seconds = self.held + timedelta(seconds=terms.seconds)
        match decide_access(self.policy, request.requester, request.resource, terms.role, seconds):
            case Deny() as denied:
                return denied
            case Ask(requirement=requirement):
                # What was asked for at first, and what the broker has added since, still counts for the same terms.
                return request.requirement.merged(requirement) if terms == request.terms else requirement
            case Allow():
                return request.requirement if terms == request.terms else Requirement(())

    def roles(self) -> list[str]:
        """Return the roles that may be approved, from what is still open downwards; of an extension, its own."""
        ceiling = self.ceiling
        if self.request.extends is not None:
            return [self.request.role]
        lower = roles_below(self.policy, self.request.resource, ceiling.role)
        shortest = Terms(ceiling.role, 60)
        fitting = [role for role in lower if not isinstance(self.needed(Terms(role, shortest.seconds)), Deny)]
        return [ceiling.role, *reversed(fitting)]

    def read(self, role: str, duration: str) -> Terms | Problem:
        """Return the terms that a reviewer filled in, or what is wrong with them."""
        ceiling = self.ceiling
        if role not in self.roles():
            return Problem(ROLE, f"Choose one of: {', '.join(self.roles())}.")
        try:
            wanted = parse_duration(duration)
        except DurationUnreadable as error:
            return Problem(DURATION, f"{str(error)[:1].upper()}{str(error)[1:]}.".replace("`", ""))
        if wanted > timedelta(seconds=ceiling.seconds):
            limit = format_duration(timedelta(seconds=ceiling.seconds))
            return Problem(DURATION, f"An approval can make it shorter, not longer: at most {limit}.")
        terms = Terms(role, int(wanted.total_seconds()))
        if isinstance(needed := self.needed(terms), Deny):
            return Problem(DURATION, f"The policy does not allow this: {needed.message}.")
        return terms

    def narrowed_by(self) -> str:
        """Say who has approved less than was asked for, and what; empty where nobody has."""
        rows = [
            f"{name_of(self.policy, given.person)} approved {given_words(self.request, given.terms)}."
            for given in self.others
            if given.terms is not None and given.answer is Answer.APPROVE
        ]
        return " ".join(rows)


def answerable(policy: Policy, request: Request) -> Requirement:
    """Return whose answer a request takes: of those who are needed now, and of those who were for what was asked."""
    decision = decide_access(
        policy, request.requester, request.resource, request.role, timedelta(seconds=request.seconds)
    )
    first = decision.requirement.needs if isinstance(decision, Ask) else ()
    return Requirement((*request.requirement.needs, *first))
