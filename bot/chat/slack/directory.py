"""Who an account is: looked up in Slack, bound to a person by the policy; what cannot be found out is an outsider."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.chat.slack.gateway import SlackRefused, judged
from bot.chat.slack.pacing import SlackBusy
from bot.ports import Clock, Member, Outsider, Policies, Standing

log = structlog.get_logger()

CACHED_FOR = timedelta(seconds=60)
CACHE_SIZE = 5_000
PATIENCE = 20.0
"""Seconds for which a Slack that does not answer is asked again: an acknowledged click must not be lost to it."""
FIRST_WAIT, LONGEST_WAIT = 0.2, 3.0
STRANGER = "you are not a member of this workspace; one of its admins can make you one"
GUEST = "guests may not ask for access or answer requests; an admin of this workspace can make you a full member"
UNCLEAR = "Slack did not say who you are, so nothing was done; try again"
_NEEDED = ("deleted", "is_bot", "is_restricted", "is_ultra_restricted")
"""Keys that Slack leaves out for accounts that are not whole members: absent counts against the account."""


class SlackDirectory:
    """Looks accounts up with `users.info`, remembering them for a minute where no decision hangs on it."""

    def __init__(
        self, client: AsyncWebClient, policies: Policies, clock: Clock, team: str, patience: float = PATIENCE
    ) -> None:
        self._patience = patience
        self._client = client
        self._policies = policies
        self._clock = clock
        self._team = team
        self._seen: OrderedDict[str, tuple[datetime, str | None]] = OrderedDict()

    async def standing(self, team: str, account: str, fresh: bool) -> Standing:
        """Say who an account is; `fresh` asks Slack now."""
        problem = await self._problem(team, account, fresh)
        if problem is not None:
            return Outsider(account, problem)
        policy = self._policies.current
        person = policy.person_by_slack(account)
        if person is None:
            return Outsider(account, "the policy does not know you; ask whoever keeps it to add your Slack id")
        if not policy.people[person].active:
            return Outsider(account, "the policy says that you are not active")
        return Member(person, account)

    def forget(self, account: str) -> None:
        """Forget what was seen of an account."""
        self._seen.pop(account, None)

    async def _problem(self, team: str, account: str, fresh: bool) -> str | None:
        if not account or team != self._team:
            return STRANGER
        seen = self._seen.get(account)
        if seen and not fresh and self._clock.now() - seen[0] <= CACHED_FOR:
            return seen[1]
        answer = await self._asked(account)
        if answer is None:
            # Whatever went wrong, nobody is let in for it.
            return UNCLEAR
        problem = objection(answer.get("user"), account, self._team)
        self._seen[account] = (self._clock.now(), problem)
        self._seen.move_to_end(account)
        while len(self._seen) > CACHE_SIZE:
            self._seen.popitem(last=False)
        return problem

    async def _asked(self, account: str) -> Any:
        """Return what Slack says of an account, or None where it does not say it in time."""
        loop = asyncio.get_running_loop()
        deadline, wait = loop.time() + self._patience, FIRST_WAIT
        while True:
            after = wait
            try:
                return await self._client.users_info(user=account)
            except SlackApiError as error:
                answer = judged(error)
                log.warning("account.unknown", account=account, error=str(answer))
                if isinstance(answer, SlackRefused):
                    return None
                if isinstance(answer, SlackBusy):
                    after = answer.after
            except Exception as error:  # noqa: BLE001 - a connection that breaks has many names
                log.warning("account.unknown", account=account, error=type(error).__name__)
            if loop.time() + after > deadline:
                return None
            await asyncio.sleep(after)
            wait = min(wait * 2, LONGEST_WAIT)


def objection(user: Any, account: str, team: str) -> str | None:
    """Say why an account may do nothing here, in words for its owner; None is a whole member."""
    if not isinstance(user, dict) or user.get("id") != account:
        return UNCLEAR
    if user.get("deleted") is not False:
        return "your account is deactivated"
    if user.get("team_id") != team or user.get("is_stranger") not in (None, False):
        return STRANGER
    if any(user.get(key) is not False for key in _NEEDED) or user.get("is_workflow_bot") not in (None, False):
        if user.get("is_bot") is False and (user.get("is_restricted") or user.get("is_ultra_restricted")):
            return GUEST
        return "only people with a full account may ask for access or answer requests"
    return None
