-- Reads of tables with masked fields that show nothing masked, one a line: each answers as it does without a broker.
select id, name, count(*) from customers group by grouping sets ((id), (id, name)) order by 1, 3 limit 4
select c.id, c.name, o.note, grouping(o.note), count(*) from customers c join orders o on o.id = c.id group by c.id, rollup (o.note) order by 1, 4 limit 4
select c.id, c.name, o.note, count(*) from customers c join orders o on o.id = c.id group by cube (o.note), grouping sets ((c.id), (c.id, o.customer_id)) order by 1, 3, 4 limit 4
select id, name from customers group by (id, name) order by 1 limit 2
select id, name from customers group by (id), (id, name) order by 1 limit 2
select name, count(*) from customers group by ((id)), lower(name) order by 1 limit 2
select id, name, count(*) from customers group by 1 order by 1 limit 2
select c.id, name, note from customers c join orders o using (id) group by id, note order by 1 limit 2
select name from customers group by distinct grouping sets ((id), (id)) order by id limit 2
select name, (select count(*) from orders o where o.customer_id = c.id group by o.customer_id) from customers c group by c.id order by 1 limit 2
select id, name, row_number() over (order by id) rn, lag(name) over (order by id), lead(id, 2, 0) over w, ntile(4) over w from customers window w as (order by id) order by id limit 5
select id, first_value(name) over (partition by id % 3 order by id desc), nth_value(name, 2) over (partition by id % 3 order by id rows between unbounded preceding and unbounded following) from customers order by id limit 5
select c.id, x.n from customers c cross join lateral (select count(*) n from orders o where o.customer_id = c.id) x order by 1 limit 5
select c.id, x.* from customers c left join lateral (select o.id oid, o.note from orders o where o.customer_id = c.id order by o.id desc limit 2) x on true order by 1 limit 5
select c.id, g from customers c, generate_series(1, c.id) g where c.id < 4 order by 1, 2
select json_agg(row_to_json(x)) from (select id, name from customers where id < 3 order by id) x
select json_object_agg(id, name order by id) from customers where id < 4
select array_agg(name order by id) from customers where id < 4
select date_bin('15 minutes', timestamp '2026-01-01 10:07', timestamp '2026-01-01'), make_date(2026, 1, 1), now() > '2020-01-01', clock_timestamp() > now() - interval '1 day' from customers limit 1
with recursive t(n) as (select 1 union all select n + 1 from t where n < 5) select n, c.name from t join customers c on c.id = n order by 1
with recursive tree as (select id, name, 1 lvl, array[id] path from customers where id = 1 union all select c.id, c.name, lvl + 1, path || c.id from customers c join tree t on c.id = t.id + 1 where lvl < 4) select * from tree order by lvl
with a as materialized (select id, name from customers where id < 4), b as not materialized (select id, note from orders where id < 4) select * from a join b using (id) order by id
select id, name from customers where id < 3 union all select id, note from orders where id < 3 order by 1, 2
select id from customers where id < 10 intersect select id from orders where id > 5 except select 7 order by 1
(select id from customers order by id limit 2) union (select id from orders order by id desc limit 2) order by 1
select id from customers except all select customer_id from orders order by 1 limit 3
select c.id, exists (select from orders o where o.customer_id = c.id and o.note like 'note%') from customers c order by 1 limit 3
select id, name from customers c where not exists (select 1 from orders o where o.customer_id = c.id) order by id limit 3
select id from customers where id in (select customer_id from orders where note like '%5') order by 1 limit 3
select id from customers where id = any (array[1, 2, 3]) and id <> all ('{2}') order by 1
select id from customers where (id, name) in (values (1, 'name1'), (2, 'zzz')) order by 1
select id from customers where (id, name) > (1, 'a') order by id, name limit 3
select id, case when id % 2 = 0 then 'even' else 'odd' end, coalesce(name, 'x'), nullif(name, 'name1'), greatest(id, 3), least(id, 2) from customers order by 1 limit 3
select upper(name), lower(name), initcap(name), length(name), substr(name, 2, 3), substring(name from 'n(.)'), position('a' in name), overlay(name placing 'X' from 1 for 1), trim(both 'n' from name), lpad(name, 10, '*'), repeat(name, 2), reverse(name), replace(name, 'name', 'x'), split_part(name, 'a', 1), left(name, 2), right(name, 1), md5(name), translate(name, 'nm', 'xy'), regexp_replace(name, '[0-9]', '#', 'g'), concat_ws('-', id, name), format('%s is %I', id, name), quote_literal(name), ascii(name), chr(65), to_hex(id), strpos(name, 'm'), starts_with(name, 'na') from customers order by id limit 2
select name ilike 'NAME%', name ~ '^n', name ~* 'N', name similar to 'n%', name !~ 'z', name like any (array['%1', '%2']) from customers order by id limit 2
select regexp_matches(name, '([a-z]+)(\d+)'), regexp_split_to_array(name, 'm') from customers order by id limit 2
select to_tsvector('english', note) @@ plainto_tsquery('english', 'note'), ts_rank(to_tsvector(note), to_tsquery('note')), ts_headline(note, to_tsquery('note')) from orders order by id limit 2
select * from (values (1, 'a'), (2, 'b')) v(id, x) join customers c using (id) order by c.name limit 0
select c.id, o.id from customers c natural join orders o order by 1 limit 2
select c.id from customers c right join orders o on o.customer_id = c.id order by 1 limit 2
select distinct on (id % 5) id % 5, name from customers order by id % 5, id
select distinct id % 3 from customers order by 1
select id, name from customers order by name collate "C" desc nulls last, id fetch first 3 rows only
select id from customers order by id fetch first 2 rows with ties
select id from customers order by id offset 3 rows fetch next 2 rows only
select id, name from customers tablesample bernoulli (100) order by id limit 2
select id, name from only customers order by id limit 2
select customers.* from customers where false
select id % 10 as bucket, count(*), sum(id) from customers group by bucket having count(*) > 5 order by bucket limit 3
select id % 3, id % 2, count(*), grouping(id % 3, id % 2) from customers group by cube (id % 3, id % 2) order by 1, 2, 4
select pg_size_pretty(pg_table_size('orders')), 'orders'::regclass::text, to_regclass('nope')
select id, (select max(o.id) from orders o where o.customer_id = c.id) from customers c order by 1 limit 2
select (select array(select o.note from orders o where o.customer_id = c.id order by 1)) from customers c where c.id < 3 order by c.id
select row(id, name), (row(id, name)).f1 from customers where id = 1
select (c).name, (c).id from customers c where id = 1
select c.name from customers as c(id, name) where c.id = 1
select t.* from (select id, name from customers) as t(a, b) where a = 1
select x from (select id, name from customers where id = 1) x
select to_jsonb(x) - 'name', x.name from (select id, name from customers where id = 1) x
select * from v_clear where id = 1
select * from v_plain order by id limit 2
select id, name from v_checked where id = 1
select id from v_barrier where id < 3 order by 1
select customer_id, n from v_group order by 1 limit 2
select id, region from parted order by id limit 3
select tableoid::regclass, id from parted order by id limit 3
select * from part_a where id = 1 and false
select id, badge from staff order by 1 limit 2
select id from people order by 1 limit 2
select id, rank from officer order by 1
select id, name from kid
values (1, 'a'), (2, 'b')
table orders
select 1 as one, 'x' as two, null as three, true as four, 1.5 as five, array[1, 2] as six, '{"a": 1}'::jsonb as seven
select * from rows from (generate_series(1, 3), unnest(array['a', 'b'])) with ordinality as r(a, b, n)
select id, name from customers where name = $$name1$$
select id, name from customers where id = 1 and name is not null and (name <> '') is true
select id is distinct from 1, id is not distinct from 1, id isnull from customers order by id limit 1
select not (id = 1), (id = 1) is unknown, id between symmetric 5 and 1 from customers order by id limit 1
select width_bucket(id, array[1, 100, 200]) b, count(*) from customers group by b order by b
select count(*) over (), sum(count(*)) over (order by id % 3) from customers group by id % 3 order by id % 3
select id, name, rank() over (partition by id % 2 order by id) r from customers order by r, id limit 3
select * from (select id, row_number() over (order by id) rn from customers) s where rn <= 2
select id, sum(id) over (order by id range between 1 preceding and current row) from customers order by id limit 3
select o.id, o.note, c.name from orders o join customers c on (c.id = o.customer_id) where c.name in ('name1', 'name2') order by o.id
select count(*), count(name), max(length(name)) from customers where id > 10 and name like 'name1%'
select c.id::text || ':' || c.name as k from customers c order by 1 limit 1
select distinct c.name from customers c join orders o on o.customer_id = c.id order by c.name limit 2
select coalesce(sum(o.id), 0) from orders o where o.customer_id = -1
select case count(*) when 0 then 'none' else 'some' end from customers where id < 0
select (c).name, count(*) from customers c join orders o on o.customer_id = c.id group by c.id order by 1 limit 2
select c is null, c.name, count(o.*) from customers c left join orders o on o.customer_id = c.id group by c.id, o.note order by c.id limit 2
select to_jsonb(c) ->> 'name', array_agg(o.note) from customers c join orders o on o.customer_id = c.id group by (c.id) order by c.id limit 2
