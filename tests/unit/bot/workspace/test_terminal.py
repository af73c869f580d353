"""What the terminal pane takes: connections out of messages, and lines that may be typed into psql."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.workspace.terminal.lines import LONGEST, Refused, read_typed
from bot.workspace.terminal.ticket import Connection, connection_in, read_line

GOOD = 'PGPASSWORD=s3cret-x psql "host=127.0.0.1 port=6432 dbname=prod-db user=alice.k3f9 sslmode=require"'


def test_a_line_is_read_as_a_connection() -> None:
    expected = Connection("127.0.0.1", 6432, "prod-db", "alice.k3f9", "require", "s3cret-x")
    assert read_line(GOOD) == expected
    assert read_line(GOOD.replace("s3cret-x", "'s3cret-x'")) == expected
    assert "s3cret-x" not in " ".join(f"{key}" for key in expected.environment())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("127.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1.evil.test"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "/tmp"),
        ("6432", "0"),
        ("6432", "65536"),
        ("6432", "064"),
        ("6432", "64 32"),
        ("sslmode=require", "sslmode=verify-full"),
        ("sslmode=require", "sslmode=require sslmode=require"),
        (" sslmode=require", ""),
        ("sslmode=require", "sslmode=require passfile=/etc/passwd"),
        ("sslmode=require", "sslmode=require options=-csearch_path"),
        ("sslmode=require", "service=x"),
        ("dbname=prod-db", "dbname=postgresql://127.0.0.1/x"),
        ("dbname=prod-db", "dbname=-c"),
        ("user=alice.k3f9", "user=-oX"),
        ("user=alice.k3f9", "user=a;id"),
        ("psql ", "psql -c '\\! id' "),
        ("psql ", "/tmp/psql "),
        ("PGPASSWORD", "PSQLRC=/tmp/x PGPASSWORD"),
        ("s3cret-x", "$(id)"),
        ("s3cret-x", "`id`"),
        ("s3cret-x", "'x"),
        ("s3cret-x", ""),
        ('require"', 'require"; id'),
        ('require"', 'require" | sh'),
        ('require"', 'require"\nid'),
    ],
)
def test_a_line_of_another_form_is_nothing(old: str, new: str) -> None:
    assert read_line(GOOD.replace(old, new)) is None


def test_a_message_gives_the_one_connection_of_its_code() -> None:
    def code(text: str) -> dict[str, object]:
        part = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
        return {"type": "rich_text", "elements": [part]}

    other = GOOD.replace("6432", "6433")
    assert connection_in([code(GOOD), code("s3cret-x")]) == read_line(GOOD)
    assert connection_in([code(GOOD), code(GOOD)]) == read_line(GOOD)
    assert connection_in([code(GOOD), code(other)]) is None
    assert connection_in([], f"your line: ```{GOOD}```") == read_line(GOOD)
    assert connection_in([{"type": "section", "text": {"type": "mrkdwn", "text": f"```\n{GOOD}\n```"}}]) is not None
    assert connection_in([{"type": "section", "text": {"type": "mrkdwn", "text": GOOD}}], GOOD) is None
    assert connection_in("nonsense") is None


LOOKING = [
    *("\\d", "\\d+ orders", "\\dt", "\\dt public.*", "\\d \"Order Items\"", "\\df+ upper", "\\dRp+", "\\dS", "\\l+"),
    *("\\x", "\\x auto", "\\timing on", "\\q", "\\conninfo", "\\echo hello (world)", "\\?", "\\h select"),
    *("\\z", "\\c prod-db", "\\pset border 2", "\\pset null (none)", "\\pset format csv"),
    *("select 1 \\gx", "select 1 \\g", "\\x\\dt", "\\."),
]  # fmt: skip


@pytest.mark.parametrize("line", LOOKING)
def test_commands_that_only_look_pass(line: str) -> None:
    assert read_typed(line) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "select * from orders where at > '2024-01-01 12:30:00' and id::text = '1'::TEXT;",
        'select \'{"a": true, "b":1, "c":null}\'::jsonb, array[1,2,3][1:2];',
        "insert into t values ('über', '10:30', $$it's$$); -- a comment: fine",
        "select\t1;",
        "",
    ],
)
def test_sql_passes_letter_for_letter(line: str) -> None:
    assert read_typed(line) == [line]


REFUSED = [
    *("\\!", "\\! id", "\\!id", "select 1; \\! id", "select 1 \\; \\! id", "\\x \\! id", "\\x\\! id", "\\d\\\\! id"),
    *("\\o /tmp/x", "\\o |sh", "\\out x", "\\g |sh", "\\g /tmp/x", "\\gx |sh", "\\g (format=csv) |sh", "\\w x"),
    *("\\i /etc/passwd", "\\ir x", "\\include x", "\\e", "\\edit", "\\ef f", "\\ev v", "\\cd /", "\\s /tmp/x", "\\s"),
    *("\\copy t to program 'id'", "\\copy t from '/etc/passwd'", "\\lo_import /etc/passwd", "\\lo_export 1 /tmp/x"),
    *("\\set PSQL_EDITOR sh", "\\set x `id`", "\\setenv PAGER sh", "\\gset", "\\gexec", "\\prompt x", "\\write |sh"),
    *("\\pset pager on", "\\pset pager always", "\\pset null `id`", "\\pset title x", "\\pset fieldsep |", "\\watch 1"),
    *("\\echo `id`", "\\d `id`", "\\c `id`", "\\h `id`", "\\qecho x", "\\warn x", "\\echo :LAST_ERROR_MESSAGE"),
    *("\\c host=evil.test", "\\c - - evil.test 5432", "\\c postgresql://evil.test/x", "\\connect -reuse-previous=on x"),
    *("\\if true", "\\password", "\\encoding SJIS", "\\crosstabview", "\\sf f(int)", "\\bind 1", "\\parse x", "\\"),
    *("select 'a\\b'", "select E'\\n'", "select 'it''s \\! id'", "-- \\! id", "/* \\! id", "$$ \\! id"),
    *(":LAST_ERROR_MESSAGE", "select :ENCODING", "select:SERVER_VERSION_NAME;", "x:::USER", "::text:USER"),
    *("select 1;\x1b[A", "select\x00 1", "a\rb", "a\x0bb", "a\x0cb", "\x18\x05", "\x16\x03", "\x7f", "\x85", "\u2028"),
    *("\ud800", "\\d\u00a0x", "\\\u0441 prod-db", "\\d\u200b", "\x1b[200~\\! id\x1b[201~"),
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_everything_else_with_a_backslash_a_variable_or_a_control_character_is_refused(line: str) -> None:
    assert isinstance(read_typed(line), Refused)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\\! ls", "`\\! ls` is"),
        ("\\copy customers to '/tmp/x'", "`\\copy customers to '/tmp/…` is"),
        ("select :LAST_ERROR_MESSAGES_OF_MINE", "`:LAST_ERROR_MESSAGES…` is"),
    ],
)
def test_a_refusal_that_repeats_a_part_shows_that_it_is_one(line: str, shown: str) -> None:
    refused = read_typed(line)
    assert isinstance(refused, Refused)
    assert refused.why.startswith(shown)


def test_one_line_that_is_refused_keeps_the_whole_paste_back() -> None:
    assert read_typed("begin;\nselect 1;\n") == ["begin;", "select 1;", ""]
    assert read_typed("begin;\r\nselect 1;") == ["begin;", "select 1;"]
    assert isinstance(read_typed("begin;\n\\! id\nselect 1;"), Refused)
    assert isinstance(read_typed("x" * (LONGEST + 1)), Refused)


@given(st.text(alphabet="\\!|`:AZaz'\"$ ;/*-\t{}()=gdxcowi\n", max_size=40))
def test_no_line_that_passes_has_a_command_outside_the_list(text: str) -> None:
    typed = read_typed(text)
    if isinstance(typed, Refused):
        return
    for line in typed:
        for before, after in itertools.pairwise(line):
            assert not (before == "\\" and after in "!|`ow:'\"$ ;/*-\t{}()=i")
        if "\\" in line:
            assert not set(line[line.index("\\") :]) & set("`|/'{}:;")
