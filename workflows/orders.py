"""Orders: the signed instruction from bot to broker, carrying the reviews (EdDSA JWT, RFC 7519 and RFC 8037).

The same key signs short-lived calls: a bearer token bound to one method and path.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from workflows.reviews import Answer, Review
from workflows.terms import Terms

ISSUER = "airlock-bot"
AUDIENCE = "airlock-broker"
ORDER_LIFE = timedelta(minutes=10)
CALL_LIFE = timedelta(seconds=60)
LEEWAY = timedelta(seconds=5)
MAX_TOKEN_BYTES = 64 * 1024

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{4,64}$")]
Handle = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class OrderInvalid(Exception):
    """the order is not one that this broker obeys"""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Evidence(_Wire):
    """The chat payload's ids behind a request or a review."""

    platform: str
    team: str
    user: str
    channel: str = ""
    message: str = ""
    action: str = ""
    """Slack's action_ts, or the trigger id of a command or modal."""


Seconds = Annotated[int, Field(ge=60, le=30 * 86400)]


class OrderedTerms(_Wire):
    role: str
    seconds: Seconds

    def terms(self) -> Terms:
        return Terms(self.role, self.seconds)


class OrderedReview(_Wire):
    person: Handle
    answer: Answer
    at: AwareDatetime
    reason: Text = ""
    terms: OrderedTerms | None = None
    """What was approved, where it is less than what was asked for."""
    shape: Digest | None = None
    """Of a held statement: the shape that was approved with it."""
    evidence: Evidence

    def review(self) -> Review:
        return Review(self.person, self.answer, self.terms.terms() if self.terms else None)


class Order(_Wire):
    """Open a grant, or move the end of one: who asked for what and why, and everybody who answered.

    `role` and `seconds` are what is to be given; `asked` is what was asked for, where that was more. An extension names
    its grant, and `seconds` come on top of what that has.
    """

    id: Id
    kind: Literal["grant", "extension"] = "grant"
    extends: Id | None = None
    request: Id
    requester: Handle
    requester_evidence: Evidence
    resource: str
    role: str
    seconds: Seconds
    asked: OrderedTerms | None = None
    reason: Text = ""
    asked_at: AwareDatetime
    reviews: list[OrderedReview] = Field(max_length=50)
    policy_hash: str

    @model_validator(mode="after")
    def _extension_names_its_grant(self) -> Self:
        if (self.kind == "extension") != (self.extends is not None):
            raise ValueError("`extends` goes with an extension, and only with it")
        return self

    @property
    def terms(self) -> Terms:
        return Terms(self.role, self.seconds)

    @property
    def asked_terms(self) -> Terms:
        return self.asked.terms() if self.asked else self.terms


class HoldAnswer(_Wire):
    """Answer a hold: every review of exactly this digest; the broker tallies them again.

    A review that names a shape approves that too; those that do are tallied apart, since it is more than one run.
    """

    id: Id
    kind: Literal["hold"] = "hold"
    hold: Id
    digest: Digest
    reviews: list[OrderedReview] = Field(min_length=1, max_length=50)
    policy_hash: str

    def of_shape(self, shape: str) -> list[OrderedReview]:
        """Return the reviews that count for a shape: approvals of it, and denials; of each person the last alone."""
        last = {one.person: one for one in self.reviews}
        return [one for one in last.values() if one.answer is Answer.DENY or one.shape == shape]


D = TypeVar("D", Order, HoldAnswer)


def sign_hold_answer(answer: HoldAnswer, key: Ed25519PrivateKey, now: datetime) -> str:
    """Sign an answer to a hold; it is good for ten minutes."""
    return _sign({"hold_answer": answer.model_dump(mode="json"), "jti": answer.id}, key, now, ORDER_LIFE)


def verify_hold_answer(token: str, key: Ed25519PublicKey, now: datetime) -> HoldAnswer:
    """Return the answer inside a token; raises OrderInvalid like verify_order."""
    return _document(HoldAnswer, "hold_answer", "the answer", _verify(token, key, now))


def sign_order(order: Order, key: Ed25519PrivateKey, now: datetime) -> str:
    """Sign an order; it is good for ten minutes."""
    return _sign({"order": order.model_dump(mode="json"), "jti": order.id}, key, now, ORDER_LIFE)


def verify_order(token: str, key: Ed25519PublicKey, now: datetime) -> Order:
    """Return the order inside a token; raises OrderInvalid for anything but a fresh, well-formed, well-signed one."""
    return _document(Order, "order", "the order", _verify(token, key, now))


def sign_call(method: str, path: str, key: Ed25519PrivateKey, now: datetime, actor: str = "") -> str:
    """Sign one call of the API: the token is good for a minute, for this method and path (without the query)."""
    return _sign({"call": f"{method} {path}", "actor": actor}, key, now, CALL_LIFE)


def verify_call(token: str, method: str, path: str, key: Ed25519PublicKey, now: datetime) -> str:
    """Return the actor of a signed call; raises OrderInvalid."""
    claims = _verify(token, key, now)
    if claims.get("call") != f"{method} {path}":
        raise OrderInvalid("the token is for another call")
    return str(claims.get("actor", ""))


def _sign(claims: dict[str, Any], key: Ed25519PrivateKey, now: datetime, life: timedelta) -> str:
    stamped = {
        **claims,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": int(now.timestamp()),
        "exp": int((now + life).timestamp()),
    }
    return jwt.encode(stamped, key, algorithm="EdDSA")


def _document(model: type[D], claim: str, words: str, claims: dict[str, Any]) -> D:
    try:
        found = model.model_validate(claims.get(claim))
    except ValidationError as error:
        raise OrderInvalid(f"{words} does not read: {error.errors()[0]['msg']}") from None
    if claims.get("jti") != found.id:
        raise OrderInvalid(f"{words}'s id is not the token's")
    return found


def _verify(token: str, key: Ed25519PublicKey, now: datetime) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_BYTES:
        raise OrderInvalid("the token is too long")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            audience=AUDIENCE,
            issuer=ISSUER,
            # The clock is the caller's, so that this stays pure: exp and iat are checked below.
            options={"require": ["iss", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, ValueError) as error:
        raise OrderInvalid(f"the token is not valid: {error}") from None
    issued, expires = claims["iat"], claims["exp"]
    if not isinstance(issued, int) or not isinstance(expires, int) or expires - issued > ORDER_LIFE.total_seconds():
        raise OrderInvalid("the token's times are not valid")
    if not issued - LEEWAY.total_seconds() <= now.timestamp() < expires:
        raise OrderInvalid("the token has expired, or the clocks of bot and broker differ")
    return claims
