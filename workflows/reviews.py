"""Reviews and their tally: never the requester, one person once, a single deny ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from policies.engine.decisions import Need, Requirement
from policies.engine.model import Policy
from workflows.terms import Terms, narrowest
from workflows.words import series


class Answer(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Review:
    """One person's answer; `person` is a handle of the policy, `terms` what they approved where it is not what was
    asked for."""

    person: str
    answer: Answer
    terms: Terms | None = None


@dataclass(frozen=True, slots=True)
class Met:
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """What is still needed; `by` are the approvals that count so far."""

    needs: tuple[Need, ...]
    by: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join(str(need) for need in self.needs)


@dataclass(frozen=True, slots=True)
class Refused:
    by: str


Tally = Met | Missing | Refused


@dataclass(frozen=True, slots=True)
class Ineligible:
    """Why somebody may not review, in words for them."""

    reason: str


def may_review(policy: Policy, requirement: Requirement, requester: str, person: str | None) -> Ineligible | None:
    """Say why a person may not answer a request, or None where they may; no role is exempt."""
    if person is None or person not in policy.people or not policy.people[person].active:
        return Ineligible("you are not in the policy's list of people")
    names = [policy.people[handle].name for handle in reviewers(policy, requirement, requester)]
    others = f"{series(names, 'or') or 'nobody'} may answer"
    if person == requester:
        return Ineligible(f"nobody reviews their own request; {others}")
    groups = {group for need in requirement.needs for group in need.groups}
    if not policy.groups_of(person) & groups:
        return Ineligible(f"you are not in {' or '.join(sorted(groups))}; {others}")
    return None


def reviewers(policy: Policy, requirement: Requirement, requester: str) -> list[str]:
    """Return the handles that may answer, in the policy's order."""
    groups = [group for need in requirement.needs for group in need.groups]
    return [person for person in policy.members(groups) if person != requester]


def effective(policy: Policy, resource: str, requester: str, asked: Terms, reviews: Sequence[Review]) -> Terms | None:
    """Return what may be given by these reviews: the narrowest that anybody approved; None where they contradict.

    Who approves less counts here whatever their groups, for it only takes away; the tally says who counts for giving.
    """
    latest = {review.person: review for review in reviews}
    approved = [
        review.terms or asked
        for review in latest.values()
        if review.answer is Answer.APPROVE and review.person != requester and policy.groups_of(review.person)
    ]
    return narrowest(policy, resource, asked, approved)


def tally(policy: Policy, requirement: Requirement, requester: str, reviews: Sequence[Review]) -> Tally:
    """Count reviews against a requirement under a policy.

    Reviews of people who may not answer do not count. A person's last review is the one that counts, and one person
    fills one place only, also where they are in the groups of two needs. An empty requirement is never met. Terms are
    not looked at: what is given must be no wider than `effective` says, and then every approval covers it.
    """
    latest = {
        review.person: review.answer
        for review in reviews
        if may_review(policy, requirement, requester, review.person) is None
    }
    if denied := next((person for person, answer in latest.items() if answer is Answer.DENY), None):
        return Refused(denied)
    approvers = list(latest)
    places = [need for need in requirement.needs for _ in range(need.count)]
    filled = _matched(policy, approvers, places)
    if places and len(filled) == len(places):
        return Met(tuple(approvers))
    open_places = [need for index, need in enumerate(places) if index not in filled]
    needs = {need.groups: Need(open_places.count(need), need.groups) for need in open_places}
    return Missing(tuple(needs.values()), tuple(approvers))


def _matched(policy: Policy, approvers: list[str], places: list[Need]) -> dict[int, str]:
    """Match people to places so that most are filled (augmenting paths)."""
    filled: dict[int, str] = {}

    def place(person: str, seen: set[int]) -> bool:
        for index, need in enumerate(places):
            if index in seen or not policy.groups_of(person) & set(need.groups):
                continue
            seen.add(index)
            if index not in filled or place(filled[index], seen):
                filled[index] = person
                return True
        return False

    for person in approvers:
        place(person, set())
    return filled
