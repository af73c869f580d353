"""The broker as a process: how it starts, says that it is ready, refuses to start, stops, and survives a kill."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import aiohttp
import pytest

from broker.adapters.verify import verify
from tests.integration.broker import Bot, until
from tests.integration.running import SECRET, Running
from tests.support.bot_world import REPOSITORY


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path)
    yield found
    found.end()


async def test_process_serves_stops_cleanly_and_leaves_no_secret_behind(running: Running) -> None:
    reaper = running.start("broker.reaper")
    process = running.start()
    facts = running.wait_ready(process)
    assert set(facts["ports"]) == {"postgres"}
    async with aiohttp.ClientSession() as http:
        bot = Bot(running.world.key, facts["api"], http)
        grant = await bot.grant(reason="why\n\x1b[31m\u2028%s")
        _, ticket = await bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        assert ticket["port"] == facts["ports"]["postgres"]
        assert ticket["line"].startswith("PGPASSWORD=")
        assert [event["type"] for event in await bot.events()][-2:] == ["grant.opened", "ticket.minted"]
        waiting = asyncio.create_task(bot.events((await bot.events())[-1]["cursor"], wait=20))
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        # Sooner than that poll would be over by itself.
        assert await asyncio.to_thread(process.wait, 18) == 0
        waiting.cancel()
    reaper.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(reaper.wait, 30) == 0
    text = running.log.read_text()
    assert SECRET not in text
    assert ticket["password"] not in text
    assert text.isascii()
    assert all(isinstance(line, dict) for line in running.lines())
    report = verify(running.state)
    assert report.good, report.findings
    assert report.unsigned == 0
    assert running.state.joinpath("broker").stat().st_mode & 0o077 == 0


def test_workers_start_from_any_folder_and_one_that_cannot_says_why(running: Running, tmp_path: Path) -> None:
    home = running.state / "broker"
    home.mkdir()
    (home / "tls.crt").write_text("none")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    process = running.start(cwd=elsewhere, AIRLOCK_WORKERS="2", PYTHONPATH="")
    assert process.wait(30) == 2
    text = running.log.read_text()
    assert "worker 1: the TLS certificate in" in text
    assert "broker: a worker process of this broker does not start" in text
    assert "Traceback" not in text


async def test_killed_broker_comes_back_with_everything(running: Running) -> None:
    process = running.start()
    facts = running.wait_ready(process)
    async with aiohttp.ClientSession() as http:
        bot = Bot(running.world.key, facts["api"], http)
        order = bot.order()
        _, grant = await bot.post(order)
        before = await bot.events()
    process.kill()
    process.wait()
    again = running.start()
    facts = running.wait_ready(again)
    async with aiohttp.ClientSession() as http:
        bot = Bot(running.world.key, facts["api"], http)
        assert await bot.post(order) == (200, grant)
        events = await bot.events()
        assert events[: len(before)] == before
    assert verify(running.state).good


async def test_second_broker_on_one_state_folder_does_not_start(running: Running) -> None:
    running.wait_ready(running.start())
    assert await asyncio.to_thread(running.start().wait, 20) == 2
    assert "another" in running.log.read_text()


async def test_port_that_is_taken_is_said(running: Running) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert await asyncio.to_thread(running.start(AIRLOCK_API_PORT=port).wait, 20) == 2
        assert "address already in use" in running.log.read_text()
        assert "AIRLOCK_PORT_POSTGRES say where clients connect" in running.log.read_text()


async def test_broken_policy_or_log_keeps_the_broker_from_starting_and_is_named(running: Running) -> None:
    process = running.start()
    running.wait_ready(process)
    process.terminate()
    assert process.wait(15) == 0
    log = running.state / "broker" / "events" / "broker.ndjson"
    content = log.read_bytes()
    log.write_bytes(content.replace(b"policy.loaded", b"policy.loadeD"))
    assert await asyncio.to_thread(running.start().wait, 20) == 2
    assert "broker.ndjson" in running.log.read_text()
    log.write_bytes(content)
    running.world.write_policy("people: {alice: {nom: Alice}}")
    assert await asyncio.to_thread(running.start().wait, 20) == 2
    assert running.log.read_text().splitlines()[-1].startswith("all.yaml:1: people.alice")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system sets no limits of other processes")
async def test_reaper_outlives_a_full_disk_and_says_nothing_meanwhile(running: Running) -> None:
    reaper = running.start("broker.reaper")
    beat = running.state / "broker" / "leases" / "reaper.beat"
    await until_new(beat, "")
    hard = resource.prlimit(reaper.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(reaper.pid, resource.RLIMIT_FSIZE, (1, hard))
    await asyncio.sleep(1.2)
    last = beat.read_text()
    await asyncio.sleep(0.8)
    assert reaper.poll() is None
    assert beat.read_text() == last
    resource.prlimit(reaper.pid, resource.RLIMIT_FSIZE, (hard, hard))
    await until_new(beat, last)


async def until_new(file: Path, old: str) -> None:
    await until(lambda: file.exists() and file.read_text() != old, patience=20)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AIRLOCK_API_PORT", "abc", "AIRLOCK_API_PORT: should be a whole number"),
        ("AIRLOCK_API_PORT", "70000", "AIRLOCK_API_PORT: should be less than or equal to 65535"),
        ("AIRLOCK_PORT_POSTGRES", "70000", "AIRLOCK_PORT_POSTGRES is not a port: `70000`"),
        ("AIRLOCK_PLAINTEXT", "yes", "AIRLOCK_PLAINTEXT: should be 'never' or 'loopback'"),
        ("AIRLOCK_LOG_LEVEL", "loud", "AIRLOCK_LOG_LEVEL: should be debug, info, warning or error"),
        ("AIRLOCK_DATABASE", "no-url-with-secret", "AIRLOCK_DATABASE should be like postgresql+asyncpg://"),
        ("AIRLOCK_DATABASE", "postgresql+asyncpg://x:secret@127.0.0.1:1/z", "ConnectionRefusedError"),
        ("AIRLOCK_DATABASE", "postgresql+asyncpg://x:secret@127.0.0.1:1/z", "; AIRLOCK_DATABASE says where it is"),
        ("AIRLOCK_LISTEN_HOST", "nowhere.invalid", "; AIRLOCK_LISTEN_HOST and AIRLOCK_PORT_POSTGRES say where clients"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_the_status_is_two(
    running: Running, name: str, value: str, said: str
) -> None:
    assert running.start(**{name: value}).wait(20) == 2
    log = running.log.read_text()
    assert said in log.splitlines()[-1]
    assert "Traceback" not in log
    assert "secret" not in log


MIGRATE = (("broker", "migrate"), ("bot", "migrate"))
EVERY = (*MIGRATE, ("reaper",), ("bot",))


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        *product(EVERY, ["AIRLOCK_LOG_LEVEL=loud", "AIRLOCK_STATE=/dev/null"]),
        # The reaper has no database, and the bot asks Slack first.
        *product(MIGRATE, ["AIRLOCK_DATABASE=nothing"]),
    ],
)
def test_every_process_says_why_it_cannot_start(words: tuple[str, ...], setting: str, tmp_path: Path) -> None:
    name, _, value = setting.partition("=")
    environment = {"PATH": os.environ["PATH"], "AIRLOCK_STATE": str(tmp_path), name: value}
    environment |= {"SLACK_API_URL": "http://127.0.0.1:1/"}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "airlock.py"), *words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert done.stderr.startswith(f"{words[0]}: ")


@pytest.mark.parametrize(("given", "missing"), [("", "SLACK_BOT_TOKEN"), ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN")])
def test_a_bot_without_its_tokens_asks_nobody(given: str, missing: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "AIRLOCK_STATE": str(tmp_path), "SLACK_API_URL": "http://127.0.0.1:1/"}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "airlock.py"), "bot"],
        cwd=REPOSITORY,
        env=environment | ({given: "xoxb-1"} if given else {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = f"bot: {missing} is not set: `airlock doctor slack` says where to find it\n"
    assert (done.returncode, done.stderr) == (2, said)
