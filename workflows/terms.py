"""Terms: which role for how many seconds, what is no wider than what, and what reviewers who differ have agreed on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.engine.model import Policy


@dataclass(frozen=True, slots=True)
class Terms:
    """A role on a resource that is known from elsewhere, for a time."""

    role: str
    seconds: int


def no_wider(policy: Policy, resource: str, terms: Terms, than: Terms) -> bool:
    """Say whether terms give nothing that others do not: the same or a lower role, for no longer."""
    return terms.seconds <= than.seconds and (
        terms.role == than.role or terms.role in roles_below(policy, resource, than.role)
    )


def roles_below(policy: Policy, resource: str, role: str) -> tuple[str, ...]:
    """Return the roles that are lower than one, in the policy's order."""
    found = policy.resources.get(resource)
    below = found.below(role) if found else frozenset()
    return tuple(name for name in found.roles if name in below) if found else ()


def narrowest(policy: Policy, resource: str, asked: Terms, approved: Iterable[Terms]) -> Terms | None:
    """Return what all of these have agreed on: the lowest role for the shortest time.

    None where two of them are for roles neither of which is lower than the other: nothing is agreed on then.
    """
    agreed = asked
    for terms in approved:
        seconds = min(agreed.seconds, terms.seconds)
        if terms.role == agreed.role or agreed.role in roles_below(policy, resource, terms.role):
            agreed = Terms(agreed.role, seconds)
        elif terms.role in roles_below(policy, resource, agreed.role):
            agreed = Terms(terms.role, seconds)
        else:
            return None
    return agreed
