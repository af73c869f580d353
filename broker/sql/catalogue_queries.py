"""What the catalogue is made from: the queries that read it.

An adapter runs them under `search_path = pg_catalog`, so that every type of a user's is written qualified.
"""

from __future__ import annotations

import re

from broker.sql.contrib import COMPUTING, HARMLESS_EXTENSIONS, IMPLIED, TRUSTED, coded_in, quoted, reaching
from broker.sql.drift import DRAWERS
from broker.sql.system import CLOSED_COLUMNS, EMPTY, NAMED_ONLY

_TRUSTED = f"""
        trusted as ({TRUSTED})"""

_START = f"""{_TRUSTED},
        {COMPUTING},
        start (oid) as (
            select oid from pg_type where oid >= 16384 and typelem = 0 and typtype in ('b', 'p') and oid not in
                (select objid from trusted where classid = 'pg_type'::regclass)
            union select k.contypid from pg_constraint k join pg_depend d on d.objid = k.oid
                  where k.contypid <> 0 and d.classid = 'pg_constraint'::regclass and d.refobjid >= 16384
                        and (d.refclassid = 'pg_proc'::regclass and d.refobjid not in (table computing)
                             or d.refclassid = 'pg_operator'::regclass and d.refobjid not in
                                (select objid from trusted where classid = 'pg_operator'::regclass))
            union select t.oid from pg_cast k join pg_type t on t.oid in (k.castsource, k.casttarget)
                  where castfunc >= 16384
                        and k.oid not in (select objid from trusted where classid = 'pg_cast'::regclass)
                        -- A range becomes a multirange by the server's own code.
                        and castfunc not in (select oid from pg_proc where oid >= 16384 and prolang = 12
                                             and prosrc like 'multirange_constructor_')
                        -- Between two builtin types it is the target that a statement names.
                        and (t.oid >= 16384 or t.oid = casttarget and castsource < 16384)
            union select rngtypid from pg_range where rngcanonical::oid >= 16384 or rngsubdiff::oid >= 16384)"""
"""Types whose own input, output, checks or casts run code of users'."""

LOOKING = frozenset(
    """
    current_schema current_schemas current_setting has_any_column_privilege has_column_privilege has_function_privilege
    has_sequence_privilege has_table_privilege has_type_privilege pg_collation_is_visible pg_conversion_is_visible
    pg_function_is_visible pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible
    pg_statistics_obj_is_visible pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
    pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible regclass to_regclass to_regcollation to_regoper
    to_regoperator to_regproc to_regprocedure to_regtype to_regtypemod
    """.split()
)
"""Builtin functions whose answer follows the search path."""
LOOKING_WORD = "SQLVALUEFUNCTION :op 14 "
"""How a stored tree has CURRENT_SCHEMA without parentheses."""

_LOOSE = f"""
        {COMPUTING},
        loose (oid) as (
            select p.oid from pg_proc p
            where p.oid >= 16384 and (p.prolang not in (12, 13) or p.prokind = 'a') and p.oid not in (table computing)
                  and not exists (select from unnest(p.proconfig) s where s like 'search_path=%'))"""
"""Functions of users' that look names up in their session's search path; what is written in C is taken not to."""

_PARTS = f"""{_LOOSE},
        part (relation, classid, objid) as (
            select oid, 'pg_class'::regclass, oid from pg_class where relkind in ('r', 'p', 'v', 'm', 'f') and <of oid>
            union all select indrelid, 'pg_class'::regclass, indexrelid from pg_index where <of indrelid>
            union all select adrelid, 'pg_attrdef'::regclass, oid from pg_attrdef where <of adrelid>
            union all select conrelid, 'pg_constraint'::regclass, oid from pg_constraint
                      where conrelid <> 0 and <of conrelid>
            union all select polrelid, 'pg_policy'::regclass, oid from pg_policy where <of polrelid>),
        tied (relation, classid, refclassid, refobjid) as (
            select p.relation, p.classid, d.refclassid, d.refobjid
            from (table part
                  union all select ev_class, 'pg_rewrite'::regclass, oid from pg_rewrite
                            where ev_class >= 16384 and <of ev_class>
                  union all select tgrelid, 'pg_trigger'::regclass, oid from pg_trigger
                            where not tgisinternal and <of tgrelid>) p
                 join pg_depend d using (classid, objid)
            where d.refobjid >= 16384
                  and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)),
        looking (calls) as (
            select concat(':funcid (', string_agg(oid::text, '|'), ') |{{word}}') from pg_proc
            where oid < 16384 and proname in ({{looking}})),
        running (oid) as (
            select tgrelid from pg_trigger, looking
                   where not tgisinternal and <of tgrelid> and (tgfoid in (table loose) or tgqual::text ~ calls)
            -- What calls nothing is not looked through for names.
            union select adrelid from pg_attrdef, looking
                  where <of adrelid> and adbin::text like any (array['%:funcid %', '%{{word}}%'])
                        and adbin::text ~ calls
            union select conrelid from pg_constraint, looking
                  where conrelid <> 0 and <of conrelid> and conbin::text like any (array['%:funcid %', '%{{word}}%'])
                        and conbin::text ~ calls
            union select p.relation from tied p
                  left join pg_operator o on p.refclassid = 'pg_operator'::regclass and o.oid = p.refobjid
                  left join pg_type t on p.refclassid = 'pg_type'::regclass and t.oid = p.refobjid
                  where p.classid not in ('pg_rewrite'::regclass, 'pg_trigger'::regclass) and (
                      p.refclassid = 'pg_proc'::regclass and p.refobjid in (table loose)
                      or o.oprcode::oid in (table loose) or t.typtype = 'd' and p.classid <> 'pg_class'::regclass)),
        said (oid, what) as (
            select t.tgrelid, concat('trigger ', t.oid, ' ', t.xmin, ' ', p.xmin)
            from pg_trigger t join pg_proc p on p.oid = t.tgfoid where not t.tgisinternal and <of t.tgrelid>
            union all select ev_class, concat('rule ', oid, ' ', xmin) from pg_rewrite
                      where ev_class >= 16384 and <of ev_class>
            union all select ev_class, 'rules' from pg_rewrite where rulename <> '_RETURN' and <of ev_class>
            union all select conrelid, concat('key ', oid, ' ', xmin) from pg_constraint
                      where conrelid <> 0 and <of conrelid>
            union all select confrelid, concat('referrer ', oid, ' ', xmin) from pg_constraint
                      where confrelid <> 0 and <of confrelid>
            union all select adrelid, concat('default ', oid, ' ', xmin) from pg_attrdef where <of adrelid>
            union all select polrelid, concat('policy ', oid, ' ', xmin) from pg_policy where <of polrelid>
            union all select indrelid, concat('unique ', indexrelid, ' ', indisvalid) from pg_index
                      where indisunique and <of indrelid>
            -- What these call, and what the types of columns are: rows of tables are looked at by themselves.
            union all select p.relation, concat('code ', f.oid, ' ', f.xmin)
            from tied p left join pg_operator o on p.refclassid = 'pg_operator'::regclass and o.oid = p.refobjid
                 join pg_proc f on f.oid = case when p.refclassid = 'pg_proc'::regclass then p.refobjid
                                                else o.oprcode::oid end
            union all select a.attrelid, concat('type ', t.oid, ' ', t.xmin, ' ',
                (select string_agg(concat(e.oid, e.enumlabel), ' ' order by e.oid) from pg_enum e
                 where e.enumtypid = t.oid),
                (select string_agg(concat(k.oid, ' ', k.xmin), ' ' order by k.oid) from pg_constraint k
                 where k.contypid = t.oid),
                (select string_agg(concat(k.attnum, k.attname, ' ', k.atttypid), ' ' order by k.attnum)
                 from pg_attribute k where k.attrelid = t.typrelid and k.attnum > 0))
            from pg_attribute a join pg_type c on c.oid = a.atttypid
                 join pg_type t on t.oid in (c.oid, c.typelem, c.typbasetype)
            where a.atttypid >= 16384 and t.oid >= 16384 and a.attnum > 0 and not a.attisdropped and <of a.attrelid>
                  and not exists (select from pg_type e join pg_class k on k.oid = e.typrelid
                                  where e.oid in (t.oid, t.typelem) and k.relkind <> 'c')
            union all select inhrelid, concat('parent ', inhparent) from pg_inherits where <of inhrelid>
            union all select oid, 'running' from running
            -- Columns of its primary key, by number; by name where the columns are not read.
            union all select indrelid, concat('primary ', array_to_string(indkey::int2[], ' ')) from pg_index
                      where indisprimary and indimmediate and <of indrelid>
            union all select x.indrelid, concat('identified ', a.attname) from pg_index x
                      join pg_attribute a on a.attrelid = x.indrelid and a.attnum = any (x.indkey)
                      where x.indrelid < 16384 and x.indisprimary and x.indimmediate and <of x.indrelid>
            -- By how many columns it is ordered (below 0: it is of some rows), every column that it has (0 is an
            -- expression), and its name.
            union all select x.indrelid, concat_ws(
                ' ', 'index', case when x.indpred is null then x.indnkeyatts else -x.indnkeyatts end,
                array_to_string(x.indkey::int2[], ' '), '"' || i.relname)
            from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid >= 16384 and <of x.indrelid>
            -- What plans show of its indexes: conditions with literals, behind the columns in them, and expressions.
            union all select indrelid, concat_ws(
                ' ', 'literal', (select string_agg(distinct m[1], ',')
                                 from regexp_matches(indpred::text, ':varattno ([0-9]+)', 'g') m),
                pg_get_expr(indpred, indrelid))
            from pg_index where indrelid >= 16384 and <of indrelid>
                                and indpred::text like all (array['%{{CONST %', '%:varattno %'])
            union all select indrelid, 'literal 0' from pg_index
                      where indrelid >= 16384 and indexprs::text like '%{{CONST %' and <of indrelid>
            -- Whose rows follow a change of its own, how, by which of its columns, and in which of theirs.
            union all select confrelid, concat_ws(' ', 'follower', oid, conrelid, confdeltype, confupdtype,
                                                  array_to_string(confkey, ','), array_to_string(conkey, ','))
            from pg_constraint where contype = 'f' and <of confrelid>
            union all select r.ev_class, concat('reads ', d.refobjid)
            from pg_rewrite r join pg_depend d on d.objid = r.oid
            where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                  and r.ev_class >= 16384 and d.refobjid >= 16384 and <of r.ev_class>)"""
"""What there is about each relation, as texts.

`running` is said of one of which a change may run code that looks names up: in a trigger, default, check, index or
policy.
"""

CALLS = ":(?:funcid|aggfnoid|winfnoid|tsmhandler) ([0-9]+)"
"""Where a stored tree names the functions that it calls."""

_COLUMNS = """
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace r on r.oid = c.relnamespace
        where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f') and <of a.attrelid>
              and (r.nspname !~ '^pg_(toast|temp)' and r.nspname not in ('pg_catalog', 'information_schema')
                   or r.nspname || '.' || c.relname in ({closed}))"""

QUERIES: dict[str, str] = {
    "encoding": "select current_setting('server_encoding') = 'UTF8' as utf8, current_database()::text as name",
    "relations": """
        select c.oid::int8 as oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
               c.relrowsecurity as row_security,
               (select p.partattrs::int2[]::int4[] from pg_partitioned_table p
                where p.partrelid = c.oid) as partition_key,
               -- A name without its schema is never looked up in a schema that the role may not use.
               has_schema_privilege(n.oid, 'usage') as usable,
               -- The type of its rows, and that of arrays of them.
               c.reltype::int8 as row_type, a.oid::int8 as array_type, a.typname::text as array_name,
               -- The column that a sequence is for: its table and number, and whether another one has it by default.
               (select array[d.refobjid::int8, d.refobjsubid,
                             exists (select from pg_depend o join pg_attrdef f on f.oid = o.objid
                                     where o.classid = 'pg_attrdef'::regclass and o.refclassid = 'pg_class'::regclass
                                           and o.refobjid = c.oid
                                           and (f.adrelid, f.adnum) <> (d.refobjid, d.refobjsubid))::int]
                from pg_depend d
                where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = 0
                      and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
                order by d.refobjid, d.refobjsubid limit 1) as owner
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
             left join pg_type r on r.oid = c.reltype and r.oid >= 16384 left join pg_type a on a.oid = r.typarray
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_(toast|temp)' and <of c.oid>
        order by 1""",
    "parts": f"""
        with {_PARTS}
        select oid::int8 as oid, array_agg(what order by what) as parts from said group by 1 order by 1""",
    "columns": f"""
        select a.attrelid::int8 as oid,
               -- Number, type, modifier and name of each, in a line of its own.
               string_agg(concat_ws(' ', a.attnum, a.atttypid, a.atttypmod,
                                    replace(replace(a.attname::text, chr(92), chr(92) || chr(92)),
                                            chr(10), chr(92) || 'n')),
                          chr(10) order by a.attnum) as columns
        {_COLUMNS} group by 1 order by 1""",
    "kinds": f"""
        with recursive base (oid, type, typmod) as (
            select oid, typbasetype, typtypmod from pg_type where typtype = 'd'
            union all select b.oid, t.typbasetype, t.typtypmod from base b join pg_type t on t.oid = b.type
                      where t.typtype = 'd')
        select a.atttypid::int8 as oid, a.atttypmod::int4 as typmod,
               format_type(a.atttypid, a.atttypmod) as type, t.typname::text as typname, n.nspname::text as typschema,
               t.typcategory::text as category, format_type(b.type, b.typmod) as base,
               coalesce(b.type, 0)::int8 as base_type
        from (select distinct a.atttypid, a.atttypmod {_COLUMNS} {{known}}) a
             left join base b on b.oid = a.atttypid
                  and not exists (select from pg_type d where d.oid = b.type and d.typtype = 'd')
             join pg_type t on t.oid = coalesce(b.type, a.atttypid) join pg_namespace n on n.oid = t.typnamespace
        order by 1, 2""",
    "functions": """
        select n.nspname::text as schema, p.proname::text as name,
               coalesce(bool_or(p.pronargs - p.pronargdefaults <= 1 and (p.pronargs > 0)), false) as single,
               coalesce(bool_or(t.typtype = 'p'), false) as loose
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace left join pg_type t on t.oid = p.proargtypes[0]
        where p.oid >= 16384 group by 1, 2 order by 1, 2""",
    "overloads": f"""
        with {_LOOSE},
        {IMPLIED}
        select n.nspname::text as schema, p.proname::text as name,
               array(select format_type(u.t, null) from unnest(p.proargtypes) with ordinality u (t, i) order by u.i)
                   as arguments,
               b.reaches or not b.computes and (p.provolatile = 'v' or p.prosecdef
                   or exists (select from pg_aggregate a join pg_proc t on t.oid in (a.aggtransfn, a.aggfinalfn,
                                  a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn,
                                  a.aggmfinalfn)
                              where a.aggfnoid = p.oid and (t.provolatile = 'v' or t.prosecdef))) as acting,
               b.reaches or not (l.lanpltrusted or b.harmless or l.lanname = 'internal'
                                 and p.prosrc ~ '^(multi)?range_constructor[0-3]$') as native, b.reaches, b.computes,
               coalesce(r.typrelid, 0)::int8 as returns,
               exists (select from pg_proc b where b.oid < 16384 and b.proname = p.proname) as builtin,
               p.oid in (table loose) as follows,
               (l.lanname = 'sql' or p.pronargdefaults > 0) and not b.computes as planned, p.xmin::text as made,
               p.oid in (select oid from implied where not assigning) as implied
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
             left join pg_type r on r.oid = p.prorettype
             cross join lateral (select regexp_replace(p.probin, '^.*/|[.][a-z]+$', '', 'g') as library) s
             cross join lateral (
                 select coalesce(bool_or(e.extname in ({{harmless}})), false) as harmless,
                        p.oid in (table computing) as computes,
                        l.lanname = 'c' and (s.library || '.' || p.prosrc in ({{libraries}})
                                             or s.library || '.' in ({{libraries}}))
                        or coalesce(bool_or(e.extname || '.' || p.proname in ({{reaching}})
                                            or e.extname || '.*' in ({{reaching}})), false) as reaches
                 from pg_depend d join pg_extension e on e.oid = d.refobjid
                 where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
                       and d.refclassid = 'pg_extension'::regclass) b
        where p.oid >= 16384 order by 1, 2, 3""",
    "attributes": """
        select distinct p.proname::text as name from pg_proc p
        where p.oid < 16384 and p.pronargs > 0 and p.pronargs - p.pronargdefaults <= 1 and p.prorettype <> 2279
        order by 1""",
    "builtins": "select distinct proname::text as name from pg_proc where oid < 16384 order by 1",
    "operators": f"""
        with {_TRUSTED},
        -- Base types that no value becomes by itself; a superuser made them, and what C code compares them.
        apart (oid) as (
            select oid from pg_type t
            where oid >= 16384 and typtype = 'b' and typelem = 0 and typcategory = 'U' and not exists
                (select from pg_cast where casttarget = t.oid and castcontext = 'i' and castsource < 16384))
        select n.nspname::text as schema, o.oprname::text as name,
               -- Where a name is texts' too, constants alone do not mean one of these.
               bool_and(p.prolang in (12, 13) and not p.prosecdef
                        and o.oprleft in (table apart) and o.oprright in (table apart) and exists
                   (select from pg_operator b where b.oid < 16384 and b.oprname = o.oprname
                                                    and b.oprleft = 25 and b.oprright = 25)) as apart
        from pg_operator o join pg_namespace n on n.oid = o.oprnamespace left join pg_proc p on p.oid = o.oprcode
        where o.oid >= 16384 and o.oid not in (select objid from trusted where classid = 'pg_operator'::regclass)
        group by 1, 2
        -- Operator classes too: their names are words, so that neither is taken for the other.
        union
        select n.nspname::text, c.opcname::text, false from pg_opclass c join pg_namespace n on n.oid = c.opcnamespace
        where c.oid >= 16384 and c.oid not in (select objid from trusted where classid = 'pg_opclass'::regclass)
        order by 1, 2""",
    "views": f"""
        with {_TRUSTED},
        {COMPUTING}
        select r.ev_class::int8 as oid, r.xmin::text as stamp, r.ev_action::text as tree,
               array(select distinct p.oid::int8 || ' ' || p.proname from pg_proc p
                     where p.oid < 16384 and p.oid in
                         (select m[1]::oid from regexp_matches(r.ev_action::text, '{CALLS}', 'g') m)
                     order by 1) as builtins,
               exists (select from pg_proc p where p.provolatile = 'v' and p.oid in
                           (select m[1]::oid from regexp_matches(r.ev_action::text, '{CALLS}', 'g') m)) as volatile,
               array(select distinct array[n.nspname, p.proname]::text[] from pg_depend d
                     join pg_proc p on p.oid = d.refobjid join pg_namespace n on n.oid = p.pronamespace
                     where d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid >= 16384
                           and d.refclassid = 'pg_proc'::regclass order by 1) as called,
               array(select distinct coalesce(p.proname, o.oprname)::text from pg_depend d
                     left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
                          and p.oid not in (table computing)
                     left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
                          and o.oid not in (select objid from trusted where classid = 'pg_operator'::regclass)
                     where d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid >= 16384
                           and coalesce(p.oid, o.oid) is not null order by 1) as defined,
               array(select distinct d.refobjid::int8 from pg_depend d
                     where d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid >= 16384
                           and d.refclassid = 'pg_type'::regclass order by 1) as types
        from pg_rewrite r where r.rulename = '_RETURN' and r.ev_class >= 16384 and <of r.ev_class> order by 1""",
    "generated": """
        select d.adrelid::int8 as oid,
               -- Its number, whether it is computed where it is read, and of what.
               array_agg(concat_ws(' ', d.adnum, a.attgenerated = 'v', d.adbin) order by d.adnum) as trees
        from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where a.attgenerated <> '' and <of d.adrelid> group by 1 order by 1""",
    "types": f"""
        with {_START}
        select t.oid::int8 as oid, n.nspname::text as schema, t.typname::text as name, t.typtype::text as kind,
               t.oid in (table start) as coded,
               -- The types that it is made of.
               array(select distinct p.oid::int8 from (
                         select t.typelem union all select t.typbasetype
                         union all select rngsubtype from pg_range where rngtypid = t.oid
                         -- Servers before 14 have no multiranges.
                         union all select rngtypid from pg_range r
                                   where (to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid
                         union all select a.atttypid from pg_attribute a
                                   where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) p (oid)
                     where p.oid <> 0 order by 1) as parts
        from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where (t.oid >= 16384 or t.oid in (table start))
              -- Those of relations' rows stand beside their relations.
              and not exists (select from pg_type e join pg_class c on c.oid = e.typrelid
                              where e.oid in (t.oid, t.typelem) and c.relkind <> 'c')
        order by 1, 2""",
    "casts": """
        select distinct t.oid::int8 as oid from pg_cast k, unnest(array[castsource, casttarget]) t (oid) order by 1""",
}

OF_RELATIONS = ("relations", "parts", "columns", "views", "generated")
"""Queries that have a row for each relation, of what there is about it alone and of no other relation."""
_OF = re.compile("<of ([a-z_.]+)>")


def _filled(text: str) -> str:
    return (
        text.replace("{closed}", quoted(sorted(EMPTY.union(CLOSED_COLUMNS, NAMED_ONLY))))
        .replace("{harmless}", quoted(sorted(HARMLESS_EXTENSIONS)))
        .replace("{reaching}", quoted(reaching()))
        .replace("{libraries}", quoted(coded_in()))
        .replace("{looking}", quoted(sorted(LOOKING)))
        .replace("{word}", LOOKING_WORD)
    )


_TEXTS = {name: _filled(text) for name, text in QUERIES.items()}
QUERIES = {name: _OF.sub("true", text).replace("{known}", "") for name, text in _TEXTS.items()}
AGAIN = {
    name: _OF.sub(r"\1 = any ($1::oid[])", _TEXTS[name]).replace(
        "{known}", "union select * from unnest($2::oid[], $3::int4[])"
    )
    for name in (*OF_RELATIONS, "kinds")
}
"""The same of some relations: $1 has their oids, and $2 and $3 the types and modifiers that are known already."""
OF_SOME = f"""select c.oid::int8 as oid from pg_class c where c.oid >= 16384 and c.relpersistence <> 't'
    and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.oid::int8 % {DRAWERS} = any ($1::int8[])"""
"""The relations in drawers."""
