"""The small parts keep their promises."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bot.workspace
from bot.workspace.errors import SlackError
from bot.workspace.faults import Faults, UnknownFault
from bot.workspace.handles import ResponseUrls, Triggers
from bot.workspace.ids import Timestamps, micros
from bot.workspace.journal import Journal, redact
from bot.workspace.manifest import ManifestBroken, load_manifest, read_manifest
from bot.workspace.store import Store
from tests.unit.bot.workspace.world import MANIFEST


@given(st.lists(st.floats(0, 4e9, allow_nan=False), min_size=1, max_size=30))
def test_timestamps_grow_whatever_the_clock_does(moments: list[float]) -> None:
    clock = iter(moments)
    timestamps = Timestamps(lambda: next(clock))
    made = [timestamps.next() for _ in moments]
    assert made == sorted(set(made), key=micros)


@given(st.text())
def test_unreadable_timestamp_is_zero_not_an_error(text: str) -> None:
    assert micros(text) >= 0


def test_trigger_is_good_once_and_for_three_seconds() -> None:
    now = [100.0]
    triggers = Triggers(lambda: now[0])
    first, second = triggers.make("U1"), triggers.make("U2")
    assert triggers.exchange(first) == "U1"
    for trigger, name in (
        (first, "exchanged_trigger_id"),
        ("1.2.x", "invalid_trigger_id"),
        (None, "invalid_arguments"),
    ):
        with pytest.raises(SlackError, match=name):
            triggers.exchange(trigger)
    now[0] += 3.1
    with pytest.raises(SlackError, match="expired_trigger_id"):
        triggers.exchange(second)


def test_response_url_ends_after_half_an_hour_and_outlives_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    urls = ResponseUrls(Store(tmp_path / "s.db"), lambda: now[0])
    secret = urls.make("U1", "C1")
    again = ResponseUrls(Store(tmp_path / "s.db"), lambda: now[0])
    assert again.use(secret).uses == 4
    now[0] = 1801
    with pytest.raises(SlackError, match="expired_url"):
        again.use(secret)


def test_journal_blanks_tokens_and_forgets_the_oldest() -> None:
    journal = Journal()
    for number in range(2100):
        journal.note("to_app", "x", {"n": number, "token": "xoxb-1-abc", "in": ["say xapp-1-A-9f ok"]})
    entries = journal.since(0)
    assert len(entries) == 2000
    assert entries[-1]["body"] == {"n": 2099, "token": "xoxb-***", "in": ["say xapp-*** ok"]}
    assert journal.since(2099) == entries[-1:]


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_redaction_never_lets_a_token_through(value: object) -> None:
    text = json.dumps(redact([value, "xoxb-12-ab", {"k": "xapp-1-b"}]))
    assert "xoxb-12" not in text
    assert "xapp-1-b" not in text


def test_faults_meet_the_calls_they_name_and_run_out() -> None:
    faults = Faults()
    faults.add({"status": 429, "method": "chat.postMessage", "count": 2, "retry_after": 5})
    assert faults.for_call("users.info") is None
    first = faults.for_call("chat.postMessage")
    assert first is not None
    assert (first.status, first.retry_after) == (429, 5)
    assert faults.for_call("chat.postMessage") is not None
    assert faults.for_call("chat.postMessage") is None


@pytest.mark.parametrize("wish", [{}, {"status": 418}, {"drop": "sideways"}, {"duplicate": -1}, {"lose_ack": True}])
def test_unknown_fault_is_refused(wish: dict[str, object]) -> None:
    with pytest.raises(UnknownFault):
        Faults().add(wish)


def test_manifest_decides_names_commands_and_events() -> None:
    manifest = read_manifest(MANIFEST)
    assert manifest.handle == "helper"
    assert manifest.commands["/ask"].should_escape
    assert "app_mention" in manifest.events
    assert manifest.scopes is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"display_information": {"name": " "}}'])
def test_broken_manifest_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(ManifestBroken):
        load_manifest(path)


def test_command_without_a_slash_is_refused() -> None:
    features = {"slash_commands": [{"command": "ask", "description": ""}]}
    with pytest.raises(ManifestBroken, match="slash"):
        read_manifest({**MANIFEST, "features": features})


def test_workspace_imports_nothing_of_the_product() -> None:
    folder = Path(next(iter(bot.workspace.__path__)))
    allowed = {"aiohttp"}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.split(".")[0]
                assert top in allowed or top in __import__("sys").stdlib_module_names, f"{path.name} imports {name}"
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level <= len(path.relative_to(folder).parts), f"{path.name} reaches outside"


def test_page_never_builds_markup_from_text() -> None:
    folder = Path(next(iter(bot.workspace.__path__))) / "static"
    for path in folder.glob("*.js"):
        text = path.read_text()
        for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert banned not in text, f"{path.name} uses {banned}"
