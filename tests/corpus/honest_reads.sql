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
