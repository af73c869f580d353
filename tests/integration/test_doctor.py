"""The doctor of a resource, on real servers: what it finds is there, what it says mends it, and a good role is good."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.protocols.postgres import OFFER
from broker.sessions.findings import Finding, Grade
from tests.integration.clinic import POLICY, USERS, WORLD, command, examined, read, said
from tests.integration.postgres_world import endpoint
from tests.support.postgres import Server


@pytest.fixture
def clinic(postgres: Server) -> Server:
    postgres.create_database("clinic")
    for user in USERS.values():
        if postgres.execute(f"select 1 from pg_roles where rolname = '{user}'"):
            postgres.execute(f"drop owned by {user}", "clinic")
            postgres.execute(f"drop role {user}")
    with postgres.connect("clinic") as connection:
        for statement in WORLD:
            connection.execute(statement.encode())
    return postgres


@pytest.fixture
def provisioned(clinic: Server) -> Server:
    """Both roles, made by what the doctor prints."""
    for role, user in USERS.items():
        script = "\n".join(OFFER.provision(read(), "prod-db", {role: user}, "doc_maker", clinic.major))
        assert user in script
        kept = "alter default privileges in schema ward grant select, insert, update, delete on tables to doc_write;"
        assert (kept in script) == (role == "write"), "what `ward.*` covers tomorrow needs rights too"
        done = clinic.psql(script, "clinic")
        assert done.returncode == 0, done.stderr
        clinic.execute(f"alter role {user} password '{user}-password'")
    return clinic


@pytest.mark.parametrize("role", USERS)
async def test_role_made_of_the_printed_sql_has_nothing_wrong(provisioned: Server, role: str) -> None:
    found = await examined(provisioned, role)
    assert said(found) == []
    good = said(found, Grade.GOOD)
    assert "a session opens with SCRAM-SHA-256, and the server keeps what the broker pins" in good
    assert "a session of the role is ended by the broker, and verified gone" in good
    assert f"{USERS[role]} can do nothing beside its tables" in good
    assert any(text.startswith("PostgreSQL ") for text in good)


async def test_a_role_that_may_change_the_schema_may_make_and_own_things(provisioned: Server) -> None:
    provisioned.execute("grant create on schema ward to doc_read", "clinic")
    try:
        rule = "  - {id: schema, decision: allow, roles: [read], effects: [ddl]}\nfields:"
        found = await examined(provisioned, policy=read(POLICY.replace("fields:", rule)))
        assert any("the policy lets it change the schema" in text for text in said(found, Grade.NOTE)), found
        assert not any("can make tables" in text for text in said(found)), found
    finally:
        provisioned.execute("revoke create on schema ward from doc_read", "clinic")


HARM = [
    ("alter role doc_read superuser", "it is a superuser, for whom no right of the database holds"),
    ("alter role doc_read createrole", "it can make roles"),
    ("alter role doc_read createdb", "it can make databases"),
    ("alter role doc_read replication", "by replication"),
    ("alter role doc_read bypassrls", "row security does not hold for it"),
    ("grant pg_read_all_data to doc_read", "a member of pg_read_all_data, which may more than any policy says"),
    ("grant pg_signal_backend to doc_read", "a member of pg_signal_backend"),
    ("grant doc_write to doc_read", "a member of doc_write, and has its rights too"),
    ("grant temporary on database clinic to public", "can make temporary tables and functions"),
    ("grant temporary on database clinic to doc_read", "can make temporary tables and functions"),
    ("grant create on database clinic to doc_read", "can make schemas"),
    ("grant create on schema public to public", "can make tables and functions in the schema public"),
    ("grant create on schema ward to doc_read", "can make tables and functions in the schema ward"),
    ("grant execute on function pg_read_file(text) to doc_read", "may call pg_read_file(text)"),
    ("alter role doc_read connection limit 6", "may open 6 connections"),
    ("alter role doc_read valid until 'tomorrow'", "the password of doc_read is good until"),
    ("revoke select on people from doc_read", "cannot read public.people"),
    ("revoke usage on schema public from public, doc_read", "may not use the schema of public.people"),
    ("grant select on secrets to doc_read", "could read public.secrets, which the policy does not cover"),
    ("grant insert on people to doc_read", "may insert on public.people, and no rule lets the role change"),
    ("grant truncate on people to doc_read", "may truncate on public.people, and no rule lets the role change"),
]


async def test_what_is_wrong_is_found_and_what_is_said_mends_it(provisioned: Server, subtests: pytest.Subtests) -> None:
    # What is mended is good again, so that each case begins where the one before it ended.
    for harm, words in HARM:
        with subtests.test(harm):
            if "pg_read_all_data" in harm and provisioned.major < 14:
                pytest.skip("this server is older than the role")
            provisioned.execute(harm, "clinic")
            wrong = [one for one in await examined(provisioned) if one.grade in (Grade.PROBLEM, Grade.WARNING)]
            assert any(words in one.text for one in wrong), said(wrong)
            for one in wrong:
                assert one.mend, one.text
                for line in one.mend:
                    provisioned.execute(line, "clinic")
            assert said(await examined(provisioned)) == []


async def test_read_role_of_a_whole_schema_that_may_write_is_told(provisioned: Server) -> None:
    policy = read(POLICY.replace('relations: [public.people, "public.OddNames"]', 'relations: ["public.*"]'))
    provisioned.execute(
        "grant select, insert, update, delete, truncate on all tables in schema public to doc_read", "clinic"
    )
    found = [one for one in await examined(provisioned, policy=policy) if "no rule lets" in one.text]
    (wrong,) = found
    assert wrong.text.startswith("doc_read may insert, update, delete, truncate on ")
    assert "public.people" in wrong.text
    for line in wrong.mend:
        provisioned.execute(line, "clinic")
    assert said(await examined(provisioned, policy=policy)) == []


@pytest.fixture
def trusting(provisioned: Server) -> Iterator[Server]:
    rules = Path(provisioned.execute("show hba_file")[0][0])
    before = rules.read_text()
    rules.write_text(f"host clinic doc_read 127.0.0.1/32 trust\n{before}")
    provisioned.execute("select pg_reload_conf()")
    yield provisioned
    rules.write_text(before)
    provisioned.execute("select pg_reload_conf()")


async def test_server_that_lets_anybody_in_is_told_what_mends_it(trusting: Server) -> None:
    for _ in range(100):
        # The server reads its rules a moment after it was told to.
        found = [line for one in await examined(trusting) if "asks for nothing" in one.text for line in one.mend]
        if found:
            break
    assert found[0].endswith("in pg_hba.conf, above that line: host clinic doc_read ADDRESS/32 scram-sha-256")


@pytest.fixture
def made_apart(clinic: Server) -> Server:
    """The read role and who makes the roles of its sessions, by what is printed for this server."""
    for name in ("doc_maker", LEFT):
        if clinic.execute(f"select 1 from pg_roles where rolname = '{name}'"):
            clinic.execute(f"drop owned by {name}", "clinic")
            clinic.execute(f"drop role {name}")
    policy = read(EPHEMERAL)
    done = clinic.psql("\n".join(OFFER.provision(policy, "prod-db", USERS, "doc_maker", clinic.major)), "clinic")
    assert done.returncode == 0, done.stderr
    for user in ("doc_read", "doc_maker"):
        clinic.execute(f"alter role {user} password '{user}-password'")
    return clinic


EPHEMERAL = POLICY.replace("roles:", 'provisioner: "file:m"\n    roles:', 1).replace(
    'read: {credential: "file:x"', 'read: {identity: ephemeral, credential: "file:x"'
)
LEFT = f"airlock_s_11111111_s{'a' * 16}"


async def apart(server: Server) -> list[Finding]:
    maker = endpoint(server, "doc_maker", "clinic")
    return await examined(server, policy=read(EPHEMERAL), provisioner=maker)


async def test_sessions_with_roles_of_their_own_are_tried_and_leave_nothing(made_apart: Server) -> None:
    found = await apart(made_apart)
    assert said(found) == []
    good = said(found, Grade.GOOD)
    assert "the session had a role of its own: it is ended, verified gone, and its role dropped" in good
    guarded = [text for text in said(found, Grade.NOTE) if "guard doc_maker as you guard" in text]
    assert bool(guarded) == (made_apart.major < 16)
    assert made_apart.execute("select 1 from pg_roles where rolname like 'airlock_s_%'") == []


def test_command_takes_the_provisioner_from_the_policy(
    made_apart: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command(made_apart, tmp_path, monkeypatch)
    text = (tmp_path / "policies" / "policy.yaml").read_text()
    text = text.replace("roles:", 'provisioner: "file:doc_maker"\n    roles:', 1).replace(
        "read: {credential", "read: {identity: ephemeral, credential"
    )
    (tmp_path / "policies" / "policy.yaml").write_text(text)
    status, output = run("doctor", "prod-db", "--role", "read")
    assert status == 1
    assert "`file:doc_maker`: there is no such file" in output
    (tmp_path / "secrets" / "doc_maker").write_text("doc_maker:doc_maker-password\n")
    status, output = run("doctor", "prod-db", "--role", "read")
    assert status == 0, output
    assert "verified gone, and its role dropped" in output


HARM_APART = [
    ("alter role doc_maker nocreaterole", "doc_maker cannot make the roles of sessions"),
    ("alter role doc_maker noinherit", "doc_maker could not end the sessions whose roles it makes"),
    ("alter role doc_maker superuser", "doc_maker is a superuser, where making roles is enough"),
    ("revoke doc_read from doc_maker", "doc_maker cannot give the rights of doc_read"),
    (f"create role {LEFT} login valid until '2020-01-01'", f"{LEFT} was made for a session that is over"),
    (f"create role {LEFT}; grant create on schema ward to {LEFT}", "and owns something: it was disabled"),
]


async def test_what_keeps_sessions_from_roles_of_their_own_is_found_and_mended(
    made_apart: Server, subtests: pytest.Subtests
) -> None:
    for harm, words in HARM_APART:
        with subtests.test(harm):
            if harm.startswith("revoke") and made_apart.major < 16:
                pytest.skip("before 16 who makes roles needs no more")
            made_apart.execute(harm, "clinic")
            wrong = [one for one in await apart(made_apart) if one.grade in (Grade.PROBLEM, Grade.WARNING)]
            assert any(words in one.text for one in wrong), said(wrong)
            for one in wrong:
                for line in one.mend:
                    made_apart.execute(line, "clinic")
            assert said(await apart(made_apart)) == []


async def test_owner_of_a_table_is_told(provisioned: Server) -> None:
    provisioned.execute("alter table people owner to doc_read", "clinic")
    texts = said(await examined(provisioned))
    assert "doc_read owns table public.people, so it can change and grant them" in texts


async def test_role_that_may_change_what_policy_lets_it_is_told_where_it_cannot(provisioned: Server) -> None:
    provisioned.execute("revoke insert, update, delete on people from doc_write", "clinic")
    texts = said(await examined(provisioned, "write"))
    assert texts == ["the policy lets the role change public.people, and doc_write may not"]


async def test_names_of_the_policy_that_are_not_there_are_told(provisioned: Server) -> None:
    text = POLICY.replace("public.people, ", "public.peopel, ", 1).replace("masks: {ssn: hide}", "masks: {snn: hide}")
    found = await examined(provisioned, policy=read(text))
    texts = said(found)
    assert "public.peopel does not exist" in texts
    assert "fields `people-fields`: public.people has no snn" in texts
    assert "nobody has classified ssn of public.people: masked until somebody does" in said(found, Grade.NOTE)


async def test_missing_schema_is_told_and_a_view_is_a_relation_like_others(provisioned: Server) -> None:
    provisioned.execute("create view shown as select id from people", "clinic")
    provisioned.execute("grant select on shown to doc_read", "clinic")
    text = POLICY.replace("[public.people,", "[public.shown, nowhere.*, public.people,", 1)
    texts = said(await examined(provisioned, policy=read(text)))
    assert texts == ["the schema nowhere has no relations, or does not exist"]


async def test_masks_and_searches_that_a_type_has_nothing_for_are_told(provisioned: Server) -> None:
    provisioned.execute("create schema ext", "clinic")
    provisioned.execute("create extension hstore schema ext", "clinic")
    provisioned.execute("create extension citext schema ext", "clinic")
    provisioned.execute("alter table people add attrs ext.hstore, add born date, add email ext.citext", "clinic")
    masks = (
        "{ssn: {mask: partial, search: equality}, attrs: {mask: keys, show: [city]}, "
        "born: {mask: fixed, value: soon}, email: {mask: partial, search: equality}}"
    )
    text = POLICY.replace("masks: {ssn: hide}", f"masks: {masks}")
    found = await examined(provisioned, policy=read(text))
    assert said(found) == [
        "doc_read may not use the schema ext, which has types of masked fields of public.people",
        "fields `people-fields`: `keys` shows nothing of public.people.attrs, which is ext.hstore: it is hidden",
        "fields `people-fields`: `fixed` shows nothing of public.people.born, which is date: it is hidden",
    ]
    (mend,) = next(one.mend for one in found if "schema ext" in one.text)
    provisioned.execute(mend, "clinic")
    text = POLICY.replace(
        "masks: {ssn: hide}",
        "masks: {ssn: hide, email: {mask: 'null', search: equality}, "
        "attrs: {mask: hide, search: equality}, born: {mask: partial, search: equality}}",
    )
    assert said(await examined(provisioned, policy=read(text))) == [
        "fields `people-fields`: no search finds anything in public.people.attrs, which is ext.hstore",
        "fields `people-fields`: `partial` shows nothing of public.people.born, which is date: it is hidden",
    ]


async def test_rule_that_shows_what_is_made_of_masked_fields_is_told(provisioned: Server) -> None:
    provisioned.execute("alter table people add loud text generated always as (upper(ssn)) stored", "clinic")
    provisioned.execute("create view shown as select id, left(ssn, 3) as area, name from people", "clinic")
    provisioned.execute("grant select on shown to doc_read", "clinic")
    text = POLICY.replace("[public.people,", "[public.shown, public.people,", 1).replace(
        "[id, name]", "[id, name, loud]"
    )
    text += "  - {id: areas, resource: prod-db, relation: public.shown, clear: [id, name, area]}\n"
    assert said(await examined(provisioned, policy=read(text))) == [
        "fields `people-fields` shows public.people.loud, although it is generated from public.people.ssn",
        "fields `areas` shows public.shown.area, although it is by lineage from public.people.ssn",
    ]


async def test_server_that_stores_md5_logs_statements_and_counts_no_rows_is_told(provisioned: Server) -> None:
    provisioned.execute("alter role doc_read set password_encryption = 'md5'")
    provisioned.execute("alter role doc_read set track_counts = off")
    provisioned.execute("alter role doc_read set log_statement = 'all'")
    found = await examined(provisioned)
    assert "new passwords are stored as md5, with which no session opens" in said(found)
    assert any(text.endswith("so a change with a row bound is refused") for text in said(found))
    assert any("log_statement all" in text for text in said(found, Grade.NOTE))


@pytest.mark.parametrize(
    ("change", "words", "mend"),
    [
        ({"password": "wrong"}, "password authentication failed", "put the right `user:password` where"),
        ({"port": 1}, "cannot be used", "check host, port and database"),
        ({"database": "nowhere"}, "does not exist", "check host, port and database"),
        ({"tls": "verify-full"}, "cannot be used", "the server speaks no TLS"),
    ],
)
async def test_what_cannot_be_reached_is_a_finding(
    provisioned: Server, change: dict[str, Any], words: str, mend: str
) -> None:
    end = endpoint(provisioned, "doc_read", **{"dbname": "clinic", **change})
    found = await OFFER.examine(read(), "prod-db", "read", end)
    (last,) = [one for one in found if one.grade is Grade.PROBLEM]
    assert words in last.text
    assert any(mend in line for line in last.mend)
    assert f"doc_read at {end.host}:{end.port}, database {end.database}, cannot be used: " in last.text


async def test_transport_is_judged_by_where_it_leads(provisioned: Server) -> None:
    assert "the connection is not encrypted; it does not leave this machine" in said(
        await examined(provisioned), Grade.NOTE
    )
    unreachable = endpoint(provisioned, "doc_read", "clinic", host="192.0.2.1", port=1)
    found = await OFFER.examine(read(), "prod-db", "read", unreachable)
    assert said(found, Grade.PROBLEM)[0] == "the connection to 192.0.2.1 is not encrypted, and it leaves this machine"


async def test_session_that_cannot_be_ended_is_told(provisioned: Server) -> None:
    functions = "pg_terminate_backend(int, bigint)" if provisioned.major >= 14 else "pg_terminate_backend(int)"
    provisioned.execute(f"revoke execute on function {functions} from public", "clinic")
    try:
        found = await examined(provisioned)
        problems = said(found, Grade.PROBLEM)
        assert any("cannot be ended" in text or "cannot be used" in text for text in problems), problems
    finally:
        provisioned.execute(f"grant execute on function {functions} to public", "clinic")


def test_command_prints_findings_and_fails_where_something_is_wrong(
    provisioned: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command(provisioned, tmp_path, monkeypatch)
    status, output = run("doctor", "prod-db")
    assert status == 0, output
    assert "read on prod-db" in output
    assert "can do nothing beside its tables" in output
    provisioned.execute("grant pg_read_all_stats to doc_write", "clinic")
    status, output = run("doctor", "prod-db", "--role", "write")
    assert status == 1
    assert "revoke pg_read_all_stats from doc_write;" in output
    assert "read on prod-db" not in output
    status, output = run("doctor", "prod-dv")
    assert status == 1
    assert output.strip() == (
        "error    the policy has no resource `prod-dv`: it has prod-db; another folder is named with --policies"
    )
    status, output = run("provision", "prod-db", "--print")
    assert status == 0
    assert "create role doc_read login nosuperuser" in output
    assert "no further right is needed" in output
    assert run("provision", "prod-db")[0] == 2
    (tmp_path / "policies" / "policy.yaml").write_text(EPHEMERAL)
    _, output = run("provision", "prod-db", "--print", "--role", "read")
    assert "grant airlock_prod_db_read to airlock_prod_db_provisioner with admin true, inherit false" in output
    assert "create role airlock_prod_db_write" not in output
    assert "no further right is needed" not in output
    _, output = run("provision", "prod-db", "--print", "--server", "15")
    assert "with admin true" not in output
    assert "guard airlock_prod_db_provisioner as you guard the server's superuser" in output
    assert "password'" not in output
    assert "doc_read-password" not in output
