"""What extensions that are known bring, under masks: their types, and functions that compute, reach, or are
somebody else's of the same name; two databases that differ in masked values must look the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from broker.sql.catalogue import Catalogue, allowed_functions
from broker.sql.contrib import REACHING, computing, computing_names
from broker.sql.inspect import inspect
from broker.sql.model import Refusal, Terms
from policies.engine.decisions import FieldView, Mask, MaskKind, RelationFields
from tests.support.catalogue import load_catalogue, read_catalogue
from tests.support.postgres import Server

HERE = "ext"
"""Where the extensions are: in no path's first schema, so that names are told apart by what they are."""
SETUP = """
    set search_path = public, ext;
    create domain mailbox as citext check (value ~ '@');
    create domain handle as citext;
    create type contact as (mail citext, attrs hstore);
    create table people (
        id int primary key, name text, ssn text, email citext unique, box mailbox, nick handle, mails citext[],
        attrs hstore, maps hstore[], path ltree, paths ltree[], book isbn, near cube, place earth, span seg,
        asked lquery, wanted query_int, who contact, whos contact[], tags int[]);
    insert into people select g, 'name' || g, h || '-0000', h || '@mail.org', 'a' || h || '@mail.org', h || 'abcd',
        array[h, 'x'], hstore('ssn', h), array[hstore('k', h)], h::ltree, array[h::ltree], b::isbn,
        cube(n), ll_to_earth(n % 80, n % 90), n::text::seg, h::lquery, n::text::query_int,
        row(h::citext, hstore('a', h))::contact, array[row(h::citext, hstore('a', h))::contact], array[n, g]
    from (select g, left(md5(concat({seed}, g)), 8) as h, 100 + ({seed} * 7919 + g * 104729) % 900 as n,
                 (array['0-393-04002-X', '0-14-044913-2', '0-306-40615-2'])[1 + (g + {seed}) % 3] as b
          from generate_series(1, 9) g) made;
    create index on people using gin (attrs);
    create index on people using gist (path);
    create index on people using gin (ssn gin_trgm_ops);
    create table notes (
        id int primary key, body text, email citext, box mailbox, attrs hstore, path ltree, tags int[], near cube,
        at point, mails citext[]);
    insert into notes select g, 'note number ' || g, 'User' || g || '@Example.com', 'u' || g || '@x.org',
        hstore(array['color', 'red', 'n', g::text]), ('top.sub.n' || g)::ltree, array[g, g + 1], cube(array[g, 2]),
        point(g, 2), array['A', 'b'] from generate_series(1, 9) g;
    create view of_notes as select id, attrs -> 'color' as color, similarity(body, 'note') as alike, max(email) as email
        from notes where email = 'user1@example.com' group by 1, 2, 3;
    create table docs (id int primary key, words text);
    grant usage on schema ext to app;
    grant select on all tables in schema public to app;
"""
HONEST = """
    select max(id), min(body), max(email), min(email), sum(id), avg(id) from notes
    select replace(body, 'note', 'x'), split_part(body, ' ', 1), strpos(body, 'n'), translate(body, 'n', 'm') from notes
    select regexp_replace(body, 'n', 'm'), regexp_match(body, 'n.'), regexp_split_to_array(email, '@') from notes
    select id from notes where email = 'USER1@example.com' or email like 'user2%' or box = 'U3@X.ORG' order by id
    select attrs -> 'color', attrs ? 'n', attrs || 'a=>b', akeys(attrs), hstore_to_json(attrs) from notes order by id
    select (each(attrs)).key, skeys(attrs) from notes order by 1, 2
    select hstore(n) -> 'body', (n #= 'body=>x').body from notes n order by id
    select id, body <-> 'note 1', similarity(body, 'note 1') from notes where body % 'note number' order by 2, 1
    select id from notes where path <@ 'top.sub' and path ~ '*.n1' and nlevel(path) = 3 and path @ 'top'
    select tags && array[1], sort(tags), icount(tags), tags @@ '1 & 2'::query_int from notes order by id
    select near <-> '(1,2)'::cube, cube_dim(near), at <@> point(1, 2) from notes order by id
    select levenshtein('a', 'b'), soundex('a'), metaphone('a', 3), unaccent('Hôtel'), is_valid('0-393-04002-X'::isbn)
    select 'a=>1'::hstore, 'x'::citext, 'a.b'::ltree, 'x@y'::mailbox, 'Y'::handle
    select mails @> array['a']::citext[] from notes order by id
    select * from of_notes
    select count(*) from normal_rand(3, 0, 1)
"""
PGCRYPTO = """
    select digest('a', 'sha256'), encode(hmac('a', 'k', 'sha1'), 'hex'), crypt('a', 'ab'), armor('a')
    select gen_random_uuid() is null, gen_salt('bf', 4) is null, gen_random_bytes(3) is null
    select uuid_generate_v4() is null, uuid_generate_v1() is null, uuid_generate_v5(uuid_ns_url(), 'a')
"""
REACH = """
    select * from crosstab('select id::text, name, ssn from people order by 1') as c (row text, a text)
    select * from crosstab('select id::text, name, ssn from people', 'select name from people') as c (row text, a text)
    select * from crosstab2('select id::text, name, ssn from people order by 1')
    select * from ext.connectby('people', 'ssn', 'name', 'a', 1) as c (a text, b text, level int)
    select * from dblink('dbname=none', 'select ssn from people') as c (a text)
    select dblink_exec('dbname=none', 'delete from people')
    select get_raw_page('people', 0)
    insert into notes (id, body) select 99, category_1 from crosstab2('select id::text, name, ssn from people')
    copy (select * from crosstab2('select id::text, name, ssn from people order by 1')) to stdout
    prepare p as select * from crosstab2('select id::text, name, ssn from people order by 1')
    explain select * from crosstab2('select id::text, name, ssn from people order by 1')
"""
ORACLES = """
    select id from people where email = 'a' or email > 'm' or email like '%a%' order by email, id
    select ssn % '1', ssn <-> 'a', similarity(ssn, '5'), show_trgm(ssn), levenshtein(ssn, 'a') from people order by id
    select id from people order by ssn <-> 'a', email <-> 'b', path, book, near, span, nick, id
    select id from people where attrs ? 'x' or attrs @> 'ssn=>1' or attrs -> 'ssn' > '8' order by id
    select id from people where path <@ 'a' or path ~ '1*|2*|3*|4*' or path @ 'a*' or nlevel(path) > 1 order by id
    select id from people where tags && array[500] or tags @@ '500'::query_int or tags[1] > 500 order by id
    select id from people where near && '(0),(500)' or near <-> '(0)'::cube < 300 or span << '500'::seg order by id
    select hstore(p), p #= 'name=>x', hstore(p.*) -> 'email', akeys(hstore(p)) from people p order by id
    select each(hstore(p)), p::text from people p order by id
    select (who).mail, (whos[1]).attrs, maps[1], mails[1], array_to_string(mails, ',') from people order by id
    select max(email), min(email), max(nick), array_agg(email order by email), count(distinct book) from people
    select lca(array_agg(path || 'x')), array_agg(book order by id), min(mails[1]) from people
    select n.id from notes n join people p on p.email < to_hex(n.id)::citext or p.path > n.path order by 1
    select id, rank() over (order by email, path, book, near) from people order by id
    select ssn::citext, email::text, attrs::jsonb, path::text, book::ean13, near::text from people order by id
    select citext_hash(email), hstore_hash(attrs), citextsend(email), hstore_send(attrs) from people order by id
    select unaccent(ssn), soundex(email::text), ts_lexize('unaccent', ssn) from people order by id
    explain (costs off) select id from people where attrs ? 'ssn' and path <@ 'a' and ssn % 'a'
    copy people to stdout
    select email from people union select body::citext from notes order by 1
"""
FIELDS: FieldView = {
    "public.people": RelationFields(
        clear=frozenset({"id", "name"}),
        masks={name: Mask(MaskKind.PARTIAL, tail=4) for name in ("ssn", "email", "box", "nick")},
    )
}


@dataclass(frozen=True)
class Side:
    """One of the two databases, as its reader sees it."""

    catalogue: Catalogue
    reader: psycopg.Connection[Any]
    owner: psycopg.Connection[Any]

    def run(self, sql: str, fields: FieldView = FIELDS) -> object:
        """What a reader gets: a refusal's rule, rows, or an error."""
        try:
            found = inspect(sql, self.catalogue, fields)
        except Refusal as refusal:
            return "refused", refusal.rule
        (statement,) = found.statements
        calls = [str(call) for call in statement.facts.calls if not call.computes]
        if calls or statement.refusal:
            return "denied", calls
        return _rows(self.reader, found.rewritten, shown=not found.scrub)


def _rows(connection: psycopg.Connection[Any], sql: str, *, shown: bool = True) -> object:
    cursor = connection.cursor()
    try:
        if sql.lower().startswith("copy"):
            with cursor.copy(sql.encode()) as copy:
                return [bytes(chunk) for chunk in copy]
        return cursor.execute(sql.encode()).fetchall()
    except psycopg.Error as error:
        return "error", error.sqlstate, error.diag.message_primary if shown else ""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def installed(connection: psycopg.Connection[Any], *names: str) -> set[str]:
    """Install those of some extensions that the server has."""
    there = {row[0] for row in connection.execute("select name from pg_available_extensions").fetchall()}
    for name in names:
        if name in there:
            connection.execute(f'create extension if not exists "{name}" schema {HERE}'.encode())
    return there & set(names)


@pytest.fixture(scope="module")
def sides(postgres: Server) -> Iterator[tuple[Side, Side]]:
    if "app" not in postgres.passwords:
        postgres.create_role("app", "app-password")
    made = []
    for seed, name in ((1, "left_contrib"), (2, "right_contrib")):
        postgres.create_database(name)
        owner = postgres.connect(name)
        owner.execute(f"create schema {HERE}".encode())
        there = installed(owner, "cube", *sorted({one.partition(".")[0] for one in computing()} - {"cube"}), *REACHING)
        owner.execute(SETUP.replace("{seed}", str(seed)).encode())
        if "vector" in there:
            owner.execute("alter table people add near_to vector(2), add half halfvec(2)")
            owner.execute("update people set near_to = array[tags[1], 2], half = array[tags[1] % 9, 2]")
        pins = f"-c search_path=public,{HERE},pg_temp -c max_parallel_workers_per_gather=0"
        made.append(
            Side(load_catalogue(postgres, name, ("public", HERE)), postgres.connect(name, "app", options=pins), owner)
        )
    yield made[0], made[1]
    for side in made:
        side.reader.close()
        side.owner.close()


def test_what_extensions_bring_to_compute_with_needs_no_rule(
    sides: tuple[Side, Side], subtests: pytest.Subtests
) -> None:
    has = sides[0].catalogue.functions
    for text in lines(HONEST) + (lines(PGCRYPTO) if {(HERE, "crypt"), (HERE, "uuid_nil")} <= has else []):
        with subtests.test(text):
            got = sides[0].run(text)
            assert isinstance(got, list), got
            assert "rand" in text or "v4" in text or got == _rows(sides[0].reader, text)


def test_what_reaches_by_a_text_is_refused_where_anything_is_masked(
    sides: tuple[Side, Side], subtests: pytest.Subtests
) -> None:
    for text in lines(REACH):
        with subtests.test(text):
            assert sides[0].run(text) == ("refused", "function-reaches")
    with subtests.test("where nothing is, it is named by a rule that lets it change data"):
        found = inspect(lines(REACH)[0], sides[0].catalogue, {}, terms=Terms(covers=("*.*",)))
        assert found.statements[0].facts.calls
        assert all(call.acting and call.native and not call.computes for call in found.statements[0].facts.calls)


def test_code_that_reaches_does_so_under_any_name(sides: tuple[Side, Side], postgres: Server) -> None:
    owner = postgres.connect("left_contrib")
    try:
        owner.execute(
            "create function three(text) returns setof ext.tablefunc_crosstab_3 stable strict language c "
            "as '$libdir/tablefunc', 'crosstab'"
        )
        catalogue = load_catalogue(postgres, "left_contrib", ("public", HERE))
        with pytest.raises(Refusal) as found:
            inspect("select * from three('select id::text, name, ssn from people')", catalogue, FIELDS)
        assert found.value.rule == "function-reaches"
    finally:
        owner.execute("drop function if exists three(text)")
        owner.close()


def test_masked_values_of_their_types_cannot_be_told(sides: tuple[Side, Side], subtests: pytest.Subtests) -> None:
    for text in lines(ORACLES):
        with subtests.test(text):
            left, right = (side.run(text) for side in sides)
            assert left == right
            # It runs, on masked values; the rows themselves would tell.
            assert left[0] not in ("refused", "denied") if isinstance(left, tuple) else True
            plain = [_rows(side.reader, text) for side in sides]
            assert plain[0] != plain[1] or "explain" in text


@pytest.mark.parametrize("field", ["email", "nick"])
def test_a_search_of_citext_finds_a_value_whatever_its_case(sides: tuple[Side, Side], field: str) -> None:
    ((value,),) = sides[0].owner.execute(f"select upper({field}::text) from public.people where id = 4".encode())
    fields = {"public.people": RelationFields(clear=frozenset({"id"}), searches={"email": 10, "nick": 10})}
    for text, found in {
        f"select id, {field} from people where {field} = '{value}'": [(4, "***")],
        f"select p.id from people p join notes n using (id) where '{value}' = p.{field}": [(4,)],
        f"select id from people where {field} = '{value[1:]}'": [],
    }.items():
        asked = inspect(text, sides[0].catalogue, fields)
        assert asked.searches == ((f"public.people.{field}", 10),)
        assert _rows(sides[0].reader, asked.rewritten) == found
    asked = inspect(f"select id from people where {field} = $1", sides[0].catalogue, fields)
    declared = sides[0].reader.execute(f"prepare s as {asked.rewritten}; select 1".encode())
    assert declared.statusmessage == "PREPARE"
    rows = (
        sides[0].reader.execute("select parameter_types::text from pg_prepared_statements where name = 's'").fetchall()
    )
    assert rows == [("{ext.citext}",)] or rows == [("{citext}",)]
    sides[0].reader.execute("deallocate s")
    assert inspect("select id from people where box = 'a@b'", sides[0].catalogue, fields).searches == ()


def test_a_search_of_citext_compares_masked_values_where_its_operator_could_be_another(
    sides: tuple[Side, Side], postgres: Server
) -> None:
    with postgres.connect("left_contrib") as owner:
        owner.execute("create function public.same(ext.ltree, text) returns bool language sql as 'select true'")
        owner.execute("create operator ext.= (leftarg = ext.ltree, rightarg = text, function = public.same)")
        try:
            catalogue = load_catalogue(postgres, "left_contrib", ("public",))
            fields = {"public.people": RelationFields(clear=frozenset({"id"}), searches={"email": 10})}
            assert inspect("select id from people where email = 'a'", catalogue, fields).searches == ()
        finally:
            owner.execute("drop operator ext.= (ext.ltree, text)")
            owner.execute("drop function public.same(ext.ltree, text)")


@pytest.mark.parametrize("kind", MaskKind)
def test_every_mask_of_their_types_decodes(sides: tuple[Side, Side], kind: MaskKind) -> None:
    mask = Mask(kind, 4, "ann@mail.org", ("a",))
    fields = {"public.people": RelationFields(clear=frozenset({"id"}), others=mask)}
    for column in sides[0].catalogue.by_name["public.people"].columns:
        # What has no binary output of its own has none of its mask either.
        old = sides[0].reader.info.server_version < 140000
        without = ("ext.isbn", "ext.seg", "ext.query_int", "ext.cube" if old else "")
        for binary in {False, column.type not in without}:
            cursor = sides[0].reader.cursor(binary=binary)
            text = f"select {column.name} from people"
            rows = cursor.execute(inspect(text, sides[0].catalogue, fields).rewritten.encode()).fetchall()
            plain = sides[0].reader.cursor().execute(f"{text} limit 0".encode())
            types = [[(each.type_code, each._fmod) for each in one.description or []] for one in (cursor, plain)]
            assert len(rows) == 9
            # A domain comes as the type that it is of, whose checks are not run.
            assert types[0] == types[1] or column.name == "place"


def test_functions_are_trusted_as_members_of_their_extension_and_not_by_their_names(
    sides: tuple[Side, Side], postgres: Server
) -> None:
    owner = postgres.connect("left_contrib")
    try:
        for name, statement in {
            "similarity": "create function similarity(text, varchar) returns real stable language sql as 'select 1'",
            "nlevel": "create function nlevel(text) returns int immutable language sql as 'select 1'",
            "max": "create aggregate public.max(ext.hstore) (sfunc = ext.hs_concat, stype = ext.hstore)",
        }.items():
            owner.execute(statement.encode())
            catalogue = load_catalogue(postgres, "left_contrib", ("public", HERE))
            (asked,) = inspect(f"select {name}(body) from notes", catalogue, FIELDS).statements
            assert [call.schema for call in asked.facts.calls if not call.computes] == ["public"]
            assert any(call.schema == HERE for call in asked.facts.calls if call.computes)
    finally:
        owner.execute("drop function if exists similarity(text, varchar), nlevel(text)")
        owner.execute("drop aggregate if exists public.max(ext.hstore)")
        owner.close()


def test_a_type_of_users_with_the_name_of_one_that_is_known_has_masks_of_its_own(sides: tuple[Side, Side]) -> None:
    owner = sides[0].owner
    try:
        owner.execute("create type public.citext as enum ('good', 'bad')")
        owner.execute("create table public.moods (id int, mood public.citext)")
        owner.execute("insert into public.moods values (1, 'good')")
        catalogue = read_catalogue(owner, ("public", HERE))
        for kind in MaskKind:
            fields = {"public.moods": RelationFields(clear=frozenset({"id"}), others=Mask(kind, 4, "x", ("a",)))}
            text = inspect("select * from moods", catalogue, fields).rewritten
            assert owner.execute(text.encode()).fetchall() == [(1, None)]
    finally:
        owner.execute("drop table if exists public.moods")
        owner.execute("drop type if exists public.citext")


def test_no_listed_function_has_the_name_of_a_builtin_one_that_does_more(sides: tuple[Side, Side]) -> None:
    assert not computing_names() & sides[0].catalogue.builtins - allowed_functions()


def test_every_function_of_a_known_extension_is_listed_or_left_out_for_a_reason(sides: tuple[Side, Side]) -> None:
    known = {one.partition(".")[0] for one in computing()}
    rows = (
        sides[0]
        .owner.execute(
            """select distinct e.extname || '.' || p.proname from pg_extension e join pg_depend d on d.refobjid = e.oid
           join pg_proc p on p.oid = d.objid
           where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
                 and e.extname = any(%s) and p.prorettype not in ('internal'::regtype, 'cstring'::regtype)
                 and not (p.proargtypes::oid[] && array['internal'::regtype, 'cstring'::regtype]::oid[])""",
            (sorted(known),),
        )
        .fetchall()
    )
    left = {name for (name,) in rows} - computing()
    of_session = {"pg_trgm.set_limit", "isn.isn_weak", "hstore.populate_record", "hstore.hstore_version_diag"}
    reaching = {f"tablefunc.{name}" for name in REACHING["tablefunc"].split()}
    looking = {one for one in left if one.startswith("earthdistance.")}
    showing = {one for one in left if one.startswith("pgcrypto.") and "decrypt" in one}
    assert left - of_session - reaching - looking - showing - _OF_INDEXES == set()


_OF_INDEXES = {"btree_gist.gist_translate_cmptype_btree"}


TAG = """
    create type tag;
    create function tag_in(cstring) returns tag language internal strict immutable as 'textin';
    create function tag_out(tag) returns cstring language internal strict immutable as 'textout';
    create type tag (input = tag_in, output = tag_out, internallength = variable);
    create function tag_eq(tag, tag) returns boolean language internal strict immutable as 'texteq';
    create operator = (leftarg = tag, rightarg = tag, procedure = tag_eq);
    create function given() returns tag language sql immutable as 'select null::tag';
    create table tagged as select id, 'a'::tag as tag from notes;
    grant select on tagged to app
"""
UNTAGGED = """
    select id, 'a' = 'b' from tagged where id = 1 or id in (select id from notes)
    select t.id, case p.id when 1 then 'x' end, (p.id, name) = (1, name) from tagged t join people p using (id)
    select id from people where ssn = email::text or id = 1
"""
COMPARED = ("select id from tagged where tag = 'a'", "select 'a'::tag = 'b'", "select given() = given()")


def test_an_operator_for_a_type_of_users_stands_in_no_other_ones_way(
    sides: tuple[Side, Side], postgres: Server
) -> None:
    with postgres.connect("left_contrib") as owner:
        owner.execute(TAG.encode())
        side = Side(load_catalogue(postgres, "left_contrib", ("public", HERE)), sides[0].reader, owner)
        for text in lines(UNTAGGED):
            assert isinstance(found := side.run(text), list), (text, found)
            assert found
        for text in COMPARED:
            assert side.run(text) in [("refused", "operator"), ("refused", "type")], text
        # What becomes such a value by itself could mean its operator.
        owner.execute("create cast (text as tag) without function as implicit")
        with pytest.raises(Refusal, match="one of this database's own") as caught:
            inspect("select 1 = 1", load_catalogue(postgres, "left_contrib", ("public", HERE)), FIELDS)
        assert caught.value.hint == "where the server's own is meant, write OPERATOR(pg_catalog.=)"
        owner.execute("drop type tag cascade; drop table tagged")
