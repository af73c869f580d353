"""What a payload lets the app do once or a few times: trigger ids and response URLs."""

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .errors import SlackError
from .ids import make_trigger
from .limits import RESPONSE_URL_SECONDS, RESPONSE_URL_USES, TRIGGER_SECONDS
from .store import Store


class Triggers:
    """Trigger ids: good for three seconds, once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live: dict[str, tuple[str, float]] = {}
        self._spent: set[str] = set()

    def make(self, user: str) -> str:
        """Makes a trigger id for something a person did."""
        trigger = make_trigger()
        self._live[trigger] = (user, self._clock() + TRIGGER_SECONDS)
        return trigger

    def exchange(self, trigger: Any) -> str:
        """Spends a trigger id and gives the person it stands for."""
        if not isinstance(trigger, str) or not trigger:
            raise SlackError("invalid_arguments", ["missing required field: trigger_id"])
        if trigger in self._spent:
            raise SlackError("exchanged_trigger_id")
        if trigger not in self._live:
            raise SlackError("invalid_trigger_id")
        user, ends = self._live[trigger]
        if self._clock() > ends:
            raise SlackError("expired_trigger_id")
        self._spent.add(trigger)
        return user


@dataclass(slots=True)
class Reply:
    """Where a response URL leads: `message_ts` is the message it came from, if any."""

    user: str
    channel: str
    ends: float
    uses: int = RESPONSE_URL_USES
    message_ts: str | None = None


class ResponseUrls:
    """Response URLs: five uses, half an hour, also across a restart."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._live: dict[str, Reply] = {key: Reply(**body) for key, body in store.all("reply")}

    def make(self, user: str, channel: str, message_ts: str | None = None) -> str:
        """Makes the secret part of a response URL."""
        secret = secrets.token_urlsafe(18)
        self._live[secret] = Reply(user, channel, self._clock() + RESPONSE_URL_SECONDS, message_ts=message_ts)
        self._store.put("reply", secret, asdict(self._live[secret]), lasting=False)
        return secret

    def use(self, secret: str) -> Reply:
        """Spends one use."""
        reply = self._live.get(secret)
        if reply is None or self._clock() > reply.ends:
            raise SlackError("expired_url")
        if reply.uses <= 0:
            raise SlackError("used_url")
        reply.uses -= 1
        self._store.put("reply", secret, asdict(reply), lasting=False)
        return reply
