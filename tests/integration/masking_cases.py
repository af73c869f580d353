"""Statements that the two worlds are judged by, beside those of the corpus."""

from __future__ import annotations

from policies.engine.decisions import FieldView, RelationFields
from tests.integration.two_worlds import FIELDS, ID

HONEST = """
    with customers as (select * from customers), orders as (select * from orders) select note from customers, orders
    with recursive customers as (select 1 as id union all select id + 1 from customers where id < 3) table customers
    with pg_class as (select 'mine' as relname) select * from pg_class
    select * from json_to_recordset('[{"a": 1}]') as x(a int, b text)
    select s.leak from (select id as leak from customers) s limit 1
    select leak, t.bump from typed t
    select note, short from typed
    select 'x'::short::text
    with v_clear as (select 1 as x) select x from v_clear
    with recursive v_clear as (select 1 as x union all select x + 1 from v_clear where x < 3) select * from v_clear
    select pg_size_pretty(pg_total_relation_size('orders')), pg_relation_size('orders', 'main')
    select current_setting('work_mem'), current_setting('work' || '_mem', true)
    select name, setting from pg_settings where name = 'work_mem'
    select count(*) from customers
    select c.id, c.name, c.ssn, count(o.id) from customers c left join orders o on o.customer_id = c.id group by c.id
    select name from customers group by customers.id
    select public.customers.id, orders.note from public.customers join public.orders on orders.id = customers.id
    select * from pg_largeobject_metadata
    show work_mem
    select (information_schema._pg_expandarray(i.indkey)).n from pg_index i where i.indisprimary
    show transaction isolation level
    select uuid('00000000-0000-0000-0000-000000000001'), jsonb('{"a": 1}'), inet('10.0.0.1'), "json"('1')
    select regtype('int4'), pg_catalog.regproc('version'), jsonb(row_to_json(c)::text) from customers c
    select setseed(0.5), random() from customers where id < 3
    select id, tax_id, e from v_cust order by id limit 3
    select * from v_keyed where id < 3
    select * from v_window where id < 4 order by id
    select id, r from v_ranked
    select id from v_once
    select r, id from v_rounded
    select n, id from v_numbered
    select n from mv_numbered
    select * from v_cte where id < 4
    select * from v_tree
    select * from v_sub where id < 3
    select * from v_using
    select * from v_whole where id = 1
    select * from v_classes
    select * from v_of_mv limit 1
    select * from v_where
    select * from parted_1n
    select * from v_gen
    select * from officer
    select * from docs
    select profile, n from v_docs
    select * from own_types
    select c.id, c.xmin is null, x.* from customers c, (select * from orders) x where c.id = 1 and x.id = 1
    with o as (select * from orders), c as (select id, ssn, xmin from customers) select * from o natural join c
    with r as (select proname, xmin x from pg_proc), l as (select lanname from pg_language) select * from r, l limit 1
""".strip().split("\n")


BASE_TYPES = """
    smallint integer bigint numeric numeric(6,2) real float8 money boolean text varchar varchar(2) char(8) "char" name
    bytea date time timetz timestamp timestamptz interval uuid json jsonb inet cidr macaddr macaddr8 point line lseg box
    path polygon circle bit(3) varbit tsvector tsquery int4range numrange tstzrange int4multirange oid regclass xid8
    pg_lsn text[] integer[] jsonb[]
""".split()


OF_SESSIONS = {
    "select * from pg_stat_activity",
    "select query from pg_stat_activity where pid <> pg_backend_pid()",
    "select * from pg_stat_ssl",
    "show all",
}
"""Whoever runs them, their sessions' own pids and times are among the rows, and as many rows as there are sessions; or
their server's port."""


ORDERED = """
    select code from ranked limit 2
    select code from only ranked limit 3
    select id from ranked
    select id from only ranked limit 1
    select id, code from ranked where id > 5 limit 3
    select tag from only ranked limit 3
    select string_agg(tag, ' ') from ranked
    select row_number() over (), tag from ranked
    select distinct on (id > 100) id, code from ranked
    select code from ranked_kid limit 2
    select id from ranked_kid limit 3
    select id, code from mv_ranked limit 4
    select id from (select * from only ranked) r limit 2
    select id from (select * from only ranked where tag <> '') r limit 2
    with r as (select id from ranked) select * from r limit 2
    select o.id, r.code from orders o cross join lateral (select code from ranked limit 1) r
    copy ranked (code) to stdout
    declare c cursor for select id from ranked
    select count(*) from ranked
    select * from ranked limit 2
""".strip().split("\n")


MEASURED = """
    select a.code, b.code from lengths a join lengths b using (name)
    select a.doc, b.id from lengths a join lengths b using (name)
    select a, b.id from lengths a join lengths b using (name)
    select code, row_number() over (order by name) from lengths
    select l.code, m.code from lengths l cross join lengths m where l.id < 40 and m.id < 40 order by l.name, m.name
    select l.code, g from lengths l, generate_series(1, 1000) g where l.id = 7 order by g desc
    select a.code, b.id from mv_lengths a join mv_lengths b using (id)
    select code from lengths l join orders o using (id) order by o.note
""".strip().split("\n")
"""What sorts, joins and windows carry whole fields of, which masks show a part of."""


LINEAGE = {
    "v_cust": {"tax_id": "by lineage from public.customers.ssn", "e": "by lineage from public.customers.email"},
    "v_nested": dict.fromkeys(("tax", "u"), "by lineage from public.v2.t"),
    "mv_cust": {"ssn": "by lineage from public.customers.ssn"},
    "v_all": {"x": "by lineage from public.customers.ssn"},
    "v_keyed": {"ssn": "by lineage from public.customers.ssn"},
    "v_window": {"r": "by lineage from public.customers.ssn", "k": "by lineage from public.customers.email"},
    "v_ranked": {"r": "by lineage from public.customers.ssn"},
    "v_rounded": {"r": "by lineage from public.customers.ssn"},
    "v_once": {"r": "by lineage from public.customers.ssn"},
    "v_numbered": {"ssn": "by lineage from public.customers.ssn"},
    "mv_numbered": {"ssn": "by lineage from public.customers.ssn"},
    "v_sub": dict.fromkeys(("s", "e"), "by lineage from public.customers.ssn")
    | {"a": "by lineage from public.customers.salary"},
    "v_tree": {"ssn": "by lineage from public.customers.ssn"},
    "v_lateral": {"k": "by lineage from public.customers.ssn"},
    "v_whole": dict.fromkeys(("whole", "doc"), "by lineage from public.customers.dob"),
    "v_case": {"w": "by lineage from public.customers.salary", "m": "by lineage from public.customers.email"},
    "v_group": {},
    "v_clear": {},
    "v_where": {},
    "v_classes": {"reltuples": "by lineage from pg_catalog.pg_class.reltuples"},
    "v_kid": dict.fromkeys(("ssn", "email", "dob", "salary"), "") | {"ssn": "by lineage from public.kid.ssn"},
    "parted_2": {"ssn": "by the rules of public.parted"},
    "kid": {"ssn": "by the rules of public.customers"},
    "officer": {"oath": "by the rules of public.cadre"},
    "people": {"ssn": "by the rules of public.staff"},
    "vows": {"oath": "as it is in public.templar"},
    "v_vows": {"oath": "by lineage from public.vows.oath"},
    "words": {"loud": "as it is in public.oaths"},
    "v_maybe": {"code": "by lineage from public.lengths.code", "doc": "by lineage from public.lengths.doc"},
    "v_same": {"code": "by lineage from public.lengths.code", "doc": "by lineage from public.lengths.code"},
    "v_maybe_one": dict.fromkeys(("note", "tag"), "by lineage from public.ranked.code"),
    "v_maybe_both": {"note": "by lineage from public.lengths.rest"},
    "gen": {"loud": "generated from public.gen.ssn"},
}


REVEALED = """
    select id, airlock.reveal(ssn) from customers where id = 1
    select "airlock"."reveal"("ssn"), id from public.customers where id < 3 order by id
    select airlock.reveal(c.ssn) as x, c.ssn, upper(c.ssn), c.email from customers c order by c.id limit 3
    select airlock.reveal(c.ssn), o.note from customers c join orders o on o.customer_id = c.id order by o.id limit 5
    select airlock.reveal(ssn), count(*) over (order by ssn), rank() over (order by email, id) from customers
    select airlock.reveal(ssn), id from customers order by upper(ssn), id limit 2
    select airlock.reveal(a.ssn), airlock.reveal(a.email), b.ssn from customers a join customers b using (id)
    select airlock.reveal(ssn) from customers limit (select length(min(ssn)) from customers)
    select airlock.reveal(ssn), id from customers where id in (select id from customers where ssn not like '7%')
    select airlock.reveal(ssn), id from customers where ssn < '8' or email ~ 'a' order by id
    select airlock.reveal(c.ssn) from customers c left join orders o on o.note = c.ssn order by c.id, o.id limit 3
    select airlock.reveal(c.ssn) from only customers c tablesample bernoulli (100) repeatable (3) where id = 1
    with x as (select id, ssn from customers) select airlock.reveal(c.ssn), x.ssn from customers c join x using (id)
""".strip().split("\n")
NEVER_REVEALED = """
    select airlock.reveal(ssn) from customers order by ssn limit 2
    select airlock.reveal(ssn) as s from customers order by s limit 2
    select airlock.reveal(ssn) from customers order by 1 limit 2
    select distinct airlock.reveal(ssn) from customers
    select distinct on (id) airlock.reveal(ssn) from customers
    select upper(airlock.reveal(ssn)) from customers
    select airlock.reveal(ssn)::text from customers
    select airlock.reveal(ssn) || '' from customers
    select case when true then airlock.reveal(ssn) end from customers
    select string_agg(airlock.reveal(ssn), ',') from customers
    select airlock.reveal(ssn) over () from customers
    select airlock.reveal(distinct ssn) from customers
    select airlock.reveal(ssn, 1) from customers
    select airlock.reveal(upper(ssn)) from customers
    select airlock.reveal(*) from customers
    select airlock.reveal(customers.*) from customers
    select airlock.reveal(customers) from customers
    select airlock.reveal(public.customers.ssn) from customers
    select airlock.reveal(id) from customers
    select airlock.reveal(nothing) from customers
    select id from customers where airlock.reveal(ssn) = '731-55-0001'
    select id from customers order by airlock.reveal(ssn)
    select count(*) from customers group by airlock.reveal(ssn)
    select airlock.reveal(ssn) from customers group by id
    select airlock.reveal(ssn) from customers for update
    select * from (select airlock.reveal(ssn) from customers) x
    select (select airlock.reveal(ssn) from customers limit 1)
    select airlock.reveal(x.ssn) from (select ssn from customers) x
    with x as (select airlock.reveal(ssn) as s from customers) select s from x
    select airlock.reveal(ssn) from customers union all select '1'
    (select airlock.reveal(ssn) from customers) except select '1'
    select *, airlock.reveal(ssn) from customers
    select airlock.reveal(ssn), c from customers c
    select airlock.reveal(ssn), to_jsonb(c) from customers c
    select airlock.reveal(ssn), c::text from customers as c(a, b, c)
    select airlock.reveal(c.ssn) from customers c, orders o where exists (select c)
    select airlock.reveal(ssn) from customers c, orders o
    select airlock.reveal(a.ssn) from customers a natural join customers b
    select airlock.reveal(j.ssn) from (customers a join orders o on o.id = a.id) as j
    select airlock.reveal(ssn), airlock_reveal_3 from customers
    select airlock.reveal(ssn), c.airlock_reveal_3 from customers c
    select airlock.reveal(ssn), airlock_reveal_3(c) from customers c
    select airlock.reveal(c.ssn) from customers c cross join lateral (select c.airlock_reveal_3 as y) z
    select airlock.reveal(c.ssn) from customers c where exists (select 1 where airlock_reveal_3 like '7%')
    select airlock.reveal(a.ssn) from customers a join customers b using (airlock_reveal_3)
    select airlock.reveal(ssn) from customers; select 1
    insert into orders (note) select airlock.reveal(ssn) from customers
    update orders set note = (select airlock.reveal(ssn) from customers limit 1)
    delete from orders returning airlock.reveal(note)
    create table x as select airlock.reveal(ssn) from customers
    select airlock.reveal(ssn) into x from customers
    copy (select airlock.reveal(ssn) from customers) to stdout
    declare c cursor for select airlock.reveal(ssn) from customers
    explain analyze select airlock.reveal(ssn) from customers
    prepare p as select airlock.reveal(ssn) from customers
    values (airlock.reveal('x'))
    select airlock.reveal(ssn)
    select airlock.other(ssn) from customers
""".strip().split("\n")


SEARCHED: FieldView = {
    **FIELDS,
    "public.customers": RelationFields(clear=ID | {"name"}, searches={"ssn": 10, "email": 10}),
}
FOUND = """
    select * from customers where ssn = '{ssn}'
    select id, ssn, upper(ssn) from customers c where '{ssn}' = c.ssn and id > 0
    select count(*), min(ssn) from customers where (ssn = '{ssn}') and (id > 0 and name <> 'x')
    select to_jsonb(c), o.id from customers c join orders o on o.customer_id = c.id where c.ssn = '{ssn}' order by 2
    select distinct id from only customers where ssn = '{ssn}' order by id
    select c.id from orders o, customers c where c.ssn = '{ssn}' and o.customer_id = c.id group by c.id order by c.id
    select id from customers where ssn = ('{ssn}')
    select id from customers where ((id > 0 and ((ssn)) = (('{ssn}'))))
    select c.id from customers c where (('{ssn}') = (c.ssn)) and (c.id) > (0)
""".strip().split("\n")
NOT_SEARCHED = """
    select id from customers where ssn = '{ssn}' or id = 1 order by id
    select id from customers where not ssn = '{ssn}' order by id
    select id from customers where ssn <> '{ssn}' order by id
    select id from customers where ssn in ('{ssn}') order by id
    select id from customers where ssn = any (array['{ssn}']) order by id
    select id from customers where ssn like '{ssn}' order by id
    select id from customers where ssn = '{ssn}' || '' order by id
    select id from customers where upper(ssn) = '{ssn}' order by id
    select id from customers where (ssn = '{ssn}') is true order by id
    select id from customers where case when ssn = '{ssn}' then true end order by id
    select id from customers where ssn = '{ssn}' and email = 'x' order by id
    select id from customers where ssn = '{ssn}' and ssn = '{ssn}' order by id
    select id from customers where ssn = (select '{ssn}') order by id
    select id from customers group by id having min(ssn) = '{ssn}' order by id
    select id, ssn = '{ssn}' from customers order by id
    select count(*) filter (where ssn = '{ssn}') from customers
    select id from customers where exists (select from customers d where d.ssn = '{ssn}') order by id
    select id from (select id, ssn from customers) c where ssn = '{ssn}' order by id
    with c as (select id, ssn from customers where ssn = '{ssn}') select id from c order by id
    select id from customers where ssn = '{ssn}' union all select 1
    select o.id from orders o left join customers c on c.id = o.customer_id where c.ssn = '{ssn}' order by 1
    select o.id from orders o join customers c on c.ssn = '{ssn}' order by 1 limit 3
    select c.id from customers c join (values ('{ssn}')) v (x) on true where c.ssn = v.x order by 1
    select a.id from customers a, customers b where ssn = '{ssn}' order by 1
    select id from customers tablesample bernoulli (100) repeatable (1) where ssn = '{ssn}' order by id
    select id from customers as c (id, name, ssn) where ssn = '{ssn}' order by id
    select id from customers where salary = 1 order by id
    select 1; select id from customers where ssn = '{ssn}' order by id
    copy (select id from customers where ssn = '{ssn}') to stdout
    declare c cursor for select id from customers where ssn = '{ssn}'
    prepare p as select id from customers where ssn = '{ssn}'
    explain select id from customers where ssn = '{ssn}'
    update orders set note = 'x' from customers c where c.ssn = '{ssn}'
    delete from orders using customers c where c.ssn = '{ssn}'
""".strip().split("\n")
