"""`airlock doctor slack`: what is wrong is found, said with what to do, and is the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import airlock
from bot.chat.slack import doctor
from bot.chat.slack.doctor import Report
from bot.chat.slack.manifest import REQUEST_PATH, manifest
from broker.demo.cluster import free_port
from tests.support.bot_world import REPOSITORY, story
from tests.unit.bot.workspace.world import World, running


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "workspace", manifest()) as made:
        yield made


def environment(world: World, state: Path, **more: str) -> dict[str, str]:
    given = {
        "AIRLOCK_STATE": str(state),
        "SLACK_API_URL": f"{world.url}/api/",
        "SLACK_BOT_TOKEN": world.space.bot_token,
        "SLACK_APP_TOKEN": world.space.app_token,
    }
    return given | more


async def started(given: Mapping[str, str]) -> tuple[int, str]:
    """Run the command line as a person would, in a process of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLACK_", "AIRLOCK_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(REPOSITORY / "airlock.py"), "doctor", "slack"),
        env={**kept, **given, "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def run(given: Mapping[str, str]) -> tuple[int, str]:
    """Run the command line here: a process of its own takes two seconds to read its modules."""
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith(("SLACK_", "AIRLOCK_"))]:
            patch.delenv(key)
        for key, value in given.items():
            patch.setenv(key, value)
        patch.setattr(airlock.console, "width", 200)
        done = await asyncio.to_thread(CliRunner().invoke, airlock.app, ["doctor", "slack"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


async def test_good_setup_is_said_to_be_good(world: World, tmp_path: Path) -> None:
    code, output = await started(environment(world, tmp_path))
    assert code == 0, output
    assert "wrong" not in output
    for words in ("T0LOCAL001", "scopes that the bot needs", "C0ACCESS01", "a socket may be opened", "/access help"):
        assert words in output
    assert world.space.bot_token not in output
    assert world.space.app_token not in output
    assert world.space.sockets.count == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SLACK_BOT_TOKEN": ""}, "SLACK_BOT_TOKEN is not set"),
        ({"SLACK_BOT_TOKEN": "xoxb-wrong"}, "SLACK_BOT_TOKEN is refused: invalid_auth"),
        ({"SLACK_APP_TOKEN": ""}, "connections:write"),
        ({"SLACK_APP_TOKEN": "xapp-wrong"}, "SLACK_APP_TOKEN is refused: invalid_auth"),
        ({"AIRLOCK_CHANNEL": "nowhere"}, "there is no channel `nowhere`"),
        ({"AIRLOCK_CHANNEL": "general"}, "invite the bot there"),
        ({"AIRLOCK_CHANNEL": "partners"}, "shared with another workspace"),
        ({"SLACK_API_URL": "http://127.0.0.1:9/api/"}, "does not answer"),
        ({"SLACK_API_URL": "http://slack.example.test/api/"}, "must be https"),
        ({"AIRLOCK_SLACK_MODE": "http"}, "needs SLACK_SIGNING_SECRET"),
        ({"SLACK_BOT_TOKEN": "", "AIRLOCK_DEMO_UPSTREAM_PORT": "1"}, "the demo's state, which needs no Slack"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_found(world: World, tmp_path: Path, change: dict[str, str], words: str) -> None:
    code, output = await run(environment(world, tmp_path, **change))
    assert code == 1, output
    assert words in output
    kinds = [line.split()[0] for line in output.splitlines() if line and not line.startswith(" ")]
    assert kinds[0] == "wrong"
    assert kinds == sorted(kinds, key=["wrong", "note", "good"].index)


async def examined(world: World, state: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    for key, value in environment(world, state).items():
        monkeypatch.setenv(key, value)
    return await asyncio.to_thread(doctor.examine)


async def test_missing_scopes_are_named_and_needless_ones_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = json.loads(json.dumps(manifest()))
    bot: list[str] = given["oauth_config"]["scopes"]["bot"]
    given["oauth_config"]["scopes"]["bot"] = [*(set(bot) - {"files:write", "im:write"}), "admin"]
    async with running(tmp_path / "workspace", given) as world:
        report = await examined(world, tmp_path, monkeypatch)
    [finding] = report.findings
    assert finding.problem == "the token lacks scopes: files:write, im:write"
    assert "slack manifest" in finding.remedy
    assert any("does not use: admin" in text for text in report.notes)


@pytest.mark.parametrize(("skew", "words"), [(400, "400 s ahead of"), (-90, "90 s behind")])
async def test_clock_that_is_wrong_is_found(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, words: str
) -> None:
    import time

    class Off:
        @staticmethod
        def time() -> float:
            return time.time() // 1 + skew

    monkeypatch.setattr(doctor, "time", Off)
    report = await examined(world, tmp_path, monkeypatch)
    assert len(report.findings) == 1
    assert words.split()[2] in report.findings[0].problem
    assert abs(float(report.findings[0].problem.split(" is ")[1].split(" s ")[0]) - abs(skew)) <= 5


async def test_running_bot_over_http_is_asked_as_slack_would(tmp_path: Path) -> None:
    async with story(tmp_path, http=True) as told:
        port, secret = told.settings.slack_port, told.world.space.signing_secret
        given = environment(told.world, tmp_path / "state", AIRLOCK_SLACK_MODE="http", AIRLOCK_SLACK_PORT=str(port))
        await told.command("alice", "/access list")
        code, output = await run({**given, "SLACK_SIGNING_SECRET": secret})
        assert code == 0, output
        assert f"{port}{REQUEST_PATH} answers" in output
        assert "/access last came" in output
        assert secret not in output
        code, output = await started({**given, "SLACK_SIGNING_SECRET": "another"})
        assert (code, "another SLACK_SIGNING_SECRET" in output) == (1, True)
        code, output = await run({**given, "AIRLOCK_SLACK_PORT": str(free_port()), "SLACK_SIGNING_SECRET": secret})
        assert (code, "start the bot" in output) == (1, True)
