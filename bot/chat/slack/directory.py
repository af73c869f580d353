"""Who an account is: looked up in Slack, bound to a person by the policy; what cannot be found out is an outsider."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.ports import Clock, Member, Outsider, Policies, Standing

log = structlog.get_logger()

CACHED_FOR = timedelta(seconds=60)
CACHE_SIZE = 5_000
_NEEDED = ("deleted", "is_bot", "is_restricted", "is_ultra_restricted")
"""Keys that Slack leaves out for accounts that are not whole members: absent counts against the account."""


class SlackDirectory:
    """Looks accounts up with `users.info`, remembering them for a minute where no decision hangs on it."""

    def __init__(self, client: AsyncWebClient, policies: Policies, clock: Clock, team: str) -> None:
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
            return "you are not a member of this workspace"
        seen = self._seen.get(account)
        if seen and not fresh and self._clock.now() - seen[0] <= CACHED_FOR:
            return seen[1]
        try:
            answer = await self._client.users_info(user=account)
        except SlackApiError as error:
            log.warning("account.unknown", account=account, error=str(error.response.get("error")))
            return "Slack did not say who you are, so nothing was done; try again"
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nobody is let in for it
            log.warning("account.unknown", account=account, error=type(error).__name__)
            return "Slack did not say who you are, so nothing was done; try again"
        problem = objection(answer.get("user"), account, self._team)
        self._seen[account] = (self._clock.now(), problem)
        self._seen.move_to_end(account)
        while len(self._seen) > CACHE_SIZE:
            self._seen.popitem(last=False)
        return problem


def objection(user: Any, account: str, team: str) -> str | None:
    """Say why an account may do nothing here, in words for its owner; None is a whole member."""
    if not isinstance(user, dict) or user.get("id") != account:
        return "Slack did not say who you are, so nothing was done; try again"
    if user.get("deleted") is not False:
        return "your account is deactivated"
    if user.get("team_id") != team or user.get("is_stranger") not in (None, False):
        return "you are not a member of this workspace"
    if any(user.get(key) is not False for key in _NEEDED) or user.get("is_workflow_bot") not in (None, False):
        if user.get("is_bot") is False and (user.get("is_restricted") or user.get("is_ultra_restricted")):
            return "guests may not ask for access or answer requests"
        return "only people with a full account may ask for access or answer requests"
    return None
