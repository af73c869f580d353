"""The guide's steps are done when what they ask for has happened, and not before."""

from pathlib import Path
from typing import Any

import pytest

from bot.workspace.progress import GuideBroken, Progress, all_text
from bot.workspace.store import Store

GUIDE: dict[str, Any] = {
    "steps": [
        {"id": "ask", "done": {"fact": "commanded", "who": "alice", "text": "^/ask "}},
        {"id": "answer", "done": {"fact": "clicked", "who": "bob", "where": "requests", "after": "ask"}},
        {"id": "read", "done": [{"fact": "said", "text": r"^rows: \d+$"}, {"fact": "posted", "who": "app"}]},
        {"id": "by hand"},
    ]
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s.db")


def test_a_step_is_done_by_its_fact_alone_and_only_after_the_step_it_follows(store: Store) -> None:
    heard: list[list[str]] = []
    progress = Progress(store, GUIDE, heard.append)
    progress.note("clicked", who="bob", where="requests")
    progress.note("commanded", who="bob", text="/ask x")
    progress.note("commanded", who="alice", text="/other")
    assert progress.done == []
    progress.note("commanded", who="alice", text="/ask x")
    progress.note("clicked", who="bob", where="general")
    progress.note("clicked", who="bob", where="requests")
    progress.note("clicked", who="bob", where="requests")
    assert progress.done == ["ask", "answer"]
    assert heard == [["ask"], ["ask", "answer"]]


def test_any_sign_of_several_will_do_and_output_may_come_in_pieces(store: Store) -> None:
    progress = Progress(store, GUIDE, lambda _: None)
    for piece in ("x\nro", "ws: ", "12\nmore"):
        progress.note("said", who="alice", text=piece)
    assert progress.done == ["read"]
    progress.start_over()
    progress.note("posted", who="app")
    assert progress.done == ["read"]


def test_what_was_said_before_a_new_line_was_typed_is_not_looked_at_again(store: Store) -> None:
    progress = Progress(store, GUIDE, lambda _: None)
    progress.note("said", who="alice", text="rows: ")
    progress.note("typed", who="alice", text="select 1")
    progress.note("said", who="alice", text="12\n")
    assert progress.done == []


def test_progress_survives_a_restart_and_can_be_skipped_and_started_over(store: Store) -> None:
    Progress(store, GUIDE, lambda _: None).finish("by hand")
    again = Progress(store, GUIDE, lambda _: None)
    assert again.done == ["by hand"]
    again.finish("no such step")
    assert again.done == ["by hand"]
    again.start_over()
    assert Progress(store, GUIDE, lambda _: None).done == []


@pytest.mark.parametrize("done", [{"fact": "guessed"}, {"fact": "said", "text": "("}, "said", {}])
def test_a_guide_that_asks_for_what_cannot_be_seen_is_refused(store: Store, done: Any) -> None:
    if done == {}:
        assert Progress(store, {"steps": [{"done": done}]}, lambda _: None).done == []
        return
    with pytest.raises(GuideBroken):
        Progress(store, {"steps": [{"done": done}]}, lambda _: None)


def test_all_text_finds_every_text_of_a_message() -> None:
    message = {
        "text": "a",
        "blocks": [{"text": {"type": "mrkdwn", "text": "b"}, "elements": [{"text": "c", "value": "d"}]}],
    }
    assert sorted(all_text(message).split("\n")) == ["a", "b", "c"]
