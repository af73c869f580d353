"""What a person types is encoded as Slack encodes it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.workspace.directory import Directory
from bot.workspace.mrkdwn import encode_command, encode_message, escape, rich_text, unescape
from bot.workspace.store import Store


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    folder: Path = tmp_path_factory.mktemp("directory")
    return Directory(Store(folder / "d.db"), "helper")


@pytest.mark.parametrize(
    ("typed", "encoded"),
    [
        ("ask @bob", "ask <@U0BOB00001|bob>"),
        ("ask @Bob, please", "ask <@U0BOB00001|bob>, please"),
        ("in #general.", "in <#C0GENERAL1|general>."),
        ("@nobody #nowhere", "@nobody #nowhere"),
        ("bob@example.test", "bob@example.test"),
        ("@dbas and @here", "<!subteam^S0DBAS0001|@dbas> and <!here>"),
        ("@helper", "<@U0APPBOT01|helper>"),
        ("a < b && c > d", "a &lt; b &amp;&amp; c &gt; d"),
        ("<@U0BOB00001|bob>", "&lt;@U0BOB00001|bob&gt;"),
    ],
)
def test_command_text_is_encoded(directory: Directory, typed: str, encoded: str) -> None:
    assert encode_command(typed, directory) == encoded


def test_message_mentions_carry_no_label(directory: Directory) -> None:
    assert encode_message("@bob", directory) == "<@U0BOB00001>"


@given(st.text())
def test_escaping_can_be_taken_back(text: str) -> None:
    assert unescape(escape(text)) == text


@given(st.text(st.characters(codec="utf-8")))
def test_nothing_typed_can_forge_a_mention(text: str) -> None:
    assert "<" not in escape(text)


def test_typed_message_carries_a_rich_text_block() -> None:
    elements = rich_text("hi <@U1> in <#C1|x> &amp; <!here>")["elements"][0]["elements"]
    assert [element["type"] for element in elements] == ["text", "user", "text", "channel", "text", "broadcast"]
    assert elements[4]["text"] == " & "
