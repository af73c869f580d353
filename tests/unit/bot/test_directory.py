"""Who an account is: looked up, remembered for a minute, and refused where in doubt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.chat.slack.directory import SlackDirectory, objection
from bot.chat.slack.gateway import SlackRefused, SlackUncertain, judged
from bot.chat.slack.pacing import SlackBusy
from bot.ports import Member, Outsider
from tests.unit.bot.memory import NOW
from tests.unit.bot.stored import Fixed, Still

USER = {
    "id": "U0BOB00001",
    "team_id": "T0",
    "deleted": False,
    "is_bot": False,
    "is_restricted": False,
    "is_ultra_restricted": False,
}


@pytest.mark.parametrize(
    "change",
    [
        {"deleted": True},
        {"is_bot": True},
        {"is_restricted": True},
        {"is_ultra_restricted": True},
        {"is_stranger": True},
        {"is_workflow_bot": True},
        {"team_id": "T9"},
        {"id": "U9"},
        {"deleted": None},
        *({key: ...} for key in ("deleted", "is_bot", "is_restricted", "is_ultra_restricted", "team_id")),
    ],
    ids=str,
)
def test_account_that_is_not_a_whole_member_is_refused(change: dict[str, Any]) -> None:
    user = {key: value for key, value in {**USER, **change}.items() if value is not ...}
    assert objection(user, "U0BOB00001", "T0") is not None


def test_whole_member_is_not_refused() -> None:
    assert objection(USER, "U0BOB00001", "T0") is None
    assert objection(None, "U0BOB00001", "T0") is not None


class Users(AsyncWebClient):
    """Answers users.info, and counts."""

    def __init__(self) -> None:
        super().__init__(token="x")
        self.user: Any = dict(USER)
        self.calls = 0
        self.error: Exception | None = None
        self.fails = 100

    async def users_info(self, *, user: str, **_: Any) -> Any:  # type: ignore[override]
        self.calls += 1
        if self.error and self.calls <= self.fails:
            raise self.error
        return {"user": {**self.user, "id": user}}


async def test_account_is_remembered_for_a_minute_and_asked_afresh_for_decisions() -> None:
    client, clock = Users(), Still()
    directory = SlackDirectory(client, Fixed(), clock, "T0")
    assert await directory.standing("T0", "U0BOB00001", False) == Member("bob", "U0BOB00001")
    await directory.standing("T0", "U0BOB00001", False)
    assert client.calls == 1
    client.user["deleted"] = True
    assert isinstance(await directory.standing("T0", "U0BOB00001", True), Outsider)
    clock.at = NOW + timedelta(seconds=61)
    await directory.standing("T0", "U0BOB00001", False)
    assert client.calls == 3


async def test_account_that_cannot_be_looked_up_is_refused() -> None:
    client = Users()
    directory = SlackDirectory(client, Fixed(), Still(), "T0", patience=0)
    client.error = SlackApiError("x", {"error": "user_not_found"})
    assert isinstance(await directory.standing("T0", "U0BOB00001", True), Outsider)
    client.error = TimeoutError()
    assert isinstance(await directory.standing("T0", "U0BOB00001", True), Outsider)
    client.error = None
    assert isinstance(await directory.standing("T9", "U0BOB00001", True), Outsider)
    assert isinstance(await directory.standing("T0", "", True), Outsider)
    assert isinstance(await directory.standing("T0", "U0NOBODY01", True), Outsider)


class Answer:
    def __init__(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.data, self.headers = status, data, headers or {}


@pytest.mark.parametrize(
    "error",
    [
        lambda: SlackApiError("x", Answer(429, {"error": "ratelimited"}, {"Retry-After": "0"})),
        lambda: SlackApiError("x", Answer(500, {"error": "internal_error"})),
        TimeoutError,
    ],
    ids=["busy", "broken", "gone"],
)
async def test_slack_that_is_away_for_a_moment_is_asked_again(error: Any) -> None:
    client = Users()
    client.error, client.fails = error(), 2
    directory = SlackDirectory(client, Fixed(), Still(), "T0")
    assert await directory.standing("T0", "U0BOB00001", True) == Member("bob", "U0BOB00001")
    assert client.calls == 3


async def test_account_that_slack_does_not_know_is_not_asked_for_again() -> None:
    client = Users()
    client.error = SlackApiError("x", Answer(200, {"error": "user_not_found"}))
    assert isinstance(await SlackDirectory(client, Fixed(), Still(), "T0").standing("T0", "U1", True), Outsider)
    assert client.calls == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(200, {"error": "channel_not_found"}), SlackRefused),
        (Answer(429, {"error": "ratelimited"}, {"Retry-After": "12"}), SlackBusy),
        (Answer(429, "slow down"), SlackBusy),
        (Answer(500, {"error": "internal_error"}), SlackUncertain),
        (Answer(503, "<html>"), SlackUncertain),
        (Answer(200, "garbage"), SlackUncertain),
        (Answer(200, {"error": "fatal_error"}), SlackBusy),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_answers_of_slack_are_told_apart(answer: Any, kind: type) -> None:
    found = judged(SlackApiError("x", answer))
    assert isinstance(found, kind)
    if isinstance(found, SlackBusy) and answer.headers:
        assert found.after == 12
