"""What the catalogue is made from: the queries that read it.

An adapter runs them under `search_path = pg_catalog`, so that every type of a user's is written qualified.
"""

from __future__ import annotations

from broker.sql.contrib import COMPUTING, HARMLESS_EXTENSIONS, IMPLIED, TRUSTED, coded_in, quoted, reaching
from broker.sql.system import CLOSED_COLUMNS, EMPTY, NAMED_ONLY

_TRUSTED = f"""
        trusted as ({TRUSTED})"""

_COMPUTING = f"""
        {COMPUTING}"""

_CODED = (
    _TRUSTED
    + ","
    + _COMPUTING
    + """,
        part (whole, part) as (
            select oid, typelem from pg_type where typelem <> 0
            union all select oid, typbasetype from pg_type where typtype = 'd'
            union all select c.reltype, a.atttypid from pg_attribute a join pg_class c on c.oid = a.attrelid
                      where a.attnum > 0 and not a.attisdropped and c.reltype <> 0
            union all select rngtypid, rngsubtype from pg_range
            -- Servers before 14 have no multiranges.
            union all select (to_jsonb(r) ->> 'rngmultitypid')::oid, rngtypid from pg_range r),
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
            union select rngtypid from pg_range where rngcanonical::oid >= 16384 or rngsubdiff::oid >= 16384),
        coded (oid) as (
            select oid from start where oid >= 16384
            union select p.whole from coded c join part p on p.part = c.oid)"""
)
"""Types whose input, output, checks or casts run code of users', and what is made of such types."""

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

_LOOSE = (
    _COMPUTING
    + """,
        loose (oid) as (
            select p.oid from pg_proc p
            where p.oid >= 16384 and (p.prolang not in (12, 13) or p.prokind = 'a') and p.oid not in (table computing)
                  and not exists (select from unnest(p.proconfig) s where s like 'search_path=%'))"""
)
"""Functions of users' that look names up in their session's search path; what is written in C is taken not to."""

_FOLLOWING = (
    _LOOSE
    + """,
        part (relation, classid, objid) as (
            select oid, 'pg_class'::regclass, oid from pg_class where relkind in ('r', 'p', 'v', 'm', 'f')
            union all select indrelid, 'pg_class'::regclass, indexrelid from pg_index
            union all select adrelid, 'pg_attrdef'::regclass, oid from pg_attrdef
            union all select conrelid, 'pg_constraint'::regclass, oid from pg_constraint where conrelid <> 0
            union all select polrelid, 'pg_policy'::regclass, oid from pg_policy),
        looking (calls) as (
            select concat(':funcid (', string_agg(oid::text, '|'), ') |{word}') from pg_proc
            where oid < 16384 and proname in ({looking})),
        running (oid) as (
            select tgrelid from pg_trigger, looking
                   where not tgisinternal and (tgfoid in (table loose) or tgqual::text ~ calls)
            union select adrelid from pg_attrdef, looking where adbin::text ~ calls
            union select conrelid from pg_constraint, looking where conrelid <> 0 and conbin::text ~ calls
            union select p.relation from part p join pg_depend d using (classid, objid)
                  left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
                  left join pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid
                  where d.refobjid >= 16384 and (
                      d.refclassid = 'pg_proc'::regclass and d.refobjid in (table loose)
                      or o.oprcode::oid in (table loose) or t.typtype = 'd' and d.classid <> 'pg_class'::regclass)),
        touching (a, b) as (
            select inhparent, inhrelid from pg_inherits
            union all select confrelid, conrelid from pg_constraint
                      where contype = 'f' and (confdeltype in ('c', 'n', 'd') or confupdtype in ('c', 'n', 'd'))
            union all select r.ev_class, d.refobjid from pg_rewrite r join pg_depend d on d.objid = r.oid
                      where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                            and r.ev_class >= 16384 and d.refobjid >= 16384),
        following (oid) as (
            select oid from running union select l.a from touching l join following f on f.oid = l.b)"""
)
"""Relations of which a change may run such a function: in a trigger, default, check, index or policy, its own or that
of a partition, of what refers to it, or of what stands behind a view."""

_MADE = """
        part_of (oid, what) as (
            select t.tgrelid, concat('trigger ', t.oid, ' ', t.xmin, ' ', p.xmin)
            from pg_trigger t join pg_proc p on p.oid = t.tgfoid where not t.tgisinternal
            union all select ev_class, concat('rule ', oid, ' ', xmin) from pg_rewrite where ev_class >= 16384
            union all select conrelid, concat('key ', oid, ' ', xmin) from pg_constraint where conrelid <> 0
            union all select confrelid, concat('referrer ', oid, ' ', xmin) from pg_constraint where confrelid <> 0
            union all select adrelid, concat('default ', oid, ' ', xmin) from pg_attrdef
            union all select polrelid, concat('policy ', oid, ' ', xmin) from pg_policy
            union all select indrelid, concat('unique ', indexrelid, ' ', indisvalid) from pg_index where indisunique
            -- What these call, and what the types of columns are.
            union all select p.relation, concat('code ', f.oid, ' ', f.xmin)
            from (table part
                  union all select ev_class, 'pg_rewrite'::regclass, oid from pg_rewrite where ev_class >= 16384
                  union all select tgrelid, 'pg_trigger'::regclass, oid from pg_trigger where not tgisinternal) p
                 join pg_depend d using (classid, objid)
                 left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
                 join pg_proc f on f.oid = case when d.refclassid = 'pg_proc'::regclass then d.refobjid
                                                else o.oprcode::oid end
            where d.refobjid >= 16384
            union all select a.attrelid, concat('type ', t.oid, ' ', t.xmin, ' ',
                (select string_agg(concat(e.oid, e.enumlabel), ' ' order by e.oid) from pg_enum e
                 where e.enumtypid = t.oid),
                (select string_agg(concat(k.oid, ' ', k.xmin), ' ' order by k.oid) from pg_constraint k
                 where k.contypid = t.oid),
                (select string_agg(concat(k.attnum, k.attname, ' ', k.atttypid), ' ' order by k.attnum)
                 from pg_attribute k where k.attrelid = t.typrelid and k.attnum > 0))
            from pg_attribute a join pg_type c on c.oid = a.atttypid
                 join pg_type t on t.oid in (c.oid, c.typelem, c.typbasetype)
            where t.oid >= 16384 and a.attnum > 0 and not a.attisdropped),
        referring (oid, keys) as (
            select confrelid, array_agg(concat_ws(' ', conrelid, confdeltype, confupdtype,
                                                  array_to_string(confkey, ','), array_to_string(conkey, ','))
                                        order by oid)
            from pg_constraint where contype = 'f' group by 1),
        made (oid, stamp) as (select oid, md5(string_agg(what, ' ' order by what)) from part_of group by 1)"""
"""A stamp of all that decides, beside its columns, what a change of a relation does."""

CALLS = ":(?:funcid|aggfnoid|winfnoid|tsmhandler) ([0-9]+)"
"""Where a stored tree names the functions that it calls."""

QUERIES: dict[str, str] = {
    "encoding": "select current_setting('server_encoding') = 'UTF8' as utf8",
    "relations": f"""
        with recursive {_FOLLOWING}, {_MADE}
        select c.oid::int8 as oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
               exists (select from pg_rewrite r where r.ev_class = c.oid and r.rulename <> '_RETURN') as rules,
               c.relrowsecurity as row_security,
               array(select i.inhparent::int8 from pg_inherits i where i.inhrelid = c.oid order by 1) as parents,
               exists (select from pg_cast k where c.reltype in (k.castsource, k.casttarget)) as row_casts,
               array(select a.attname::text from pg_index x join pg_attribute a on a.attrelid = x.indrelid
                     where x.indrelid = c.oid and x.indisprimary and x.indimmediate and a.attnum = any (x.indkey)
                     order by 1) as key,
               -- Its name, by how many columns it is ordered (below 0: it is of some rows), and every column that it
               -- has; 0 is an expression.
               array(select concat_ws(' ', case when x.indpred is null then x.indnkeyatts else -x.indnkeyatts end,
                                      array_to_string(x.indkey::int2[], ' '), '"' || i.relname)
                     from pg_index x join pg_class i on i.oid = x.indexrelid
                     where x.indrelid = c.oid and c.oid >= 16384 order by 1) as indexes,
               (select p.partattrs::int2[]::int4[] from pg_partitioned_table p
                where p.partrelid = c.oid) as partition_key,
               -- A name without its schema is never looked up in a schema that the role may not use.
               has_schema_privilege(n.oid, 'usage') as usable,
               c.oid in (table following) as follows,
               made.stamp as made,
               -- Whose rows follow a change of its own, how, by which of its columns, and in which of theirs.
               referring.keys as referrers,
               -- The table of the column that a sequence is for.
               (select d.refobjid::int8 from pg_depend d
                where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = 0
                      and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
                order by 1 limit 1) as owner
        from pg_class c join pg_namespace n on n.oid = c.relnamespace left join made on made.oid = c.oid
             left join referring on referring.oid = c.oid
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_(toast|temp)'
        order by 1""",
    "columns": f"""
        with recursive {_CODED},
        base (oid, type, typmod) as (
            select oid, typbasetype, typtypmod from pg_type where typtype = 'd'
            union all select b.oid, t.typbasetype, t.typtypmod from base b join pg_type t on t.oid = b.type
                      where t.typtype = 'd')
        select a.attrelid::int8 as oid, a.attnum::int4 as attnum, a.attname::text as name,
               format_type(a.atttypid, a.atttypmod) as type, t.typname::text as typname, n.nspname::text as typschema,
               t.typcategory::text as category, format_type(b.type, b.typmod) as base,
               case when a.atttypid not in (table coded) then ''
                    when b.type is not null and b.type not in (table coded) then 'domain' else 'type' end as code
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace r on r.oid = c.relnamespace
             left join base b on b.oid = a.atttypid
                  and not exists (select from pg_type d where d.oid = b.type and d.typtype = 'd')
             join pg_type t on t.oid = coalesce(b.type, a.atttypid) join pg_namespace n on n.oid = t.typnamespace
        where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f')
              and (r.nspname !~ '^pg_(toast|temp)' and r.nspname not in ('pg_catalog', 'information_schema')
                   or r.nspname || '.' || c.relname in ({{closed}}))
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
               p.oid in (table loose) as follows, l.lanname = 'sql' and not b.computes as planned, p.xmin::text as made,
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
        where p.oid >= 16384 and p.prokind <> 'p' order by 1, 2, 3""",
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
        with recursive {_CODED}
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
               array(select distinct coalesce(p.proname, o.oprname, t.typname)::text from pg_depend d
                     left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
                          and p.oid not in (table computing)
                     left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
                          and o.oid not in (select objid from trusted where classid = 'pg_operator'::regclass)
                     left join pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid
                          and t.oid in (table coded)
                     where d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid >= 16384
                           and coalesce(p.oid, o.oid, t.oid) is not null order by 1) as defined
        from pg_rewrite r where r.rulename = '_RETURN' and r.ev_class >= 16384 order by 1""",
    "generated": """
        select d.adrelid::int8 as oid, d.adnum::int4 as attnum, d.adbin::text as tree, a.attgenerated = 'v' as virtual
        from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where a.attgenerated <> '' order by 1, 2""",
    "types": f"""
        with recursive {_CODED}
        select t.oid::int8 as oid, n.nspname::text as schema, t.typname::text as name, t.typtype::text as kind,
               t.oid not in (select oid from coded union select oid from start) as trusted
        from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where t.oid >= 16384 or t.oid in (table start) order by 1, 2""",
}


for _name, _text in QUERIES.items():
    QUERIES[_name] = (
        _text.replace("{closed}", quoted(sorted(EMPTY.union(CLOSED_COLUMNS, NAMED_ONLY))))
        .replace("{harmless}", quoted(sorted(HARMLESS_EXTENSIONS)))
        .replace("{reaching}", quoted(reaching()))
        .replace("{libraries}", quoted(coded_in()))
        .replace("{looking}", quoted(sorted(LOOKING)))
        .replace("{word}", LOOKING_WORD)
    )
