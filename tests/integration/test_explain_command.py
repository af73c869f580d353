"""`airlock policy explain` as an operator types it: how many rows it would be, and where to look when it cannot say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import airlock
from tests.integration.postgres_world import make_world
from tests.support.broker import POLICY
from tests.support.postgres import Server

Explain = Callable[..., tuple[int, str]]
CHANGE = "update log set what = 'y' where id = 1"


@pytest.fixture
def explain(wheel_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explain:
    make_world(wheel_postgres, "create extension citext")
    (tmp_path / "policies").mkdir()
    (tmp_path / "secrets").mkdir()
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},").replace("file:x", "file:app")
    (tmp_path / "policies" / "policy.yaml").write_text(policy)
    (tmp_path / "secrets" / "app").write_text("app:app-password\n")
    for name in ("AIRLOCK_POLICIES", "AIRLOCK_STATE", "AIRLOCK_SECRETS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(airlock.console, "width", 200)

    def run(*words: str) -> tuple[int, str]:
        places = ("--policies", str(tmp_path / "policies"), "--state", str(tmp_path))
        done = CliRunner().invoke(airlock.app, ["policy", "explain", *words, *places])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


@pytest.mark.parametrize(
    ("role", "rows", "said", "expects"),
    [
        (
            "sized",
            ("--rows", "5000"),
            "runs     deny  the planner expects 5000 rows",
            "expects  5,000 rows, as you say",
        ),
        ("sized", ("--rows", "1"), "runs     allow", "expects  1 row, as you say"),
        ("sized", (), "runs     allow", "says the planner"),
        ("write", ("--rows", "1"), "runs     allow", "expects  no rule that decides this asks how many rows"),
        ("write", (), "runs     allow", ""),
    ],
)
def test_rules_that_ask_how_many_rows_are_told(
    explain: Explain, role: str, rows: tuple[str, ...], said: str, expects: str
) -> None:
    status, output = explain("alice", "prod-db", role, CHANGE, *rows)
    assert status == 0
    assert said in output
    assert expects in output


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("alice", "prod-db", "read", " -- nothing"), 0, "runs     allow  there is no statement in it"),
        (("alice", "prod-db", "reed", "select 1"), 1, "prod-db has no role `reed`: it has read, write"),
        (("alice", "prod-dv", "read", "select 1"), 1, "the policy has no resource `prod-dv`: it has prod-db;"),
        (("alic", "prod-db", "read", "select 1"), 1, "no person `alic`, did you mean `alice`?"),
        (("alice", "prod-db", "sized", CHANGE, "--rows", "-1"), 2, "--rows"),
        (("alice", "prod-db", "read", "select 1", "--at", "noon"), 2, '`noon` is no time; one is "2026-01-04 03:30"'),
    ],
)
def test_what_it_cannot_explain_says_what_there_is(
    explain: Explain, words: tuple[str, ...], status: int, said: str
) -> None:
    found, output = explain(*words)
    assert (found, said in output) == (status, True), output


def test_an_upstream_that_lets_nobody_in_leads_to_the_doctor(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "app").write_text("app:wrong\n")
    status, output = explain("alice", "prod-db", "read", "select 1")
    assert status == 1
    assert "password authentication failed" in output
    assert "`airlock doctor prod-db` says what mends it" in output


def test_functions_that_need_no_rule_are_not_told(explain: Explain) -> None:
    status, output = explain("alice", "prod-db", "few", "select max(id), spent(1) from notes")
    assert status == 0
    (calls,) = (line for line in output.splitlines() if line.startswith("calls"))
    assert calls.split("  ")[-1].strip() == "public.spent(integer), public.spent(text)"
