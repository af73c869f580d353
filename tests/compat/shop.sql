-- What the corpus asks about: one of each kind of object that tools look at. Invented, like the rest.
create type mood as enum ('sad', 'glad');
create domain short as text check (length(value) < 100);
create type place as (street text, number int);
create sequence s1 start 5;
create table customers (
    id int generated always as identity primary key, name text not null default 'nobody', email short unique, born date,
    mood mood, home place, tags text[] default '{}', paid numeric(10, 2) check (paid >= 0), upper_name text generated always
    as (upper(name)) stored
);
comment on table customers is 'who buys';
comment on column customers.name is 'as they write it';
insert into customers (name, email, born, mood, home, tags, paid)
    select 'name ' || g, 'm' || g || '@example.test', date '1990-01-01' + g, 'glad'::mood, row('Elm'::text, g)::place, array['a', 'b'], g * 1.5
    from generate_series(1, 20) g;
create table orders (
    id bigserial primary key, customer_id int not null references customers on delete cascade, note text,
    at timestamptz not null default '2024-01-02 03:04:05+00', body jsonb
);
create index orders_note on orders (lower(note)) where note is not null;
insert into orders (customer_id, note, body) select 1 + g % 20, 'note ' || g, '{"a": 1}' from generate_series(1, 50) g;
create view v_cust as select id, name from customers where id < 10;
create materialized view mv_cust as select id, name from customers;
create table parted (id int, region text) partition by list (region);
create table parted_north partition of parted for values in ('north');
create function total(integer) returns bigint stable language sql as 'select count(*) from orders where customer_id = $1';
create function noted() returns trigger language plpgsql as $$ begin raise notice 'noted %', new.id; return new; end $$;
create trigger tell after insert on parted for each row execute function noted();
create table loaded (id int, what text);
create schema tools;
create table tools.loaded (what text);
insert into tools.loaded values ('of tools');
create table log (id int primary key deferrable initially deferred, what text);
-- A page each, so that what is rolled back later changes no size.
insert into loaded values (1, 'a');
insert into log values (1, 'a');
insert into parted values (1, 'north');
delete from loaded;
delete from log;
delete from parted;
