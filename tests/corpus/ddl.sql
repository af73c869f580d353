-- Changes of the schema, tried under a role for which customers and part are masked.
-- harmless
create table t (id int primary key, name text not null default 'x', n numeric(10, 2) unique)
create table if not exists t (id bigint generated always as identity, at timestamptz[], unique (id))
create table t (id uuid default gen_random_uuid() primary key, at timestamptz default now(), j jsonb default '{}'::jsonb)
drop table if exists none_such
create table t as select * from customers
create table t (a, b) as select ssn, email || salary::text from customers where ssn < '8' order by ssn
create table t as select row_to_json(c) as j from customers c with no data
create table t as select c, upper(ssn) as u from customers c join orders o on o.note = c.ssn
select ssn, count(*) into t from customers group by ssn
alter table orders add column x int default 3
alter table orders drop column note
create index on orders (id)
create unique index i on public.orders using btree (id) include (note)
comment on table orders is 'x'
comment on column public.orders.note is 'it''s'
drop table am
-- telling
create table t as with x as (delete from customers returning ssn) select * from x
create table t as with x as (update customers set name = ssn returning id) select * from x
create table customers (id int)
create table evil.customers (id int)
create table t (like customers including all)
create table t (id int) inherits (customers)
create table t (id int, ssn text references customers (ssn))
create table t (id int, ssn text check (ssn <> ''))
create table t (x text default (select ssn from customers limit 1))
create table t (x text default public.bump())
create table t (x text generated always as (y || 'x') stored, y text)
create table t (e evil.d)
create table t partition of part for values in (9)
create temp table t (id int)
create temp table customers as select 'x' as ssn
create temp table t as select ssn from customers
create table pg_temp.t as select ssn from customers
create table t as select airlock.reveal(ssn) from customers
create table t as select public.leak(c) from customers c
create table t as execute p
create materialized view t as select ssn from customers
create materialized view t as select id from orders
create view t as select ssn from customers
create or replace view v_cust as select id, ssn as tax_id, email as e from customers
create recursive view t (n) as select 1
create rule r as on insert to orders do also insert into audit_log select ssn from customers
create rule "_RETURN" as on select to orders do instead select id, id, ssn from customers
create trigger tr before insert on orders for each row execute function public.bump()
create policy p on orders using (exists (select from customers c where c.ssn = note))
create policy p on customers using (ssn > '8')
create function t() returns setof text language sql as 'select ssn from customers'
create function upper(text) returns text language sql as 'select ssn from customers limit 1'
create procedure t() language plpgsql as $$begin end$$
create operator === (leftarg = text, rightarg = text, function = texteq)
create aggregate t(text) (sfunc = textcat, stype = text)
create cast (text as int) with inout
create domain t as text check (public.bump() is not null)
create type t as enum ('x')
create sequence t owned by customers.id
create index on customers (ssn)
create unique index on customers (left(ssn, 1))
create unique index on orders (left(note, 1))
create index on orders (public.imm())
create index on orders (id) where note > 'x'
create statistics t on id, ssn from customers
alter table customers rename to clear
alter table customers rename column ssn to id2
alter table customers rename constraint customers_pkey to x
alter table customers set schema evil
alter table customers add column x text
alter table customers add column x text generated always as (ssn) stored
alter table customers alter column ssn set default 'x'
alter table customers alter column ssn type text using id::text
alter table customers alter column id type text using ssn
alter table customers drop column salary
alter table customers drop constraint customers_pkey
alter table customers add check (ssn < '8')
alter table customers validate constraint customers_salary_check
alter table customers enable row level security
alter table customers disable trigger all
alter table customers inherit orders
alter table customers replica identity full
alter table customers owner to lvl_read
alter table orders rename to customers
alter table orders rename to clear
alter table orders rename column note to ssn
alter table orders inherit customers
alter table orders add foreign key (note) references customers (ssn)
alter table orders add constraint x check (note <> (select ssn from customers limit 1))
alter table orders alter note type text using public.leak(null)
alter table orders alter note type varchar(3)
alter table orders drop column note cascade
alter table orders add column x text default public.bump()
alter table orders attach partition customers default
alter table part detach partition part_a
alter table part_a add column x int
alter table kid add column x int
alter table kid no inherit customers
alter table kid drop column ssn
alter view v_cust rename column tax_id to id2
alter view v_cust alter tax_id set default 'x'
alter materialized view mv_cust rename to clear
alter type en rename to x
alter type en rename value 'canary-a' to 'x'
alter function public.leak(customers) rename to lower
alter index ix_lit rename to x
alter sequence s1 owned by customers.id
alter sequence s1 restart
drop table orders
drop table customers
drop table customers cascade
drop table orders cascade
drop table kid
drop table part_a
drop view v_cust
drop materialized view mv_cust
drop index ix_lit
drop function public.leak
drop schema evil cascade
drop type en cascade
drop trigger tr on customers
drop policy p on customers
drop rule r on customers
comment on table customers is 'x'
comment on column customers.ssn is 'x'
comment on function public.leak is 'x'
comment on view v_cust is 'x'
refresh materialized view mv_cust
cluster customers using customers_pkey
vacuum full customers
vacuum
analyze customers
analyze
reindex table customers
reindex schema public
grant select on customers to public
grant select (ssn) on customers to lvl_read with grant option
grant lvl_write to lvl_read
revoke all on customers from lvl_read
alter default privileges in schema public grant select on tables to public
alter default privileges grant select on tables to public
create schema t
create schema authorization lvl_write create view x as select * from customers
alter schema public rename to other
create extension hstore
create extension dblink
create server s foreign data wrapper postgres_fdw
import foreign schema public from server s into evil
create foreign table t (ssn text) server s
create publication t for table customers
create subscription t connection 'host=x' publication t
create event trigger t on ddl_command_end execute function public.bump()
create language plperl
create text search dictionary t (template = simple)
create collation t (locale = 'C')
create access method t type index handler bthandler
create user mapping for current_user server s
security label on table customers is 'x'
do $$begin execute 'create table t as select ssn from customers'; end$$
load 'x'
reassign owned by lvl_write to lvl_read
drop owned by lvl_write
alter table orders add x int; select * from orders
create table t (id int); select * from customers
drop table orders; select note from orders
select ssn into temp t from customers
select id from orders union select ssn into t from customers
with x as (select ssn into t from customers) select * from x
insert into orders select 1, 1, ssn into t from customers
explain create table t as select ssn from customers
explain analyze create table t as select ssn from customers
prepare x as create table t as select 1
copy (select ssn into t from customers) to stdout
declare c cursor for select ssn into t from customers
drop table if exists customers
create table t (x text default public.any_text(now()))
