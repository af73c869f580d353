-- RETURNING beside other rows, from a WITH, and upserts that keep what is there: each runs, with the same answer in both worlds.
with d as (delete from customers where id < 3 returning ssn) select ssn from d
with d as (delete from customers where id < 3 returning *) select d.*, upper(d.email) from d order by id
with u as (update customers set name = 'z' where id < 3 returning id, ssn) select u.id, c.ssn, u.ssn, upper(u.ssn) from u join customers c on c.id = u.id order by 1
with a as (select id, ssn from customers where ssn like '%') update customers c set name = 'z' from a where a.id = c.id and c.id = 1 returning c.*
update customers c set name = o.note from orders o where o.customer_id = c.id and c.id = 1 returning c.ssn, o.note
update customers c set name = o.note from orders o where o.customer_id = c.id and c.id = 1 returning *
update customers c set name = o.note from orders o join hubs h on h.id = o.id, lateral (select 1 as one) z where o.customer_id = c.id and c.id = 1 returning *, now() is null
update ranked r set note = c.name from customers c where c.id = r.id and r.id = 1 returning r.code, c.ssn, r.*
delete from customers c using people p where p.id = c.id and p.ssn <> 'x' returning c.ssn, p.ssn
delete from customers where id = 3 returning id, ssn, 1, now() is null, upper(name)
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set ssn = coalesce(excluded.ssn, 'none')
insert into customers (id, ssn) values (1, 'z') on conflict (id) do update set ssn = coalesce(excluded.ssn, customers.ssn), name = 'q' returning ssn
insert into customers as c (id, ssn) values (1, 'z') on conflict (id) do update set ssn = coalesce(excluded.ssn, 'x', c.ssn) returning *
insert into customers (id, ssn, name) values (1, 'z', 'y') on conflict (id) do update set (ssn, name) = (excluded.ssn, excluded.name)
insert into customers (id, ssn, name) values (1, 'z', 'y') on conflict (id) do update set (ssn, name) = row(excluded.ssn, upper(excluded.name))
update customers set name = 'x' where id = 1 returning (ssn), ((customers.email)), (id)
delete from customers where id = 1 returning (ssn) as s, (name)
insert into customers (id, name) values (1, 'z') on conflict on constraint customers_pkey do update set name = excluded.name returning *
