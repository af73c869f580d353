"""Runs the bot: `python -m bot`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, TextIO, cast

import aiohttp
import structlog
from pydantic import ValidationError
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.adapters.answers import AnswerDesk
from bot.adapters.boxes import Inbox, Outbox, Reserved
from bot.adapters.broker import HttpBroker
from bot.adapters.clock import RandomIds, SystemClock
from bot.adapters.desks import Desks
from bot.adapters.following import Follower
from bot.adapters.keys import OrderKeyUnusable, order_key
from bot.adapters.orders import OrderDesk
from bot.adapters.policies import FolderPolicies
from bot.adapters.sender import Sender
from bot.adapters.store import Store
from bot.adapters.sweeper import Sweeper
from bot.adapters.tables import MIGRATIONS
from bot.adapters.worker import InboxWorker
from bot.chat.slack.app import Rim
from bot.chat.slack.delivery import Delivery
from bot.chat.slack.directory import SlackDirectory
from bot.chat.slack.endpoint import Endpoint
from bot.chat.slack.exhibits import Exhibits
from bot.chat.slack.gateway import Gateway, SlackRefused, judged
from bot.chat.slack.home import Homes
from bot.chat.slack.opening import Opener
from bot.chat.slack.pacing import Pacer
from bot.chat.slack.payloads import intent_of
from bot.chat.slack.reviewing import ReviewForms
from bot.chat.slack.service import (
    SlackAway,
    SlackUnusable,
    check_tokens,
    find_channel,
    make_app,
    make_client,
    own_identity,
)
from bot.chat.slack.shows import Shows
from bot.chat.slack.socket import Sockets
from bot.chat.slack.tickets import Tickets
from bot.config import Settings
from policies.engine.load import PolicyUnreadable
from workflows.logs import Unfailing
from workflows.settings import unusable
from workflows.storage.engine import DatabaseUnusable, make_engine
from workflows.storage.migrate import migrate as migrate_database
from workflows.storage.migrate import upgrade

log = structlog.get_logger()
START_PATIENCE = 30
STOP_PATIENCE = 10


def main() -> None:
    """Run until SIGTERM; exit 2 where a setting, the policy or Slack's answer makes that impossible."""
    try:
        settings = Settings()
        set_up_logs(settings)
        asyncio.run(run(settings))
    except ValidationError as error:
        sys.exit(_stop("\n".join(unusable(error))))
    except (PolicyUnreadable, SlackUnusable, OrderKeyUnusable, DatabaseUnusable) as error:
        sys.exit(_stop(str(error)))


def _stop(message: str) -> int:
    sys.stderr.write(f"bot: {message}\n")
    return 2


def migrate() -> None:
    """Bring the database up to date, as a release step of its own."""
    try:
        migrate_database(Settings().database_url, MIGRATIONS)
    except ValidationError as error:
        sys.exit(_stop("\n".join(unusable(error))))
    except DatabaseUnusable as error:
        sys.exit(_stop(str(error)))


def set_up_logs(settings: Settings) -> None:
    """Write logs as JSON lines on stderr."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    logging.basicConfig(level=max(level, logging.INFO), stream=sys.stderr, format="%(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
            ),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, Unfailing(sys.stderr))),
    )


async def run(settings: Settings) -> None:
    """Start everything, wait for SIGTERM or SIGINT, stop in the opposite order."""
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    async with AsyncExitStack() as stack:
        failed = await start(settings, stack)
        waits = {asyncio.create_task(stop.wait()), *failed}
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done & failed:
            task.result()
        log.info("bot.stopping")


async def start(settings: Settings, stack: AsyncExitStack) -> set[asyncio.Task[None]]:
    """Start everything; what is returned runs until the stack unwinds."""
    clock = SystemClock()
    policies = FolderPolicies(settings.policies)
    check_tokens(settings)
    key = order_key(settings.home)
    engine = make_engine(settings.database_url)
    stack.push_async_callback(engine.dispose)
    await upgrade(engine, MIGRATIONS)
    session = await stack.enter_async_context(aiohttp.ClientSession())
    client = make_client(settings)
    identity, channel = await _identified(client, settings)
    desks = Desks(
        Store(engine, clock),
        policies,
        clock,
        RandomIds(),
        command=settings.command,
        channel=channel,
        pending_cap=settings.pending_cap,
    )
    inbox, outbox = Inbox(engine, clock), Outbox(engine, clock)
    broker = HttpBroker(session, settings.broker_url, key, clock)
    pacer = Pacer(settings.pace)
    gateway = Gateway(client, session, pacer, str(identity.bot_user_id))
    shows = Shows(gateway, desks, outbox, broker)
    exhibits = Exhibits(shows, desks, broker)
    tickets = Tickets(shows, desks, broker)
    directory = SlackDirectory(client, policies, clock, str(identity.team_id))
    homes = Homes(gateway, desks, directory, str(identity.team_id))
    orders, answers = OrderDesk(broker, desks), AnswerDesk(broker, desks)
    delivery = Delivery(gateway, desks, orders, answers, shows, exhibits, tickets, homes)
    sender = Sender(outbox, delivery, clock)
    reserved = Reserved()
    worker = InboxWorker(inbox, desks, directory, intent_of, sender.wake, reserved)
    sweeper = Sweeper(desks, inbox, outbox, policies, sender.wake)
    tasks = {
        _run_until_left(stack, part, name)
        for name, part in (("outbox", sender), ("inbox", worker), ("feed", Follower(broker, desks, sender.wake)))
    }
    stack.callback(pacer.close)
    sweeper.start()
    stack.push_async_callback(sweeper.stop)
    app = make_app(settings, identity)
    opener = Opener(desks, directory, ReviewForms(desks, broker))
    rim = Rim(inbox, desks, opener, worker.wake, reserved)
    rim.attach(app)
    stack.push_async_callback(rim.rest)
    await _listen(app, rim, settings, stack)
    if settings.ready_file:
        _say_ready(settings.ready_file)
        stack.callback(settings.ready_file.unlink, missing_ok=True)
    log.info("bot.ready", channel=channel, command=settings.command)
    return tasks


async def _listen(app: AsyncApp, rim: Rim, settings: Settings, stack: AsyncExitStack) -> None:
    """Take payloads until the stack unwinds, through a socket or over HTTP."""
    if settings.slack_mode == "http":
        endpoint = Endpoint(app, settings.slack_signing_secret.get_secret_value())
        stack.push_async_callback(endpoint.close)
        await endpoint.start(settings.slack_host, settings.slack_port)
        return
    sockets = Sockets(app, settings.slack_app_token.get_secret_value(), settings.slack_quiet)
    rim.missed = sockets.suspect
    stack.push_async_callback(sockets.close)
    await _connected(sockets)
    _run_until_left(stack, sockets, "sockets")


async def _identified(client: AsyncWebClient, settings: Settings) -> tuple[AuthorizeResult, str]:
    """Return who the bot is and the reviewers' channel, waiting a while for a Slack that is not up yet."""
    deadline = asyncio.get_running_loop().time() + START_PATIENCE
    while True:
        pause = 0.5
        try:
            return await own_identity(client), await find_channel(client, settings.channel)
        except SlackAway as error:
            # Slack is there, only busy: an exit would ask it again all the sooner.
            log.warning("slack.busy", error=str(error), seconds=error.after)
            pause = error.after
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if asyncio.get_running_loop().time() > deadline:
                raise SlackUnusable(f"{settings.slack_api_url} does not answer: {type(error).__name__}") from None
        await asyncio.sleep(pause)


async def _connected(sockets: Sockets) -> None:
    """Open the socket, again where Slack is busy; once it is open, the SDK opens it again by itself."""
    while True:
        try:
            await sockets.open(START_PATIENCE)
        except SlackApiError as error:
            match judged(error):
                case SlackRefused(error=name):
                    raise SlackUnusable(f"SLACK_APP_TOKEN is refused: {name}") from None
                case answer:
                    log.warning("slack.busy", error=str(answer))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("slack.busy", error=type(error).__name__)
        else:
            return
        await asyncio.sleep(1.0)


class _Part(Protocol):
    async def run(self) -> None: ...

    def stop(self) -> None: ...


def _run_until_left(stack: AsyncExitStack, part: _Part, name: str) -> asyncio.Task[None]:
    """Start a part that is told to stop, and awaited, when the stack unwinds."""
    task = asyncio.create_task(part.run(), name=name)

    async def leave() -> None:
        part.stop()
        _, late = await asyncio.wait({task}, timeout=STOP_PATIENCE)
        for one in late:
            log.warning("bot.stopped_late", part=name)
            one.cancel()

    stack.push_async_callback(leave)
    return task


def _say_ready(path: Path) -> None:
    """Write the ready file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    main()
