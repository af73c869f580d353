-- One statement a line, each tried under the read role in two worlds that differ only in masked values (ssn, email, dob,
-- salary of customers; ssn of part). Refused, or the same in both: nothing else is right. Lines are only ever added.
select customers.* from customers order by id limit 3
select c from customers as c(a, b, c, d, e, f) where a = 1
select (customers).ssn from customers limit 1
select customers::text from customers limit 2
select t.* from customers t where t.ssn = '731-55-0001'
select public.customers.email, customers.id from public.customers where id = 2
select * from public.customers * where id < 3
select * from only (customers) where id < 3
select * from customers tablesample bernoulli (100) repeatable (7) where id = 1
select * from customers c tablesample system (100) where c.id = 1
table customers
(table customers limit 2) union all (table only customers limit 2)
select * from (table customers) x where id = 1
with x as (table customers) select x.ssn from x where id = 1
with customers as (select 1 as ssn) select ssn from customers
with customers as (select * from customers) select ssn from customers limit 1
with a as (with customers as (select 1) select 1) select ssn from customers where id = 1
select * from customers natural join (values ('731-55-0001')) v(ssn)
select id from customers join (values ('731-55-0001'), ('842-66-9998')) v(ssn) using (ssn)
select a.id from customers a left join customers b on a.ssn = b.email where a.id = 1
select a.id from (customers a join customers b using (id)) j where j.id = 1
select j.ssn from (customers a join orders o on o.id = a.id) as j where j.customer_id = 1
select * from customers a cross join lateral (select a.ssn || 'x' as y) z where a.id = 1
select * from orders o, lateral (select c.ssn from customers c where c.id = o.customer_id) s where o.id < 3
select array(select ssn from customers order by id limit 3)
select array_agg(ssn order by id) from customers where id < 4
select jsonb_agg(to_jsonb(c) order by id) from customers c where id < 3
select json_object_agg(id, c) from customers c where id < 3
select jsonb_object_keys(to_jsonb(c)), jsonb_each_text(to_jsonb(c)) from customers c where id = 1
select hashtext(ssn), hashtext(c::text) from customers c where id = 1
select md5(string_agg(c::text, ',' order by id)) from customers c
select count(*) from customers where email like '%canary-a%'
select count(*) from customers where (c).ssn is not null
select count(*) filter (where salary > 80000) from customers
select max(salary), min(dob), max(ssn), count(distinct email) from customers
select width_bucket(salary, 0, 100000, 10) from customers where id = 1
select id from customers order by ssn desc, id limit 5
select id from customers order by (c).ssn from customers c limit 5
select row_number() over (order by ssn, id), id from customers order by id limit 5
select ntile(4) over (partition by left(ssn, 1) order by id) from customers limit 5
select id from customers group by id, ssn having ssn > '8' limit 3
select substr(ssn, 1, 1), count(*) from customers group by rollup (substr(ssn, 1, 1)) order by 1
select id from customers where ssn similar to '(7|8)%' limit 1
select id from customers where exists (select from customers x where x.ssn = customers.ssn and x.id = 2)
select id from customers where ssn = any (array['731-55-0001', '842-66-9998'])
select id from customers where row(id, ssn) = row(1, '731-55-0001')
select case when ssn like '7%' then 1 / 0 else 1 end from customers where id = 1
select 1 / (salary - 71001) from customers where id = 1
select ssn::int from customers where id = 1
select ('x' || ssn)::date from customers where id = 1
select ssn::regclass from customers where id = 1
select to_date(ssn, 'YYYY') from customers where id = 1
select generate_series(1, salary / 10000) from customers where id = 1
select * from generate_series(1, (select salary / 10000 from customers where id = 1)) g
select repeat('x', (select salary / 10000 from customers where id = 1))
select * from unnest((select array_agg(ssn) from customers where id < 3)) u
select * from rows from (unnest(array(select ssn from customers where id < 3)), generate_series(1, 2)) r
select * from json_to_recordset((select json_agg(c) from customers c where id < 3)) x(id int, ssn text)
select * from jsonb_to_record((select to_jsonb(c) from customers c where id = 1)) x(ssn text, email text)
select (jsonb_populate_record(null::customers, to_jsonb(c))).ssn from customers c where id = 1
select (json_populate_record(null::public.customers, row_to_json(c))).* from customers c where id = 1
select (row(c.*)::customers).email from customers c where id = 1
select (array_agg(c))[1] from customers c where id = 1
select (select c from customers c where c.id = 1)::text
select coalesce((select ssn from customers where id = 1), '') || 'x'
select greatest(ssn, email), least(ssn, email), nullif(ssn, email) from customers where id = 1
select ssn collate "C" < '8' from customers where id = 1
select ssn ~ '^7', ssn ilike '7%', ssn between '7' and '8' from customers where id = 1
select overlay(ssn placing 'x' from 1 for 1), position('7' in ssn), trim(both '7' from ssn) from customers where id = 1
select extract(year from dob), date_part('month', dob), age(dob) > interval '40 years' from customers where id = 1
select dob + 1, dob - date '1971-03-02', dob::timestamp from customers where id = 1
select to_tsvector('simple', ssn) @@ to_tsquery('simple', '731') from customers where id = 1
select ts_headline('simple', ssn, to_tsquery('simple', '731')) from customers where id = 1
select string_to_table(ssn, '-') from customers where id = 1
select regexp_matches(ssn, '(\d+)-(\d+)', 'g') from customers where id = 1
select format('%s %I %L', ssn, email, c) from customers c where id = 1
select pg_typeof(ssn), pg_column_size(c) from customers c where id = 1
select ssn from customers where id = 1 union select ssn from part where id = 1
select p.ssn from part p where id = 1
select part::text from part where id = 1
select * from part_a
select * from kid
select * from v_cust limit 1
select * from mv_cust limit 1
select * from evil.orders limit 1
select evil.upper('a')
select 1 operator(evil.+) 1
select 'x'::evil.d
select leak(c) from customers c where id = 1
select c.leak from customers c where id = 1
select (c).leak from customers c where id = 1
select ((c)::customers).leak from customers c where id = 1
select (('0.01')::float8).pg_sleep
select ('customers'::text).table_to_xml
select (5000).pg_terminate_backend
select ('a'::text).nextval
select o.bump from orders o limit 1
select bump()
select imm()
select noticer()
select secdef_w()
select * from secdef_w()
select 1 from orders order by bump() limit 1
select 1 from orders limit bump()
explain select bump()
explain select imm()
explain analyze select ssn from customers where ssn like '7%'
explain (analyze, format json, buffers) select * from customers where salary > 80000
explain verbose select ssn from customers where ssn = '731-55-0001'
explain (costs on, verbose) select count(*) from customers where ssn < '8'
explain (generic_plan) select * from customers where salary > $1
declare c cursor for select ssn from customers
begin; declare c cursor for select ssn from customers order by id; fetch 2 from c; commit
begin; declare c scroll cursor with hold for select c from customers c order by id; commit; fetch all from c; close c
prepare p as select ssn from customers where id = $1; execute p(1); deallocate p
prepare q(text) as select id from customers where ssn = $1; execute q('731-55-0001')
copy customers to stdout
copy customers (id, ssn) to stdout with (format csv, header)
copy only customers to stdout
copy (table customers) to stdout
copy (select c from customers c where id = 1) to stdout (format csv, force_quote *)
copy (select * from part) to stdout
copy part to stdout
copy customers to '/tmp/airlock-test'
copy customers to program 'cat'
copy customers from stdin
select * from pg_stats where tablename = 'customers'
select * from pg_statistic
select * from pg_stats_ext
select * from pg_stat_activity
select query from pg_stat_activity where pid <> pg_backend_pid()
select * from pg_stat_user_tables
select * from pg_locks
select * from pg_prepared_statements
select * from pg_cursors
select * from pg_authid
select * from pg_shadow
select * from pg_largeobject
select * from pg_largeobject_metadata
select * from pg_user_mapping
select * from pg_subscription
select * from pg_file_settings
select * from pg_hba_file_rules
select * from pg_sequences
select reltuples, relpages from pg_class where relname = 'customers'
select * from pg_class where relname = 'part2_a'
select pg_class.relpartbound::text from pg_class where relname = 'part2_a'
select c::text from pg_class c where relname = 'part2_a'
select a from pg_attribute a where attname = 'apikey'
select to_jsonb(a) ->> 'attmissingval' from pg_attribute a where attname = 'apikey'
select a.z from pg_attribute as a(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22, a23, a24, a25, z) where z is not null
select attmissingval from pg_attribute natural join (select 'apikey'::name as attname) x
select * from pg_attrdef
select pg_get_expr(adbin, adrelid) from pg_attrdef
select pg_catalog.pg_get_expr(adbin, adrelid, true) from pg_catalog.pg_attrdef order by 1
select pg_get_expr(d.adbin, d.adrelid) || pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d
select adsrc from pg_attrdef
select prosrc, proname from pg_proc where proname = 'fsrc'
select pg_get_functiondef('fsrc'::regproc)
select pg_get_function_sqlbody('fsrc'::regproc)
select pg_get_function_arguments('fsrc'::regproc)
select enumlabel from pg_enum
select enum_range(null::en)
select enum_first(null::en)
select array_agg(e.enumlabel) from pg_enum e
select (e).enumlabel from pg_enum e
select pg_get_constraintdef(oid, true) from pg_constraint where conname = 'cst'
select conname, pg_get_constraintdef(oid) from pg_constraint order by 1
select conbin from pg_constraint where conname = 'cst'
select definition from pg_views where viewname = 'vlit'
select * from pg_views where viewname = 'vlit'
select pg_get_viewdef('vlit'::regclass)
select pg_get_viewdef('vlit'::regclass, true)
select pg_get_ruledef(oid) from pg_rewrite
select ev_action from pg_rewrite
select indexdef from pg_indexes where indexname = 'ix_lit'
select pg_get_indexdef('ix_lit'::regclass)
select pg_get_indexdef('ix_lit'::regclass, 0, true)
select pg_get_expr(indpred, indrelid) from pg_index where indexrelid = 'ix_lit'::regclass
select description from pg_description where objoid = 'orders'::regclass
select obj_description('orders'::regclass), obj_description('orders'::regclass, 'pg_class'), col_description('orders'::regclass, 1)
select column_default from information_schema.columns where column_name = 'apikey'
select * from information_schema.columns where table_name = 'am'
select * from information_schema.check_constraints
select check_clause from information_schema.check_constraints
select * from information_schema.views where table_name = 'vlit'
select view_definition from information_schema.views where table_name = 'vlit'
select routine_definition from information_schema.routines where routine_name = 'fsrc'
select * from information_schema.user_mapping_options
select * from information_schema._pg_foreign_servers
select current_setting('airlock.secret')
select current_setting('air' || 'lock.secret')
show airlock.secret
show all
select set_config('work_mem', '64kB', false)
set session authorization default
set local role none
set transaction read write
set session characteristics as transaction read write
begin read write
begin; set local default_transaction_read_only = off; commit
reset search_path
discard all
select query_to_xml_and_xmlschema('select ssn from customers', true, false, '')
select database_to_xml(true, false, '')
select cursor_to_xml('c', 1, true, false, '')
select ts_debug('english', (select ssn from customers where id = 1))
select xmlelement(name x, ssn) from customers where id = 1
select xmlserialize(content xmlforest(ssn, email) as text) from customers where id = 1
select * from xmltable('/r' passing (select xmlelement(name r, ssn) from customers where id = 1) columns s text path '.')
select pg_input_is_valid('x', 'evil.d')
select pg_catalog.pg_input_error_info('x', 'evil.d')
select ssn from customers where id = 1 for update
select ssn from customers where id = 1 for share of customers
select 1 from orders where id = 1 for key share
select ctid, xmin, tableoid::regclass, id from customers where id = 1
select ctid, * from customers where id = 1
select cmin from customers c where ctid = '(0,1)'
select tableoid, c from customers c where id = 1
select id, name from customers group by id
select c.name, count(o.id) from customers c join orders o on o.customer_id = c.id group by c.id
select customers.id from public.customers, evil.orders
select U&"\0073sn" from U&"\0063ustomers" where id = 1
select U&"!0073sn" uescape '!' from U&"!0063ustomers" uescape '!' where id = 1
select/**/ssn/**/from/**/public/**/./**/customers/**/where id = 1
select "ssn"from"customers"where"id"=1
select ssn from "Customers"
select ssn from customers_
select ssn from pg_temp.customers
select ssn from airlock.public.customers
select ssn from worldA.public.customers
values ((select ssn from customers where id = 1)), ((select email from customers where id = 1))
select * from (values (1)) v(x) where x = (select salary from customers where id = 1)
select 1 where (select ssn from customers where id = 1) like '7%'
select 1 limit (select case when ssn like '7%' then 1 else 0 end from customers where id = 1)
select 1 offset (select case when ssn like '7%' then 1 else 0 end from customers where id = 1)
select * from customers fetch first 2 rows with ties
select ssn, email, dob, salary from customers order by 1, 2, 3, 4, id fetch first 1 row with ties
select distinct ssn from customers
select count(distinct ssn), count(distinct (ssn, email)) from customers
(select ssn from customers) except (select '731-55-0001') order by 1 limit 3
(select ssn from customers where id < 5) intersect (values ('731-55-0001'), ('842-66-9998'))
with recursive r(n, s) as (select 1, ssn from customers where id = 1 union all select n + 1, c.ssn from r join customers c on c.id = n + 1 where n < 3) select * from r
with recursive r(id, ssn) as (select id, ssn from customers where id = 1 union all select c.id, c.ssn from customers c join r on c.id = r.id + 1 where c.id < 3) search depth first by ssn set o cycle ssn set is_cycle using path select * from r
select grouping(ssn), ssn from customers group by grouping sets ((ssn), ()) order by 1, 2 limit 2
select percentile_cont(0.5) within group (order by salary) from customers
select mode() within group (order by left(ssn, 1)) from customers
select corr(salary, id), regr_slope(salary, id) from customers
select sum(salary) over (order by ssn rows between 1 preceding and current row) from customers limit 3
select lag(ssn) over w, first_value(email) over w from customers window w as (order by dob, id) limit 3
select json_build_array(ssn, email), json_strip_nulls(row_to_json(c)) from customers c where id = 1
select jsonb_path_query_array(to_jsonb(c), '$.*') from customers c where id = 1
select jsonb_path_exists(to_jsonb(c), '$.ssn ? (@ like_regex "^7")') from customers c where id = 1
insert into orders select id, id, ssn from customers
delete from customers where ssn = '731-55-0001'
update customers set name = ssn
select lo_from_bytea(0, ssn::bytea) from customers where id = 1
select pg_notify('c', ssn) from customers where id = 1
select nextval('s1')
select last_value from s1
select pg_advisory_lock(1)
select pg_sleep(0)
select pg_read_file('/etc/passwd')
select pg_export_snapshot()
select pg_logical_emit_message(false, 'x', 'y')
select txid_current()
select pg_switch_wal()
select dblink('host=x', 'select 1')
do $$ begin perform 1; end $$
call pr()
select ('airlock.secret'::text).current_setting
select ('search_path'::text).current_setting
select pg_relation_size('customers_ssn_key')
select pg_total_relation_size('customers')
select pg_indexes_size('customers'), pg_table_size('customers')
select relname, relpages from pg_class where relname like 'customers%'
select pg_database_size('world')
select fmgr_sql_validator('fsrc'::regproc)
select fmgr_c_validator('fsrc'::regproc)
show archive_command
show primary_conninfo
select current_setting('data_directory')
select * from information_schema.sequences
select * from information_schema.element_types order by 1, 2, 3, 4, 5
select * from information_schema.user_defined_types
select * from information_schema.sql_features limit 1
select * from information_schema.foreign_table_options
select * from information_schema.column_options
select * from information_schema.foreign_data_wrapper_options
select * from information_schema.domain_constraints
select * from information_schema.role_table_grants limit 1
select * from information_schema.tables limit 2
select * from information_schema.table_constraints limit 2
select stxkeys from pg_statistic_ext
select * from pg_collation limit 1
select * from pg_proc where proname='fsrc'
select * from pg_attribute where attname='apikey'
select * from pg_type where typname='en'
select * from pg_class where relname='part2_a'
select p from pg_proc p where proname='fsrc'
select attoptions, attacl from pg_attribute where attname='apikey'
select reloptions from pg_class limit 1
select pg_describe_object('pg_enum'::regclass, oid, 0) from pg_enum
select pg_describe_object('pg_attrdef'::regclass, oid, 0) from pg_attrdef
select pg_describe_object(2606, oid, 0) from pg_constraint
select pg_get_constraintdef(oid) from pg_constraint where contype='c'
select pg_get_partkeydef('part2'::regclass)
select regexp_replace(attstattarget::text,'x','') from pg_attribute limit 1
select n_distinct from pg_stats
select attname, attoptions from pg_attribute where attoptions is not null
select pg_input_is_valid('canary-a','en')
select jsonb_populate_record(null::evil.d,'{}')
select * from json_to_record('{"a":1}') as x(a evil.d)
select * from json_to_record('{"a":1}') as x(a int)
select * from jsonb_to_recordset('[{"a":1}]') as x(a int, b text)
select * from jsonb_to_recordset('[{"a":"731-55-0001"}]') as x(a text)
select json_value('{"a":1}', '$.a' returning evil.d)
select * from json_table('{"a":1}', '$' columns (a evil.d path '$.a')) t
select * from json_table('{"a":1}', '$' columns (a int path '$.a')) t
select * from xmltable('/r' passing '<r>1</r>' columns x evil.d path '.')
select case 1 when 1 then 2 end
select extract(epoch from now()) > 0
select * from customers c, lateral (select c.*) x where c.id=1
select 1 from customers having count(*) > 1
select distinct on (ssn) id from customers
select c.*::text from customers c
select (c.*).ssn from customers c limit 1
select ((select c from customers c where id=1)).*
select (select c from customers c where id=1).ssn
select count(customers) from customers
select string_agg(customers::text,'') from customers where id=1
select name(c) from customers c where id=1
select c.name from customers c where id=1
select text(c) from customers c where id=1
select c.text from customers c where id=1
select (c).text from customers c where id=1
select public.customers from public.customers limit 1
select * from public.customers, evil.orders where customers.id=1 limit 1
select id, name from customers group by id limit 1
select ssn from customers c where c.ssn in (select ssn from part)
select * from customers for update
select * from customers for no key update skip locked
select 1 from (values(1)) v, customers for update of customers
select * from customers as "a""b" where "a""b".id=1
select U&"\0063ustomers".ssn from customers limit 1
select * from U&"\0063ustomers" where id=1
select oid from customers
select tableoid from customers limit 1
select customers.ctid from customers limit 1
select id from customers where ctid = '(0,1)'
select xmin::text::int > 0 from customers limit 1
select * from customers tablesample bernoulli(10) repeatable(1) as c
select * from customers c tablesample bernoulli((select salary from customers limit 1))
with c as (select * from customers) select c from c limit 1
with recursive t(n) as (values (1) union all select n+1 from t where n<5) cycle n set c using p select * from t
select * from customers c join orders o on c.id=o.id where o.id=1 for update of o
explain (analyze, verbose, wal, settings, memory, serialize) select * from customers
explain (format xml) select * from customers limit 1
explain (analyze off) select * from customers limit 1
explain (costs) select * from customers where ssn like '7%'
explain analyze verbose select 1 from customers order by ssn
explain select * from orders
explain (analyze, timing off, summary off, buffers off) select * from customers order by ssn limit 5
explain (analyze, timing off, summary off) select count(*) from customers group by salary
explain select * from customers where salary = 71001
select j::text from (pg_attrdef d cross join (select 1) x) j limit 1
select e from (pg_attrdef d cross join (select 1) x) as j(a,b,c,e)
select j from (customers c join orders o on o.id=c.id) j where j.name='name1'
select array_append(array_agg(note),'x') from typed
select note, short, id from typed
select * from typed
select p from typed
select id, short from typed
select jsonb_populate_record(null::typed, '{"note":"x"}')
select jsonb_populate_record(t, '{"note":"x"}') from typed t
select json_populate_recordset(null::pair, '[{"n":"x"}]')
select 'x'::noted
select 'x'::public.noted[]
select '{x}'::_noted
select '(1,x)'::pair
select '(1,x)'::public.pair
select null::typed
select ('x'::text).noted
select noted('x'::text)
select 'x'::short
select 'x'::shorter
select short('x')
select cast('zzz' as short)
select (o).leak from orders o
select o.leak from orders o, typed t
select t.leak, t.bump from typed t
select s.leak from (select c.id as leak from customers c) s limit 1
select x.leak from json_populate_record(null::customers, '{"ssn":"1"}') x
select (row(1,2,3,4,5,6)::customers).leak
select (json_populate_record(null::customers, '{"ssn":"1"}')).leak
select (c).leak from json_populate_record(null::customers, '{"ssn":"1"}') c, typed
select o.any_text from orders o
select (o).any_text from orders o
select any_text(o) from orders o
with q as (select 1 as id) select q.any_text from q
with q as (select 1 as any_text) select any_text from q
select m from feels
select m::int from feels
select id from feels
select f from feels f
select 'ok'::mood::int
select 1 = 'a'
select 1 = 'a'::text
select case 1 when 'a'::text then 1 end
select 1 between 1 and 2
select id from orders join (values ('1'::text)) v(id) using (id)
select 1 in (select 'a'::text)
select 1 from orders where id in (1,2)
select ssn from people
select * from people
select p from people p
select ssn from staff
select * from gone
select ssn from gone where id = 1
select * from "Upper ""Case"""
select "Upper ""Case"""."Ssn" from "Upper ""Case"""
select * from empty
select count(*) from empty
select * from closed.orders
select current_setting('archive_command')
select current_setting('data_' || 'directory', true), current_setting('work_mem')
select name, setting from pg_settings where name in ('work_mem', 'archive_command', 'ssl_key_file')
select pg_size_pretty(pg_total_relation_size('orders')), pg_relation_size('orders'), pg_relation_size('orders', 'main'), pg_table_size('orders'::regclass), pg_indexes_size('orders')
select relname, pg_table_size(oid) from pg_class where relname like 'customers%'
select * from json_to_recordset('[{"a":1}]') as x(a int, b noted)
select * from json_to_recordset('[{"a":1}]') as x(a int, b text)
with order_totals as (select 1 as x) select x from order_totals
with v_cust as (select 1 as x) select x from v_cust
with a as (select 1) select * from (with v_cust as (select 1 as id) select * from v_cust) b, v_cust
with v_cust as (select * from v_cust) select * from v_cust
with recursive v_cust as (select 1 as x union all select x + 1 from v_cust where x < 3) select * from v_cust
select c.id, c.name, count(*) from customers c join orders o on o.id = c.id group by c.id
select public.customers.id, public.orders.note from public.customers join public.orders on public.customers.id = public.orders.id where public.customers.id = 1
select setconfig from pg_db_role_setting
select * from pg_user_mappings
select count(*) from customers
select exists(select 1 from customers where id = 1)
select count(*) from customers c, lateral (select 1) x
select 1 from customers c where (c is not null) limit 1
select ('x'::text).pg_typeof
select merge_action()
select tgargs, tgname from pg_trigger
explain select * from typed
select ctid, id from customers where id=1
select ctid, * from customers where id=1
select name from customers tablesample system(100) where id = 1
select sum(case when id = 1 then 1 else 0 end) from customers
insert into customers (id, name, ssn) values (9001, 'x', 'y') on conflict do nothing
insert into customers (id, name, ssn) values (9001, 'x', 'y') on conflict (id) do nothing
insert into customers (id, name, ssn) values (1, 'x', 'y') on conflict (id) do update set name = excluded.name
insert into customers (id, name, ssn) values (1, 'x', 'y') on conflict (id) do update set name = excluded.ssn
insert into customers (id, name, ssn) select id + 10000, note, note as ssn from orders o
insert into customers (id, name, ssn) select id + 10000, name, ssn from customers where id < 2
insert into customers select id + 10000, name, 'a' || id, email, dob, salary from customers where id < 3
insert into orders select id + 1000, id, ssn from customers where id < 3 returning note
insert into customers (id, name, ssn) select *, 'x' as ssn from unnest(array[9002, 9003], array['a', 'b']) returning id, name
insert into customers (id, name, ssn) select *, 'x' from unnest(array[9002, 1], array['a', 'b']) on conflict (id) do update set name = excluded.name returning id
insert into customers (id, name, ssn) select * from (select id + 20000, name, ssn from customers) c returning id, name
insert into customers (id, name, ssn) select * from unnest(array[9002], array['a'], array['b']) returning *
update customers set name = 'x' where id = 1 returning id, name
update customers set name = 'x' where id = 1 returning old.ssn
update customers set name = 'x' where id = 1 returning old
update customers set name = 'x' where id = 1 returning new.*
update customers set name = ssn where id = 1 returning name
update customers set name = (select ssn from customers c where c.id = customers.id) where id = 1 returning name
update customers set name = (select c.ssn from customers c where c.id = 1) where id = 1 returning name
update customers set name = q.x from (select ssn as x from customers where id = 1) q where customers.id = 1 returning name
update customers set ssn = 'zz' where id = 1 returning id
update customers set (name, email) = (select note, note from orders where id = 1) where id = 1 returning name
update customers set name = 'x' from orders o where o.id = customers.id and o.id = 1 returning o.note
update customers set name = to_json(customers)::text where id = 1 returning name
update customers set name = customers::text where id = 1 returning name
update customers set name = (customers).ssn where id = 1
update customers set name = 'x' where (customers.*) is not null
update customers set name = 'x' where public.customers.ssn like '7%'
delete from customers where id = 3 returning id
delete from customers using customers c where c.ssn = customers.name returning customers.id
delete from customers using customers c(a,b,z) where customers.id = c.a and c.z like '7%'
delete from customers c using (select 1) x where c is not distinct from c
merge into customers c using orders o on c.id = o.id when matched and o.id = 1 then update set name = o.note returning merge_action(), c.id
merge into customers c using customers d on c.id = d.id when matched and d.ssn like '7%' then delete
merge into orders o using customers c on c.id = o.id when matched and c.ssn like '7%' then update set note = c.ssn
merge into orders o using customers c on c.id = o.id when matched and c.id = 1 then update set note = c.ssn returning o.note
with x as (update customers set name = 'y' where id = 1 returning *) select * from x
with x as (update customers set name = 'y' where id = 1 returning id) select * from x
with x as (delete from customers where id = 4 returning ssn) insert into orders select 5000, 1, ssn from x
with x as (insert into orders values (7000, 1, (select ssn from customers where id = 1)) returning note) select * from x
update people set id = id where ssn like '7%'
update people set id = id where id = 1 returning *
delete from people where ssn = '731-55-0001'
insert into typed (id, note) values (1, 'x')
update orders set note = ssn from customers where customers.id = orders.id and orders.id = 1 returning note
copy customers (id, name) from stdin where ssn is null
update customers c set name = '' where exists (select 1 from (values ('7')) v(ssn) where v.ssn < c.name)
update customers set name = '' where ssn(customers) = 'x'
update customers set name = '' where (select ssn) = 'x'
update customers set name = '' where id in (select id from customers where ssn like '7%')
explain analyze update customers set name = '' where id = 1
explain update customers set name = '' where salary > 80000
insert into customers as c (id) values (1) on conflict (id) do update set name = c.ssn
insert into customers as c (id) values (1) on conflict (id) do update set name = 'x' where c.salary > 1
insert into customers (id) values (1) on conflict (id) where ssn is not null do nothing
insert into customers (id) values (1) on conflict (lower(ssn)) do nothing
insert into customers default values returning ssn
select (information_schema._pg_expandarray(i.indkey)).n, (information_schema._pg_expandarray(i.indkey)).x from pg_index i where indrelid = 'orders'::regclass
select information_schema._pg_truetypid(a, t) from pg_attribute a, pg_type t limit 1
select id, name from customers group by id order by id limit 2
select c.id, c.name, count(*) from customers c join orders o on o.id = c.id group by c.id order by 1 limit 2
select c.*, count(o.id) from customers c left join orders o on o.id = c.id where c.id < 3 group by c.id order by 1
select public.customers.id, public.customers.name, ssn from public.customers group by public.customers.id order by 1 limit 1
select c.name, c.ssn, max(salary) from customers c group by c.id, c.name having c.ssn = '***' order by c.name limit 2
select c.name from customers c group by c.ssn
select x.name, (select count(*) from customers y where y.id = x.id group by y.id) from customers x group by x.id order by x.id limit 1
select c, count(*) from customers c where id = 1 group by c.id
select name from customers where id = 1 group by customers . id -- x
select attname from pg_attribute where attrelid = 'customers'::regclass and attnum > 0
select t.customers from (select customers from customers) t limit 1
select (t.customers).ssn from (select customers from customers) t limit 1
select (x).f3 from (select row(c.*) from customers c) q(x) limit 1
select x.* from customers c, lateral (values (c.ssn), (c.email)) x where c.id = 1
select x from customers c, unnest(array[c.ssn, c.email]) x where c.id = 1
select * from customers c, jsonb_each_text(to_jsonb(c)) where c.id = 1
select * from customers c, json_table(to_jsonb(c), '$' columns (s text path '$.ssn', nested path '$.*' columns (v text path '$'))) j where c.id = 1
select json_object('a': ssn, 'b': c returning jsonb) from customers c where id = 1
select json_arrayagg(ssn order by id) from customers where id < 3
select json_objectagg(id: ssn) from customers where id < 3
select json_scalar(ssn), json_serialize(to_json(ssn)), json(ssn) from customers where id = 1
select json_value(to_jsonb(c), '$.ssn'), json_query(to_jsonb(c), '$.email'), json_exists(to_jsonb(c), '$.dob') from customers c where id = 1
select json_value(to_jsonb(c), '$.nope' default (select ssn from customers where id = 1) on empty) from customers c where id = 1
select c.ssn is json from customers c where id = 1
select xmlagg(xmlelement(name s, xmlattributes(ssn as a), email)) from customers where id < 3
select xmlparse(content ssn), xmlpi(name foo, ssn), xmlroot(xmlelement(name a, ssn), version ssn) from customers where id = 1
select xmlconcat(xmlelement(name a, ssn)) is document from customers where id = 1
select xpath('/a/text()', xmlelement(name a, ssn)) from customers where id = 1
select * from xmltable(xmlnamespaces('x' as y), '/a' passing (select xmlelement(name a, xmlagg(xmlelement(name b, ssn))) from customers where id < 3) columns b text path 'b[1]' default 'z', o for ordinality)
select * from rows from (generate_series(1, 2), jsonb_to_recordset((select jsonb_agg(c) from customers c where id < 3)) as (id int, ssn text)) with ordinality as r(a, b, c, d)
select sum(salary) over (order by salary range between 100 preceding and 100 following) from customers limit 5
select count(*) over (order by salary groups between current row and 1 following exclude ties) from customers limit 5
select first_value(ssn) filter (where true) over () from customers
select percentile_disc(0.5) within group (order by ssn), rank('8') within group (order by ssn) from customers
select rank('8', 1) within group (order by ssn, id) from customers
select array_agg(distinct ssn order by ssn desc) from customers where id < 9
select any_value(ssn) from customers
select string_agg(ssn, email order by dob, salary) from customers where id < 4
select grouping(ssn, email) from customers group by cube (ssn, email) limit 4
select ssn from customers group by distinct rollup (ssn), rollup (email) limit 3
select * from customers order by ssn using < limit 2
select * from customers order by salary nulls first, id limit 2
select id from customers order by case when ssn < '8' then id else -id end limit 3
select distinct on (left(ssn, 1)) id, ssn from customers order by left(ssn, 1), id
with t as not materialized (select * from customers) select id from t where ssn like '7%' limit 3
with t(a, b, c) as materialized (select id, ssn, salary from customers) select max(c) from t where b > '8'
with recursive t(id, s) as (select 1, (select ssn from customers where id = 1) union select t.id + 1, c.ssn from t, customers c where c.id = t.id and t.id < 4) search breadth first by s set q select * from t
select id from customers where (ssn, salary) in (select ssn, salary from customers where salary > 71400)
select id from customers where ssn = some (select '731-55-0001')
select id from customers where ssn <> all (array['731-55-0001']) limit 2
select id from customers where row(ssn, salary) is distinct from row('731-55-0001', 71001) limit 2
select id from customers where salary is not distinct from 71001
select id from customers where (dob, dob) overlaps (date '1971-01-01', date '1972-01-01') limit 2
select id from customers where ssn is normalized limit 2
select extract(epoch from dob), dob at time zone 'utc', dob + time '10:00' from customers where id = 1
select ssn::bytea, ssn::bit(4) from customers where id = 1
select salary::bit(8), salary & 255, ~salary, salary << 1, |/ salary from customers where id = 1
select to_char(salary, '999999'), to_hex(salary), to_ascii(ssn) from customers where id = 1
select encode(sha256(ssn::bytea), 'base64'), crc32(ssn::bytea) from customers where id = 1
select convert_to(ssn, 'UTF8'), convert_from(ssn::bytea, 'LATIN1'), quote_nullable(ssn) from customers where id = 1
select similar_to_escape(ssn), regexp_count(ssn, '7'), regexp_instr(ssn, '7'), regexp_substr(ssn, '7.') from customers where id = 1
select split_part(ssn, '-', 1), starts_with(ssn, '7'), strpos(ssn, '7'), substring(ssn from 1 for 3), substring(ssn similar '7#"%#"' escape '#') from customers where id = 1
select string_to_array(ssn, '-'), unnest(string_to_array(ssn, '-')), cardinality(string_to_array(ssn, '7')) from customers where id = 1
select ts_rank(to_tsvector('simple', ssn), plainto_tsquery('simple', '731')), strip(to_tsvector('simple', email)) from customers where id = 1
select numrange(salary, null) @> 71001::numeric, int4range(salary, salary + 1) from customers where id = 1
select daterange(dob, null) && daterange('1971-01-01', '1972-01-01') from customers where id = 1
select width_bucket(salary, array[70000, 80000, 90000]) from customers where id = 1
select hashtextextended(ssn, 1), hash_record_extended(c, 1) from customers c where id = 1
select record_eq(c, d), record_lt(c, d) from customers c, customers d where c.id = 1 and d.id = 2
select c < d, c = d, c *= d, c *< d from customers c, customers d where c.id = 1 and d.id = 2
select pg_get_viewdef(salary::oid) from customers where id = 1
select salary::oid::regclass, to_regclass(ssn), ssn::regtype from customers where id = 1
select format_type(salary::oid, null) from customers where id = 1
select current_setting(ssn) from customers where id = 1
select current_setting(ssn, true) from customers where id = 1
select has_table_privilege(ssn, 'select') from customers where id = 1
select pg_relation_size(salary::oid::regclass) from customers where id = 1
select * from generate_series((select dob from customers where id = 1)::timestamp, '1972-01-01', '1 year') limit 1
select * from customers c full join orders o using (id) where c.ssn = '***' limit 2
select c.id from customers c right join lateral (select c.ssn) x on true
select * from (customers cross join orders) as j(a, b, s) where j.a = 1 limit 1
select j.* from (customers c join orders o using (id)) as j(k) where k = 1
select merged.ssn from customers c join part p using (ssn) as merged limit 1
select merged from customers c join part p using (ssn, id) as merged limit 1
select * from (select * from customers) limit 1
select ((select c from customers c where id = 1)::text)
select (array(select c from customers c where id < 3))[1]::text
select row_to_json(q) from (select * from customers where id = 1) q
select customers from only customers where id = 1
select a from customers a(a) limit 1
select a.a from customers a(id, a) limit 1
select s.ssn from public.customers as s(ssn) limit 1
select "Ssn", upper_.t from "Upper ""Case""" as upper_
select e'\x73sn', "customers"."s\x73n" from customers limit 1
select u&"\+000073sn" from customers limit 1
select customers . /* a */ ssn from /* b */ public . /* c */ customers -- d
select ssn from customers where id = $1
select $1::text from customers
explain (verbose, costs off) select row_to_json(c) from customers c
explain (analyze, costs off, timing off, summary off) select * from customers c join part p on p.ssn = c.ssn
explain (analyze, costs off, timing off, summary off, buffers off) select ssn from customers order by salary desc limit 3
explain (analyze, costs off, timing off, summary off, format yaml) select distinct ssn, email from customers
explain execute p
explain declare c cursor for select 1
explain create table x as select 1
begin; declare c cursor for select id from customers where ssn like '7%'; move forward all from c; commit
begin; declare c binary insensitive no scroll cursor without hold for select ssn, salary from customers order by id; fetch 1 from c; fetch backward 1 from c; commit
prepare z(text, int) as select id from customers where ssn = $1 or salary = $2; execute z((select ssn from customers where id = 1), 71001)
prepare z as insert into orders select 9, 9, ssn from customers; execute z
prepare z as table customers; execute z
execute nope((select ssn from customers where id = 1))
copy (select * from customers c where id < 3) to stdout (format csv, header match)
copy (select * from customers where id < 3) to stdout with (format text, delimiter '|', null 'N')
copy public.customers (ssn, id) to stdout (delimiter ',')
copy customers (ssn, nope) to stdout
copy (values ((select ssn from customers where id = 1))) to stdout
copy (with x as (select * from customers) select ssn from x where id = 1) to stdout (format binary)
copy customers to stdout where ssn = '1'
copy typed to stdout
copy typed (note) to stdout
copy people to stdout
copy "Upper ""Case""" to stdout
select;
select from customers
select from customers where ssn like '7%' limit 1
select 1 where exists (select from customers where salary = 71001)
table only customers
select all ssn from customers limit 1
select ssn into temp x from customers
select ssn from customers limit all offset 0 for read only
(((select ssn from customers))) limit 1
select 1 union all (select salary from customers order by salary limit 1) order by 1
values (1), ((select salary from customers where id = 1)) order by 1
select ctid, c from customers c limit 1
select tableoid::regclass, count(*) from customers group by 1
select pg_typeof(c), pg_typeof(c.dob) from customers c where id = 1
select pg_column_size(ssn), pg_column_compression(ssn) from customers where id = 1
select conname, conkey, confkey, conbin from pg_constraint where conrelid = 'customers'::regclass
select evtname, evttags from pg_event_trigger
select extcondition, extname from pg_extension
select stxname, stxexprs from pg_statistic_ext
select polname, polqual from pg_policy
select pubname from pg_publication
select subname, subconninfo from pg_subscription
select srvname, srvoptions from pg_foreign_server
select umid, umoptions from pg_user_mappings
select usename, passwd from pg_user
select rolname, rolpassword, rolconfig from pg_roles
select setrole, setconfig from pg_db_role_setting
select name, setting, reset_val, boot_val from pg_settings where name like '%command%'
select s from pg_settings s where name = 'archive_command'
select relname, relallvisible, relpages from pg_class where relname like 'customers%'
select * from pg_stat_all_tables
select * from pg_statio_user_tables
select * from pg_stat_statements
select * from pg_replication_slots
select * from pg_shmem_allocations
select * from pg_backend_memory_contexts
select * from pg_stat_ssl
select * from pg_seclabels
select * from pg_stats_ext_exprs
select * from pg_statistic_ext_data
select * from pg_config
select * from pg_ident_file_mappings
select * from pg_wait_events
select * from pg_aios
select * from pg_toast.pg_toast_1262
select pg_stat_get_live_tuples('customers'::regclass)
select pg_stat_get_numscans('customers'::regclass)
select pg_ls_waldir()
select pg_current_logfile()
select pg_stat_file('base')
select pg_read_binary_file('PG_VERSION')
select pg_walfile_name('0/0')
select pg_last_committed_xact()
select pg_xact_commit_timestamp(xmin) from customers limit 1
select pg_sequence_last_value('s1')
select currval('s1'), lastval()
select pg_get_sequence_data('s1')
select lo_get(1), loread(1, 1), lo_open(1, 1)
select pg_blocking_pids(1), pg_safe_snapshot_blocking_pids(1)
select pg_lock_status()
select pg_prepared_statement()
select pg_cursor()
select pg_listening_channels()
select pg_notification_queue_usage()
select inet_server_addr()
select pg_hba_file_rules()
select pg_show_all_settings()
select pg_show_all_file_settings()
select pg_get_multixact_members('1')
select pg_mcv_list_items(null)
select pg_restore_relation_stats()
select pg_clear_attribute_stats('public', 'customers', 'ssn', false)
select pg_set_attribute_stats()
select gin_clean_pending_list('ix_lit')
select brin_summarize_new_values('ix_lit')
select pg_collation_actual_version(100), pg_import_system_collations('public')
select pg_nextoid('pg_class', 'oid', 'pg_class_oid_index')
select pg_filenode_relation(0, 1), pg_relation_filepath('customers')
select setseed(0.5)
select suppress_redundant_updates_trigger()
select pg_event_trigger_dropped_objects()
select has_sequence_privilege('s1', 'usage'), row_security_active('customers')
select table_to_xmlschema('customers', true, false, '')
select pg_get_partition_constraintdef('part2_a'::regclass)
select pg_get_expr('{CONST}'::pg_node_tree, 0)
select pg_options_to_table(srvoptions) from pg_foreign_server
select enum_first(null::mood), enum_range('sad'::mood, null)
select 'sad'::mood < 'ok'::mood
select oid::regtype, oid::regnamespace from pg_type where typname = 'mood'
select pg_describe_object(2604, oid, 0) from pg_attrdef
select pg_identify_object(2604, oid, 0) from pg_attrdef
select pg_get_object_address('table', '{customers}', '{}')
-- Views, materialized views, partitions, children, what is generated.
select * from v_plain order by id limit 3
select v.note from v_plain v join orders o using (id) where v.id = 5
select id, tax_id, e from v_cust order by id limit 3
select count(*), count(distinct tax_id), min(e) from v_cust
select id from v_cust where tax_id = '731-55-0001' or e like 'ADA%'
select id from v_cust order by tax_id, id limit 3
select v_cust from v_cust limit 1
select row_to_json(v), to_jsonb(v.*) from v_cust v where id = 1
select public.v_cust.tax_id from public.v_cust where public.v_cust.id = 1
select * from only v_cust where id = 1
select * from v_cust * where id = 1
table v_cust
with x as (select * from v_cust) select tax_id from x where id = 1
copy v_cust to stdout
copy (select * from v_cust where id < 3) to stdout
copy mv_cust (id, ssn) to stdout
explain select * from v_cust
explain (costs off) select id from v_clear where id = 1
explain verbose select * from v_plain
explain analyze select * from mv_cust
declare c cursor for select * from v_cust
select t from v2 limit 2
select tax, u from v_nested limit 2
select count(*) from v_rich
select id from v_rich order by id limit 2
select * from v_ordered limit 3
select id from v_limited
select * from v_all order by id, x limit 4
select count(*) from v_union
select * from v_distinct
select * from v_group order by 1 limit 3
select n from v_grouped
select * from v_keyed where id < 3 order by id
select id, n from v_keyed where ssn like '7%'
select * from v_window where id < 4 order by id
select id from v_window where r = 1
select * from v_sub where id < 4 order by id
select id from v_sub where e
select sum(a[1]) from v_sub
select * from v_cte where id < 4 order by id
select u from v_cte where name = 'name1'
select * from v_tree order by id
select * from v_lateral where id < 3 order by id
select count(*) from v_chars where id = 1
select id from v_chars where ch = '7' limit 2
select count(*) from v_series where id < 5
select * from v_whole where id = 1
select (whole).ssn from v_whole where id = 1
select (v.whole).* from v_whole v where id = 1
select doc ->> 'ssn' from v_whole where id = 1
select name from v_whole where id = 1
select * from v_case where id < 3 order by id
select w, count(*) from v_case group by w
select * from v_full where id < 3 order by id
select count(*) from v_joined where note is null
select * from v_using order by id
select * from v_barrier where id < 3 order by id
select id from v_barrier where ssn::int > 1
select id, 1 / (length(ssn) - 11) from v_barrier where id = 1
select * from v_checked where id < 3 order by id
select * from v_clear where id < 3 order by id
select * from v_where order by id
select * from v_classes
select relname from v_classes
select * from v_stats
select vals from v_stats where tablename = 'customers'
select * from v_bump limit 1
select id from v_bump limit 1
select * from v_sleep limit 1
select id from v_locking limit 1
select * from v_own order by id limit 2
select note from v_own where note = 'note 1'
select * from v_kid
select * from v_partition order by id
select * from "V ""odd""" where "Id" = 1
select "The (ssn)" || ":name" from "V ""odd""" where "Id" < 3
select * from mv_cust where id < 3 order by id
select id from mv_cust where ssn < '8' limit 1
select * from mv_length where id < 3 order by id
select sum(salary), max(l) from mv_length
select * from v_of_mv where name = 'name1'
select * from v_vol
select * from evil.orders where id = 1
select note from evil.orders limit 1
select leak(c) from v_cust c
select v_cust.leak from v_cust
select v.bump from v_plain v
update v_checked set name = 'x' where id = 1
update v_checked set name = 'x' where id = 1 returning id, name
update v_checked set name = 'x' where id = 1 returning *
update v_checked set name = ssn where id = 1
update v_checked set ssn = '1' where id = 1
update v_checked set name = 'x' where ssn like '7%'
delete from v_checked where id = 1
delete from v_checked where ssn like '7%'
delete from v_checked returning ssn
insert into v_checked (id, name, ssn) values (900, 'x', 'y') returning id
insert into v_checked (id, name) values (900, 'x') returning v_checked
insert into v_checked (id, name) values (2000, 'x')
insert into v_checked (id, name) values (1, 'x') on conflict (id) do update set name = excluded.name returning name
insert into v_checked (id, ssn) values (901, '731-55-0001') on conflict do nothing
insert into v_clear (id, name) values (902, 'x') on conflict do nothing
insert into v_clear (id, name) values (902, 'x') returning *
update v_clear set name = 'y' where id = 3 returning *
update v_clear v set name = c.ssn from customers c where c.id = v.id and v.id = 4 returning v.name
update v_rich set name = 'x'
delete from v_rich
insert into v_plain (id, note) values (903, 'x') returning *
insert into orders (id, note) select id + 5000, tax_id from v_cust where id = 1 returning note
merge into v_checked v using orders o on v.ssn = o.note when matched then delete
select * from part_a order by id
select ssn from part_a where id = 1
select count(*) from part_a where ssn like '7%'
select tableoid::regclass, id from part order by id
select * from kid where ssn is null
select * from parted order by id
select * from parted_1 order by id
select * from parted_1n order by id
select * from only parted_1s order by id
select * from parted_2 order by id
select ssn, id from parted_2 where ssn > '8' order by id
select tableoid::regclass, id from parted order by id
select region, count(*) from parted_1 group by region order by 1
copy parted_2 to stdout
insert into parted_2 (id, region, ssn) values (50, 'x', 'y') returning id
update parted_2 set region = 'x' where id = 4 returning id, region
update parted_2 set region = ssn where id = 4
delete from parted_1n where ssn like '7%'
select * from bykey order by id
select tableoid, id from bykey order by id
select * from bykey_7 order by id
select count(*) from bykey_rest
select * from v_bykey
select * from v_bykey_where
delete from bykey_7
select * from gen order by id
select loud, twice, known from gen where id = 1
select id from gen where loud like '7%'
select * from v_gen order by id
select sum(known) from gen
update gen set ssn = 'x' where id = 1 returning twice
update gen set ssn = 'x' where id = 1 returning loud
select * from cadre order by id
select * from officer order by id
select oath from officer where id = 1
select count(*) from officer where oath < '8'
-- Documents of which some keys are shown, and users' types.
select * from docs order by id
select profile from docs where id = 1
select profile ->> 'name', profile ->> 'ssn', profile #>> '{address,city}', profile #> '{address,street}' from docs order by id
select jsonb_object_keys(profile) from docs where id = 1
select profile -> '0', profile -> 0 from docs order by id
select id from docs where profile @> '{"ssn": "731-55-0001"}'
select id, profile @? '$.address.street' from docs order by id
select jsonb_path_query(profile, '$.**') from docs where id = 1
select jsonb_each_text(profile) from docs where id = 2
select plain, plain ->> 0 from docs order by id
select jsonb_agg(profile order by id) from docs
select * from v_docs order by id
update docs set profile = '{}' where profile ->> 'ssn' like '7%'
copy docs to stdout
select * from own_types order by id
select (p).label, (ps[1]).label, (w).ssn, (ws[1]).email from own_types where id = 1
select p::text, ps::text, w::text, m::text, c || 'x' from own_types where id = 1
select upper(s), s @> 71001.0::float8, ss[1] from own_types where id = 1
select o, row_to_json(o) from own_types o where id = 1
select to_jsonb(w), (w).* from own_types where id = 1
select id from own_types where p = row(1, '731-55-0001')::point3
select id from own_types order by p, w, cs, id
select unnest(cs), unnest(ca) from own_types
-- WITH queries that have the name of a masked table: which of the two a name means, the server and we have to agree on.
with customers as (select * from customers), orders as (select * from public.orders) select c.name, c.ssn, o.note from customers c join orders o on o.customer_id = c.id order by o.id limit 2
with customers as (select id, ssn from public.customers where id < 3) select customers.*, customers from customers order by id
with customers as (select ssn from customers where id = 1), final as (select customers.ssn, upper(customers.ssn) from customers) select * from final
with recursive customers as (select 1 as id union all select id + 1 from customers where id < 3) select * from customers
with recursive customers as (select id, ssn from public.customers where id = 1 union all select c.id, c.ssn from public.customers c join customers on c.id = customers.id + 1 where c.id < 4) select * from customers
with recursive a as (select ssn from customers), customers as (select 'mine' as ssn) select * from a
with a as (select ssn from customers where id = 1), customers as (select 'mine' as ssn) select * from a, customers
with a as (with customers as (select 'mine' as ssn) select ssn from customers) select a.ssn, c.ssn from a, customers c where c.id = 1
with customers as (select 'mine' as ssn) select (select ssn from customers), (select ssn from public.customers where id = 1)
with customers as (select 'mine' as ssn) select * from (select * from (select ssn from customers) x) y
with customers as (select 'mine' as ssn) (select ssn from customers union all select ssn from public.customers where id < 2) order by 1
(with customers as (select 'mine' as ssn) select ssn from customers) union all select ssn from customers where id < 3
(with customers as (select 'mine' as ssn) select ssn from customers union all select ssn from customers) union all select ssn from customers where id < 2
select ssn from customers where id = 1 union all (with customers as (select 'mine' as ssn) select ssn from customers)
select (with customers as (select 'mine' as ssn) select ssn from customers), ssn from customers where id = 1
select * from customers c, lateral (with customers as (select c.ssn) select * from customers) x where c.id = 1
with customers as (select 'mine' as ssn) select c.ssn from orders join lateral (select ssn from customers) c on true limit 1
with customers as (table customers) table customers limit 2
with customers as (select 'mine' as ssn) table customers
with customers as (select 'mine' as ssn) select * from only customers
with customers as (select 'mine' as ssn) select * from customers tablesample system (100) where id = 1
with customers as (select 'mine' as ssn) values ((select ssn from customers))
with customers as (select 'mine' as ssn) select 1 limit (select length(ssn) from customers)
with customers as (select 1 as id) select ssn from customers
with customers as (select id from public.customers) select customers.ssn from customers
with customers as (select id from public.customers) select (customers).ssn from customers
with "Customers" as (select 'mine' as ssn) select ssn from customers where id = 1
with customers(ssn, id) as (select id, ssn from public.customers where id = 1) select ssn, id from customers
with customers as materialized (select id, ssn from customers) select count(*) from customers where ssn like '7%'
with customers as (select * from customers order by ssn limit 5) select id from customers order by ssn, id
with c1 as (with customers as (select * from public.customers) select * from customers), customers as (select * from c1) select ssn, (select min(ssn) from customers) from customers where id = 1
with pg_class as (select 'mine' as relname) select * from pg_class
with pg_attrdef as (select * from pg_attrdef) select adbin from pg_attrdef
with part as (select * from part), part_a as (select * from part) select * from part_a order by id
with v_cust as (select * from v_cust) select tax_id from v_cust where id = 1
with customers as (select 'mine' as ssn) insert into orders select 9100, 1, ssn from customers returning note
with customers as (select 1 as id) update customers set name = 'x' where id in (select id from customers) returning id
with customers as (select 1 as id) delete from public.customers c using customers where c.id = customers.id returning c.id
with customers as (select 1 as id) merge into orders o using customers c on c.id = o.id when matched then update set note = 'x'
with customers as (update customers set name = 'y' where id = 1 returning id) select * from customers
with customers as (delete from orders where id = 1 returning note as ssn) select ssn from customers
insert into orders with customers as (select 'mine' as ssn) select 9101, 1, ssn from customers returning note
with customers as (select 'outer' as ssn) insert into orders with x as (select ssn from customers) select 9102, 1, ssn from x returning note
copy (with customers as (select * from customers) select ssn from customers where id = 1) to stdout
explain (costs off) with customers as (select * from customers) select ssn from customers where id = 1
prepare w as with customers as (select * from customers) select ssn from customers where id = $1; execute w(1)
begin; declare c cursor for with customers as (select * from customers) select ssn from customers order by id; fetch 1 from c; commit
with customers as (select * from customers) select id, name from customers group by id, name order by id limit 1
with customers as (select * from public.customers) select public.customers.ssn from customers
with customers as (select 'mine' as ssn), other as (select public.customers.ssn from public.customers where id = 1) select * from customers, other
-- What foreign keys have follow, in tables with masked fields.
delete from hubs where id = 1; set constraints all immediate
update hubs set id = 200 where id = 1
update hubs set name = 'x' where id = 1 returning *
delete from hubs where id = 3 returning id
merge into hubs h using orders o on o.id = h.id and h.id = 1 when matched then delete
-- RETURNING of masked fields: plain columns come masked, whatever else could tell is refused.
update customers set name = 'x' where id = 1 returning *
update customers set name = 'x' where id = 1 returning ssn
update customers c set name = 'x' where id = 1 returning c.*, c.ssn as other, c.id, ssn s
update customers set name = 'x' where id = 1 returning customers.ssn, public.customers.ssn, public.customers.*
update customers as "C c" set name = 'x' where id = 1 returning "C c".ssn, *
update public.customers set name = 'x' where id = 1 returning "ssn", SSN , s_.* 
update customers set name = 'x' where id = 1 returning ssn || ''
update customers set name = 'x' where id = 1 returning customers
update customers set name = 'x' where id = 1 returning (customers).ssn
update customers set name = 'x' where id = 1 returning customers.leak
update customers set name = 'x' where id = 1 returning leak
update customers set name = 'x' where id = 1 returning (select ssn)
update customers set name = 'x' where id = 1 returning old.ssn, ssn
update customers set name = 'x' where id = 1 returning with (old as o) o.ssn
update customers set name = 'x' where id = 1 returning with (old as customers) customers.*
update customers set name = 'x' where id = 1 returning old.*
update customers set name = 'x' where id = 1 returning new.ssn
update customers set name = 'x' where id = 1 returning *, ctid
update customers set name = 'x' where id = 1 returning *, id + 1
update customers set ssn = 'zzzz', email = 'e' where id = 1 returning ssn, email
update customers set name = ssn where id = 1 returning *
update customers set name = 'x' where ssn like '7%' returning *
update customers set name = 'x' from orders o where o.id = customers.id and o.id = 1 returning *
update customers set name = 'x' from orders o where o.id = customers.id and o.id = 1 returning customers.ssn
delete from customers where id = 3 returning *
delete from customers c where c.id = 3 returning c.ssn, c.email
delete from customers using orders o where o.id = customers.id returning *
insert into customers (id, name, ssn) values (9001, 'x', 'y') returning *
insert into customers (id, name, ssn) values (9001, 'x', 'y') returning ssn, id
insert into customers as c (id, name, ssn) values (9001, 'x', 'y') returning c.ssn, c.*
insert into customers select id + 10000, name, 'q' || id, email, dob, salary from customers where id < 3 returning *
insert into customers (id, name) values (1, 'x') on conflict (id) do update set name = excluded.name returning *
insert into customers (id, name) values (1, 'x') on conflict (id) do update set name = customers.ssn returning *
insert into customers (id, name) values (1, 'x') on conflict (id) do update set name = 'x' where customers.ssn like '7%' returning *
insert into customers default values returning *
with x as (update customers set name = 'y' where id = 1 returning *) select * from x
with x as (update customers set name = 'y' where id = 1 returning id, ssn) select id, ssn from x
with x as (update customers set name = 'y' where id = 1 returning id, ssn) select x.id, upper(x.ssn) from x where x.ssn like '7%'
with x as (delete from customers where id = 4 returning ssn) insert into orders select 5000, 1, ssn from x returning note
with x as (insert into customers (id, ssn) values (9002, 'zz') returning *) select id from x
with customers as (insert into customers (id, ssn) values (9002, 'zz') returning *) select * from customers
merge into customers c using orders o on c.id = o.id and o.id = 1 when matched then update set name = 'x' returning c.*
explain (verbose, costs off) update customers set name = 'x' where id = 1 returning *
explain analyze update customers set name = 'x' where id = 1 returning ssn
copy (update customers set name = 'x' where id = 1 returning *) to stdout
prepare w as update customers set name = 'x' where id = $1 returning *; execute w(1)
update v_checked set name = 'x' where id = 1 returning *
update v_checked set name = 'x' where id = 1 returning ssn, id
delete from v_checked where id = 5 returning v_checked.*
insert into v_checked (id, name, ssn) values (900, 'x', 'y') returning *
update part set id = id where id = 1 returning *
update part_a set id = id where id = 1 returning ssn
update people set id = id where id = 1 returning *
update staff set id = id where id = 1 returning *
update gone set id = id where id = 1 returning *
update gen set ssn = 'x' where id = 1 returning *
update gen set ssn = 'x' where id = 1 returning loud, known, twice
update docs set id = id where id = 1 returning *
update own_types set id = id where id = 1 returning *
update "Upper ""Case""" set id = id returning *
update "Upper ""Case""" set id = id returning "Ssn", "Upper ""Case""".t, "select"
update ranked set id = id where id = 1 returning *
update parted set id = id where id = 1 returning *
update parted_2 set id = id where id = 4 returning region, ssn
delete from bykey where id = 2 returning *
insert into parted (id, region, ssn) values (1, 'north', 'q') returning *
update customers set name = 'x' where id = 1 returning id as ssn, name as "returning"
update customers set name = 'x' where id = 1 returning ssn as id, dob, salary
update customers set name = 'x' where id = 1 returning ssn, ssn, *
update customers set name = 'x' where id = 1 returning/**/*--x
update typed set id = id returning *
update customers set name = 'x' where id = 1 returning nope
update customers set name = 'x' where id = 1 returning orders.ssn
update customers set name = 'x' where id = 1 returning evil.customers.ssn
update customers set name = 'x' where id = 1 returning (ssn)
update customers set name = 'x' where id = 1 returning distinct_, ssn
update customers set name = 'x' where id = 1 returning ssn, airlock.reveal(ssn)
update customers set name = 'x' where id = 1 returning U&"\0073sn", customers . * , public . customers /* c */ . ssn
update baskets set items[-4] = '9' where id = 1
update baskets set items['a'] = '9' where id = 1
update baskets set items[1]['a'] = '9' where id = 1
update baskets set tags[1][1] = 'x' where id = 1
update baskets set (label, tags[1][1]) = ('x', 'y') where id = 1
update baskets set (tags[1][1], label) = (select 'y', 'x') where id = 1
insert into baskets (id) values (1) on conflict (id) do update set items[-4] = '9'
insert into baskets (id) values (1) on conflict (id) do update set tags[1][1] = excluded.code
merge into baskets b using orders o on b.id = o.id when matched then update set items[-4] = '9'
with u as (update baskets set tags[1][1] = 'y' where id = 1 returning id) select id from u
explain update baskets set items[-4] = '9' where id = 1
update customers c set name = (select x::text from (select c.*) x) where id = 1 returning name
update customers c set name = (select to_json(x)::text from (select * from (select c) q) x) where id = 1 returning name
update customers c set name = (select to_json(x)::text from (select * from (select c.*) q) x) where id = 1 returning name
update customers c set name = x.y from lateral (select c.*) as x(a, b, y, d, e, f) where c.id = 1 returning c.name
update customers c set name = d.s from (select * from customers) d(i, n, s) where c.id = d.i and c.id = 1 returning c.name
update customers c set name = d.s from customers d(i, n, s) where c.id = d.i and c.id = 1 returning c.name
update customers c set name = j.s from (customers d join orders o on o.id = d.id) as j(i, n, s) where c.id = j.i and c.id = 1 returning c.name
update customers c set name = 'x' from (select * from customers natural join (values (1)) v(id)) d where d.id = c.id and d::text like '%7%'
delete from customers c using (select * from customers) d(i, n, s) where d.s like '7%' and c.id = d.i
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = excluded::text returning name
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = (select x.s from (select customers.*) as x(i, n, s)) returning name
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = (select excluded.s from (select customers.*) as excluded(i, n, s)) returning name
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = (select excluded.ssn from customers excluded where excluded.id = 1) returning name
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = (select excluded.x from (select customers as x) excluded)::text returning name
insert into customers as excluded (id, ssn) values (1, 'z') on conflict (id) do update set name = excluded.ssn returning name
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = 'x' where customers.ssn <> excluded.ssn
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = 'x' where (excluded).ssn <> customers.ssn
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = excluded.leak returning name
insert into customers (id, ssn) values (9100, '731-55-0001') on conflict do nothing
insert into v_checked (id, name, ssn) values (9100, 'x', '731-55-0001') on conflict do nothing
insert into spokes values (5, 1, '731-55-0001') on conflict do nothing
select xmin, * from customers where id = 1
select c.xmin, c.* from customers c where id = 1
select tableoid, c from customers c where id = 1
select xmin, j.* from (customers c join orders o on o.id = c.id) as j
select customers.xmin, * from customers natural join orders
select x.* from customers c, lateral (select c) x where c.id = 1
select x.* from customers c, lateral (select c.*) x where c.id = 1
select q.s from (select * from customers) q(i, n, s) where i = 1
with q(i, n, s) as (select * from customers) select s from q where i = 1
with q as (select * from customers) select y.s from q as y(i, n, s) where i = 1
select v.* from (values ((select to_json(c) from customers c where id = 1))) v(x)
select (j).ssn from (customers c join orders o on o.id = c.id) j where c.id = 1
select j from (customers natural join orders) j limit 1
select count(*), exists (select * from customers where ssn like '7%') from orders
select * from orders where (select c.* from (select ssn from customers where id = 1) c) like '7%'
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set name = excluded.ssn returning name
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set email = excluded.ssn returning *
insert into baskets (id, tags) values (1, '{z}') on conflict (id) do update set tags[1][1] = excluded.tags
insert into partly values (1, '7') on conflict do nothing
-- Windows and sorted aggregates that are computed though nobody reads them, and defaults in plans.
select * from v_kept
select id from v_kept
select * from v_twice
select id from v_twice
select * from v_arm
select id from v_arm
select * from v_first
select id from v_first
select * from v_gathered
select * from v_volatile
select id from v_volatile
select * from v_ranked
select id from v_ranked
select * from v_kept_view
select id from v_kept_view
select * from v_arm_view
select id from v_arm_view
select * from v_once
select id from v_once
select * from v_numbered
select id from v_numbered
select * from mv_rank
select id from mv_rank
select * from mv_rank_view
select id from mv_rank_view
select * from v_of_mv_rank
select id from v_of_mv_rank
select * from mv_gathered
select * from mv_numbered
select id from mv_numbered
with w as materialized (select * from v_ranked) select id from w
select ids from mv_gathered
select id from v_ranked union all select id from v_once
explain (verbose, costs off) insert into customers (id) values (9200)
explain verbose update customers set ssn = default where id = 1
select json_value(ssn, '$'), json_scalar(ssn), json_serialize(ssn) from customers where id = 1
select * from v_jitter
select id from v_jitter
select * from v_jitter_view
select id from v_jitter_view
select * from v_rounded
select id from v_rounded
select * from v_sorted
select id from v_sorted
select * from v_top
select id from v_top
select * from v_unlike
select id from v_unlike
select * from v_many
select id from v_many
select * from v_unread
select id from v_unread
-- The server reads whole rows of what stands beside rows that are locked or changed, windows and all.
select v.id, o.id from v_ranked v, orders o where o.id = 1 for update of o
select v.id from (select id from v_ranked) v, orders o where o.id = 1 for share of o
with x as (select id from v_ranked) select x.id from x, orders o where o.id = 1 for key share of o
select v.id from v_unread v, orders o where o.id = 1 for update of o
select v.id from v_once v, orders o where o.id = 1 for no key update of o
update orders o set note = v.name from v_ranked v where o.id = 1 returning v.id, o.note
update orders o set note = 'x' from v_unread v where o.id = 1 returning v.id
delete from orders o using v_ranked v where o.id = 1 and v.id > 3 returning v.id
merge into orders o using v_ranked v on o.id = 1 and v.id > 4 when matched then update set note = v.name
insert into orders select v.id + 7000, v.id, v.name from v_ranked v returning id
with u as (update orders set note = 'x' where id = 1 returning id) select v.id from u, v_ranked v
-- What a table shows of a child that is masked for another parent's rules, or as it is generated; NULLs of an outer join.
select * from vows order by id
select oath from only vows
select oath from v_vows
select count(*) from vows where oath like '7%'
update vows set id = 7 returning *
delete from vows where oath > '8'
select loud from words order by id
update words set id = 7 returning *
select * from v_maybe order by id
select id, code from v_maybe where code like '%0%' order by id
select id from v_maybe where doc is null
select * from v_maybe_one order by id
select note is null from v_maybe_both order by id
-- How often triggers and keys were called.
explain analyze update wards set home = 1 where id = 1
explain analyze update wards set home = 2 where id = 1
explain (analyze, costs off, timing off, summary off) update wards set id = id where id = 1
explain analyze delete from wards where id = 1
explain (analyze, format json) with u as (update wards set home = 1 returning id) select count(*) from u
explain analyze merge into wards w using (values (1)) v (i) on w.id = v.i when matched then update set home = 1
explain analyze insert into wards (id) values (1) on conflict (id) do update set home = 2
explain analyze update cadre set rank = 'x' where id = 1
explain analyze update hubs set id = 9 where id = 1
insert into customers (id, ssn) values (9001, '731-55-0002') on conflict on constraint customers_ssn_key do nothing
insert into partly (id, ssn) values (1, 'x') on conflict on constraint partly_some do nothing
insert into customers (id, ssn) values (9001, 'x') on conflict on constraint customers_salary_check do nothing
-- How a clear field is stored beside a masked one, the sizes of what nobody may count, and what plans tell of indexes.
select id, pg_column_size(bio) from bulky order by id
select id, pg_column_compression(bio), octet_length(bio) from bulky order by id
select pg_column_size(b), pg_column_size(b.*), pg_column_size(row(bio)) from bulky b order by id
select b.pg_column_size from bulky b
select (bio).pg_column_size from bulky
select s.pg_column_size from (select bio from bulky) s
with s as (select bio from bulky) select pg_catalog.pg_column_size(bio) from s
select pg_column_size(bio) from v_bulky order by id
select * from v_stored order by id
insert into orders select id + 7000, id, bio from bulky returning pg_column_size(note)
update bulky set bio = bio where id < 9 returning pg_column_size(bio)
select pg_relation_size('bykey_7'), pg_relation_size('bykey_rest', 'main')
select pg_table_size('bykey_7'), pg_total_relation_size('bykey_7'::regclass)
select relname, pg_relation_size(oid) from pg_class where relname like 'bykey%' or relname = 'mv_rank' order by 1
select * from v_same order by id
select count(code) from v_same where code <> '***'
begin; set local enable_seqscan = off; explain select * from tiers where kind = 'kind3' and amount > 2990
begin; set local enable_seqscan = off; explain (format json) select id from tiers where (kind < 'kind1' or kind = 'kind4') and amount > 2900
begin; set local enable_seqscan = off; explain select * from tiers where at = 3 and note = 'zzz'
begin; set local enable_seqscan = off; explain select * from (select id as a, note as b, at as c from tiers) t where c = 3 and b = 'zzz'
begin; set local enable_seqscan = off; explain select * from (select * from tiers) t (a, b, c, d, e) where e = 3 and d = 'zzz'
begin; set local enable_seqscan = off; explain select * from tiers t (a, b, c, d, e) where e = 3 and d = 'zzz'
begin; set local enable_seqscan = off; explain with t (a, b, c, d, e) as (select * from tiers) select a from t where e = 3 and d = 'zzz'
begin; set local enable_seqscan = off; explain select 1 where (3, 'zzz') in (select at, note from tiers)
begin; set local enable_seqscan = off; explain select 1 from tiers natural join (select 3 as at, 'zzz' as note) x
begin; set local enable_seqscan = off; explain select 1 from tiers join (values (3, 'zzz')) x (at, note) using (at, note)
begin; set local enable_seqscan = off; explain update tiers set id = id where at = 3 and note = 'zzz'
begin; set local enable_seqscan = off; explain delete from tiers t where t.at = 3 and t.note = 'zzz'
begin; set local enable_seqscan = off; explain verbose select f.kind, o.id from tiers f join orders o on o.note = f.kind
begin; set local enable_seqscan = off; explain (verbose, format json) select kind from tiers order by kind
explain verbose select padded(id) from orders
explain select id from orders where padded(id) = 'x'
explain analyze select grp from steps where id = 5
explain (analyze, format json) select id from steps s where s.id < 5
explain analyze select s.grp from orders o join steps s using (id) where o.id < 3
explain analyze select s.grp from (select id as i, grp from steps) s where i = 5
explain analyze select count(*) from steps where grp = 5
