"""Reading what people type after the command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.asking import denied_card
from bot.cards import Code
from bot.commanding import read_command
from bot.intents import Ask, Connect, ExtendNamed, Help, Intent, List, Revoke, Source, Status
from policies.engine.decisions import Deny

HERE = Source("slack", "T0", "U0")


def ask(resource: str, role: str | None = None, duration: str | None = None, reason: str = "", extra: str = "") -> Ask:
    return Ask(HERE, resource, role, duration, reason, extra)


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("prod-db read 30m because INC-42", ask("prod-db", "read", "30m", "INC-42")),
        ("prod-db read for 30m", ask("prod-db", "read", "30m")),
        ("  prod-db\u00a0read\u202f30m\u00a0BECAUSE: why ", ask("prod-db", "read", "30m", "why")),
        ("“prod-db” read 30m because “quoted”", ask("prod-db", "read", "30m", "“quoted”")),
        ("prod–db read 30m", ask("prod-db", "read", "30m")),
        ("prod‑db read 30m", ask("prod‑db", "read", "30m")),
        ("prod-db read 30m INC-42 now", ask("prod-db", "read", "30m", "", "INC-42 now")),
        ("prod-db read 1 h INC-42 now", ask("prod-db", "read", "1 h", "", "INC-42 now")),
        ("prod-db read for 1 hour 30 minutes because why", ask("prod-db", "read", "1 hour 30 minutes", "why")),
        ("prod-db read 90 s", ask("prod-db", "read", "90 s")),
        ("prod-db read 30 INC-42", ask("prod-db", "read", "30", "", "INC-42")),
        ('prod-db read "1  h" now', ask("prod-db", "read", "1  h", "", "now")),
        ("prod-db read because why", ask("prod-db", "read", None, "why")),
        ("prod-db", ask("prod-db")),
        ("<@U0BOB00001|bob> read 30m", ask("@U0BOB00001", "read", "30m")),
        ("prod-db read 30m because &lt;x&gt; &amp;amp; y", ask("prod-db", "read", "30m", "<x> &amp; y")),
        ("prod-db read 30m because a\nb", ask("prod-db", "read", "30m", "a\nb")),
        ("prod-db read 30m because because", ask("prod-db", "read", "30m", "because")),
        ("list", List(HERE)),
        ("STATUS", Status(HERE)),
        ("help me", Help(HERE)),
        ("", Ask(HERE, None)),
        ("  ", Ask(HERE, None)),
        ("revoke", Revoke(HERE)),
        ("revoke rq-1", Revoke(HERE, "rq-1")),
        ("revoke g-1 because wrong database", Revoke(HERE, "g-1", "wrong database")),
        ("revoke because done", Revoke(HERE, None, "done")),
        ("revoke prod-db", Revoke(HERE, "prod-db")),
        ("revoke prod-db read because done", Revoke(HERE, "prod-db", "done", "read")),
        (
            "revoke g-1 wrong database",
            Help(HERE, "`revoke` takes a resource, or an id; a reason comes after the word `because`"),
        ),
        ("connect", Connect(HERE)),
        ("connect prod-db read", Connect(HERE, "prod-db", "read")),
        ("extend", ExtendNamed(HERE)),
        ("extend 15m", ExtendNamed(HERE, None, None, "15m")),
        ("extend prod-db by 1 h", ExtendNamed(HERE, "prod-db", None, "1 h")),
        ("extend prod-db write 15m", ExtendNamed(HERE, "prod-db", "write", "15m")),
        ("extend prod-db 15", ExtendNamed(HERE, "prod-db", None, "15")),
        ("extend prod-db 15m now", Help(HERE, "`extend` takes a resource, or an id, and how much longer, like `15m`")),
        ("list prod-db", List(HERE, "prod-db")),
        ("status prod-db", Status(HERE, "prod-db")),
        ("list all of it", Help(HERE, "`list` takes one resource, or nothing")),
    ],
)
def test_command_is_read_strictly(text: str, intent: Intent) -> None:
    assert read_command(text, HERE) == intent


@given(st.text(max_size=400))
def test_any_text_is_read_or_answered(text: str) -> None:
    assert isinstance(read_command(text, HERE), Ask | Connect | ExtendNamed | Help | List | Status | Revoke)


@given(st.text(alphabet=st.characters(codec=None), max_size=50))
def test_what_is_read_can_be_stored(text: str) -> None:
    intent = read_command(f"a b 1m because {text}", HERE)
    assert isinstance(intent, Ask)
    assert "\x00" not in intent.reason
    intent.reason.encode()


def test_line_that_would_do_instead_keeps_the_reason() -> None:
    card = denied_card(Deny("read on db is given for at most 4h", ("r",), "/access db read 4h"), "INC-1 `x`")
    assert Code("/access db read 4h because INC-1 `x`") in card.parts
    assert "because" not in str(denied_card(Deny("no", ("r",), "talk to a DBA"), "INC-1").parts)
