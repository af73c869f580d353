"""What a signed order is worth under the broker's own policy: every review is counted again, whatever the bot made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.adapters.policies import PolicyFiles
from broker.adapters.recorder import FileRecorder
from broker.sessions.model import Entry
from broker.sessions.services import Refusal
from policies.engine.decide import decide_access
from policies.engine.decisions import Allow, Ask, Deny, Need
from policies.engine.model import Policy
from workflows.orders import Order
from workflows.reviews import Met, Missing, Refused, effective, tally
from workflows.terms import no_wider


@dataclass(frozen=True, slots=True)
class Granted:
    """The order stands: who approved it counts, and the rules that ask for nobody else."""

    by: tuple[str, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Insufficient:
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Forbidden:
    message: str
    hint: str | None = None


Verdict = Granted | Insufficient | Forbidden


def judge(policy: Policy, order: Order, held: int = 0) -> Verdict:
    """Tally an order's reviews under a policy; `held` are the seconds that what it extends has already."""
    reviews = [review.review() for review in order.reviews]
    if (excess := _excess(policy, order)) is not None:
        return excess
    total = timedelta(seconds=held + order.seconds)
    match decide_access(policy, order.requester, order.resource, order.role, total):
        case Deny(message, _, hint):
            return Forbidden(message, hint)
        case Allow(rules):
            return Granted((), rules)
        case Ask(requirement, rules):
            match tally(policy, requirement, order.requester, reviews):
                case Met(by):
                    return Granted(by, rules)
                case Missing(needs, _):
                    return Insufficient(needs)
                case Refused(by):
                    return Forbidden(f"{by} denied this request")


def _excess(policy: Policy, order: Order) -> Forbidden | None:
    """Say why an order gives more than was asked for, or than everybody who approved it has agreed on."""
    if not no_wider(policy, order.resource, order.terms, order.asked_terms):
        return Forbidden("the order gives more than was asked for")
    reviews = [review.review() for review in order.reviews]
    agreed = effective(policy, order.resource, order.requester, order.asked_terms, reviews)
    if agreed is None:
        return Forbidden("its reviewers approved roles neither of which is lower than the other")
    if not no_wider(policy, order.resource, order.terms, agreed):
        return Forbidden(f"its reviewers approved no more than {agreed.role} for {agreed.seconds} seconds")
    return None


class Judge:
    """Judges orders under the policy as it is, read once more where the bot knows another."""

    def __init__(self, policies: PolicyFiles, recorder: FileRecorder) -> None:
        self._policies = policies
        self._recorder = recorder

    async def granted(self, order: Order, held: int = 0) -> Granted:
        """Return what an order that stands rests on; raises Refusal, with an event, where it does not."""
        verdict = judge(self._policies.current, order, held)
        if not isinstance(verdict, Granted) and order.policy_hash != self._policies.hash:
            # The bot may have read files that this process has not read yet; outcomes are compared, not hashes.
            await self._policies.reload()
            verdict = judge(self._policies.current, order, held)
        match verdict:
            case Granted():
                return verdict
            case Insufficient(needs):
                wanted = " and ".join(str(need) for need in needs)
                data = {"request": order.request, "order": order.id, "needs": wanted, "policy": self._policies.hash}
                await self._recorder.write(Entry("order.deferred", order.extends, None, data))
                raise Refusal("more_reviews", f"this still needs {wanted}", "ask for the reviews", needs)
            case Forbidden(message, hint):
                kind = "grant.refused" if order.extends is None else "extension.refused"
                data = {"request": order.request, "order": order.id, "reason": message}
                await self._recorder.write(Entry(kind, order.extends, None, data))
                raise Refusal("denied", message, hint)
