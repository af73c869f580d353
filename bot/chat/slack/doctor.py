"""Examines how the bot is set up at Slack: each finding says what to do; secrets are never shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

import aiohttp
from pydantic import ValidationError
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from bot.adapters.tables import inbox
from bot.chat.slack.manifest import REQUEST_PATH, scopes
from bot.chat.slack.service import SlackUnusable, find_channel, make_client
from bot.chat.slack.signature import signature_of
from bot.config import Settings
from workflows.settings import unusable
from workflows.storage.engine import make_engine

MOST_SKEW = 60
"""Seconds; Slack's signatures are good for five minutes, the broker's calls for less."""
MANIFEST = "`airlock.py slack manifest` prints the app's manifest; put it in at api.slack.com/apps, under App Manifest"
_AWAY = (aiohttp.ClientError, OSError, TimeoutError, SlackClientError)
_REMEDIES = {
    "account_inactive": "the app was removed from the workspace: install it again, and take the new token",
    "invalid_auth": "take the token from api.slack.com/apps: {where}",
    "missing_scope": "give the app-level token the scope connections:write",
    "not_allowed_token_type": "this is another kind of token: {where}",
    "not_authed": "set the token: {where}",
    "ratelimited": "wait a minute and ask again",
    "token_expired": "token rotation is on, which the bot does not follow: turn it off in the app's settings",
    "token_revoked": "the app was removed from the workspace: install it again, and take the new token",
}
BOT_TOKEN = "SLACK_BOT_TOKEN is the Bot User OAuth Token (xoxb-), under OAuth & Permissions"  # noqa: S105 - a hint
APP_TOKEN = "SLACK_APP_TOKEN is an app-level token (xapp-), under Basic Information"  # noqa: S105 - a hint


@dataclass(frozen=True, slots=True)
class Finding:
    problem: str
    remedy: str


@dataclass(slots=True)
class Report:
    """What is not well, what cannot be told or may be left as it is, and what is well."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)

    def found(self, problem: str, remedy: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(problem, remedy))


def examine() -> Report:
    """Examine the settings of the environment, and what Slack says to them."""
    report = Report()
    try:
        settings = Settings()
    except ValidationError as error:
        for said in unusable(error):
            report.found(said, "the README lists the settings")
        return report
    asyncio.run(_examine(settings, report))
    return report


async def _examine(settings: Settings, report: Report) -> None:
    client = make_client(settings)
    answer = await _bot_token(client, settings, report)
    if answer is not None:
        headers = {str(key).lower(): str(value) for key, value in answer.headers.items()}
        _scopes(headers, report)
        _clock(headers, report)
        await _channel(client, settings, report)
    if settings.slack_mode == "http":
        await _endpoint(settings, report)
    else:
        await _app_token(client, settings, report)
    await _command(settings, report)


async def _bot_token(client: AsyncWebClient, settings: Settings, report: Report) -> AsyncSlackResponse | None:
    if not settings.slack_bot_token.get_secret_value():
        report.found("SLACK_BOT_TOKEN is not set", BOT_TOKEN)
        return None
    try:
        answer = await client.auth_test()
    except SlackApiError as error:
        _refused("SLACK_BOT_TOKEN", BOT_TOKEN, error, report)
    except _AWAY as error:
        report.found(
            f"{settings.slack_api_url} does not answer: {type(error).__name__}", "look at the network, or proxy"
        )
    else:
        report.good.append(f"the bot is {answer.get('user')} in {answer.get('team')} ({answer.get('team_id')})")
        return answer
    return None


def _refused(name: str, where: str, error: SlackApiError, report: Report) -> None:
    code = str(error.response.get("error"))
    remedy = _REMEDIES.get(code, "look the error up at docs.slack.dev: {where}")
    report.found(f"{name} is refused: {code}", remedy.format(where=where))


def _scopes(headers: Mapping[str, str], report: Report) -> None:
    if "x-oauth-scopes" not in headers:
        report.notes.append("Slack does not say which scopes the token has")
        return
    present = {scope.strip() for scope in headers["x-oauth-scopes"].split(",")} - {""}
    if missing := sorted(set(scopes()) - present):
        report.found(f"the token lacks scopes: {', '.join(missing)}", f"{MANIFEST}, and install the app again")
    else:
        report.good.append(f"the token has the {len(scopes())} scopes that the bot needs")
    if extra := sorted(present - set(scopes())):
        report.notes.append(f"it has scopes that the bot does not use: {', '.join(extra)}")


def _clock(headers: Mapping[str, str], report: Report) -> None:
    try:
        skew = time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return
    if abs(skew) > MOST_SKEW:
        side = "ahead of" if skew > 0 else "behind"
        report.found(f"this machine's clock is {abs(skew):.0f} s {side} Slack's", "synchronise it, as with chrony")
    else:
        report.good.append(f"the clock is within {MOST_SKEW} s of Slack's")


async def _channel(client: AsyncWebClient, settings: Settings, report: Report) -> None:
    try:
        found = await find_channel(client, settings.channel)
    except SlackUnusable as error:
        remedy = (
            "invite the bot there, or name another with AIRLOCK_CHANNEL: cards go only where it is, and no outsider"
        )
        report.found(f"the reviewers' channel `{settings.channel}`: {error}", remedy)
    except _AWAY as error:
        report.found(f"the reviewers' channel cannot be looked up: {type(error).__name__}", "ask again")
    else:
        report.good.append(f"the bot is in the reviewers' channel `{settings.channel}` ({found})")


async def _app_token(client: AsyncWebClient, settings: Settings, report: Report) -> None:
    token = settings.slack_app_token.get_secret_value()
    if not token:
        report.found("SLACK_APP_TOKEN is not set", f"{APP_TOKEN}, with the scope connections:write")
        return
    try:
        # An address, and no socket: one that is open gets its share of what people do, and would lose it.
        await client.apps_connections_open(app_token=token)
    except SlackApiError as error:
        _refused("SLACK_APP_TOKEN", APP_TOKEN, error, report)
    except _AWAY as error:
        report.found(f"no socket can be asked for: {type(error).__name__}", "look at the network, or proxy")
    else:
        report.good.append("a socket may be opened")


async def _endpoint(settings: Settings, report: Report) -> None:
    """Ask the bot's own address, signed, what Slack asks it."""
    body = urlencode({"ssl_check": "1"}).encode()
    at = str(int(time.time()))
    signature = signature_of(settings.slack_signing_secret.get_secret_value(), at, body)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": at,
        "X-Slack-Signature": signature,
    }
    url = f"http://{settings.slack_host}:{settings.slack_port}{REQUEST_PATH}"
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=body, headers=headers) as it,
        ):
            status = it.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        report.found(f"{url} does not answer: {type(error).__name__}", "start the bot with AIRLOCK_SLACK_MODE=http")
        return
    if status == 200:
        report.good.append(f"{url} answers; that Slack reaches it cannot be seen from here")
    else:
        remedy = "the running bot has another SLACK_SIGNING_SECRET: restart it" if status == 401 else "look at its log"
        report.found(f"{url} answers {status}", remedy)


async def _command(settings: Settings, report: Report) -> None:
    """Say what is known of the command: Slack tells nobody which commands an app has, but some may have come."""
    last = await _last_command(settings)
    seen = f"{settings.command} last came {last}" if last else f"{settings.command} has not come here yet"
    report.notes.append(f"{seen}; Slack does not say whether it is set up: type `{settings.command} help`")


async def _last_command(settings: Settings) -> str | None:
    if settings.database is None and not (settings.home / "bot.db").is_file():
        return None
    engine = make_engine(settings.database_url)
    try:
        async with engine.connect() as connection:
            query = select(func.max(inbox.c.received_at)).where(inbox.c.kind == "command")
            at = (await connection.execute(query)).scalar_one_or_none()
        return f"{at:%Y-%m-%d %H:%M} UTC" if at else None
    except (SQLAlchemyError, OSError):
        return None
    finally:
        await engine.dispose()
