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
