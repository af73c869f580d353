-- Changes that read nothing masked of the rows that they change, one a line: each runs, with the same answer in both worlds.
update customers c set name = v.n from (values (1, 'x')) v(i, n) where c.id = v.i
update customers set name = u.n from unnest(array[1, 2], array['x', 'y']) as u(i, n) where id = u.i
update customers c set name = s.note from (select * from orders) s where s.customer_id = c.id and c.id = 1
delete from customers using (values (1), (2)) v(x) where customers.id = v.x
with gone as (delete from customers where id = 3 returning id, name) select * from gone
with gone as (delete from customers where id = 3 returning *) select * from gone
with gone as (delete from customers where id = 3 returning id, name) insert into orders select g.* from (select id + 1000, id, name from gone) g
with made as (insert into customers (id, ssn) values (9005, 'n') returning id, ssn) select * from made
insert into customers (id, name, ssn) values (1, 'x', 'y') on conflict (id) do update set ssn = excluded.ssn, name = excluded.name
insert into customers (id, email) values (1, 'e') on conflict (id) do update set email = excluded.email where customers.name <> 'x' returning *
insert into baskets (id, code) values (1, 'x') on conflict do nothing
insert into baskets (id, code) values (1, 'x') on conflict on constraint baskets_pkey do update set code = excluded.code
insert into baskets (id, spot.x) values (9, 1)
merge into customers c using (values (1, 'x')) v(i, n) on c.id = v.i when matched then update set name = v.n, ssn = 'y' when not matched then insert (id, name, ssn) values (v.i, v.n, 'z')
