"""Meets Slack at the start: a client, who the bot is, which channel the cards go to."""

from __future__ import annotations

import logging

import structlog
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.chat.slack.gateway import SlackRefused, judged
from bot.chat.slack.pacing import SlackBusy
from bot.config import Settings

log = structlog.get_logger()


class SlackUnusable(Exception):
    """Slack does not accept this bot as it is set up"""


class SlackAway(Exception):
    """Slack is busy or broken, which passes; `after` seconds are a good time to ask again"""

    def __init__(self, error: str, after: float) -> None:
        super().__init__(error)
        self.after = after


def _unusable(words: str, error: SlackApiError) -> SlackUnusable | SlackAway:
    match judged(error):
        case SlackRefused(error=name):
            return SlackUnusable(f"{words}: {name}")
        case SlackBusy(after=after) as busy:
            return SlackAway(str(busy), after)
        case uncertain:
            return SlackAway(str(uncertain), 1.0)


def make_client(settings: Settings) -> AsyncWebClient:
    """Make a client that repeats nothing by itself: a dropped connection must not post a message twice."""
    return AsyncWebClient(
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url,
        timeout=15,
        retry_handlers=[],
    )


def make_app(settings: Settings, identity: AuthorizeResult) -> AsyncApp:
    """Make the Bolt app; its own loggers stay quiet, since they would write payloads down."""
    for name in ("slack_bolt", "slack_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)

    async def known() -> AuthorizeResult:
        # Left to itself, Bolt asks Slack who it is before the first payload is kept, and loses it if Slack is away.
        return identity

    logger = logging.getLogger("bot.slack")
    logger.setLevel(logging.ERROR)
    client = AsyncWebClient(base_url=settings.slack_api_url, timeout=15, retry_handlers=[])
    return AsyncApp(
        client=client,
        authorize=known,
        logger=logger,
        ignoring_self_events_enabled=True,
        signing_secret=settings.slack_signing_secret.get_secret_value() or None,
    )


def check_tokens(settings: Settings) -> None:
    """Raise SlackUnusable where a token is missing: nobody is asked in vain."""
    needed = {"SLACK_BOT_TOKEN": settings.slack_bot_token}
    if settings.slack_mode == "socket":
        needed["SLACK_APP_TOKEN"] = settings.slack_app_token
    for name, token in needed.items():
        if not token.get_secret_value():
            raise SlackUnusable(f"{name} is not set: `airlock doctor slack` says where to find it")


async def own_identity(client: AsyncWebClient) -> AuthorizeResult:
    """Return who the bot is, and in which workspace; raises SlackUnusable or SlackAway."""
    try:
        answer = await client.auth_test()
        return AuthorizeResult(
            enterprise_id=answer.get("enterprise_id"),
            team_id=str(answer["team_id"]),
            bot_user_id=answer.get("user_id"),
            bot_id=answer.get("bot_id"),
            bot_token=client.token,
        )
    except SlackApiError as error:
        raise _unusable("SLACK_BOT_TOKEN is refused", error) from None


async def find_channel(client: AsyncWebClient, wanted: str) -> str:
    """Return the id of the reviewers' channel, given by id or name; raises SlackUnusable or SlackAway."""
    name = wanted.lstrip("#")
    cursor: str | None = None
    try:
        while True:
            answer = await client.conversations_list(
                types="public_channel,private_channel", exclude_archived=True, limit=200, cursor=cursor
            )
            channels: list[dict[str, object]] = answer.get("channels", [])
            for channel in channels:
                if name in (channel["id"], channel.get("name")):
                    return _usable(channel)
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                raise SlackUnusable(f"there is no channel `{wanted}` that the bot can see: invite it with /invite")
    except SlackApiError as error:
        raise _unusable("the channels cannot be listed", error) from None


def _usable(channel: dict[str, object]) -> str:
    name = f"#{channel.get('name')}"
    if channel.get("is_ext_shared") or channel.get("is_pending_ext_shared"):
        raise SlackUnusable(f"{name} is shared with another workspace, so cards are not posted there")
    if channel.get("is_member") is False:
        raise SlackUnusable(f"the bot is not in {name}: invite it with /invite")
    return str(channel["id"])
