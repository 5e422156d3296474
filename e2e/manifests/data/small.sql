-- What a small company keeps: several kinds of tables in two databases, about 20 MB.
create database shop;
create database accounts;

\connect shop
create schema archive;
create table customers (
    id      bigint generated always as identity primary key,
    name    text not null,
    city    text,
    since   date not null
);
insert into customers (name, city, since)
select 'customer ' || n, case when n % 7 = 0 then null else 'city ' || n % 97 end, date '2020-01-01' + n % 2000
from generate_series(1, 20000) n;
create index on customers (city);

create table orders (
    id       bigint not null,
    customer bigint not null references customers,
    placed   timestamptz not null,
    total    numeric(12, 2) not null
) partition by range (placed);
create table orders_2025 partition of orders for values from ('2025-01-01 00:00+00') to ('2026-01-01 00:00+00');
create table orders_2026 partition of orders for values from ('2026-01-01 00:00+00') to ('2027-01-01 00:00+00');
insert into orders
select n, 1 + n % 20000, timestamptz '2025-01-01 00:00+00' + n * interval '10 minutes', n % 10000 / 100.0
from generate_series(1, 100000) n;

-- Long values leave the table for its TOAST table.
create table documents (id int primary key, body text not null);
insert into documents
select n, (select string_agg(md5((n * k)::text), ' ') from generate_series(1, 200) k)
from generate_series(1, 500) n;

create table archive.empty (id int primary key);
create unlogged table cache (id int primary key, value text);

\connect accounts
create table "Ledger" (entry int primary key, amount money, note jsonb);
insert into "Ledger" select n, n::money, jsonb_build_object('entry', n, 'tags', array['a', 'b']) from generate_series(1, 5000) n;
-- Rows that were changed and removed leave dead versions behind.
update "Ledger" set note = note || '{"checked": true}' where entry % 3 = 0;
delete from "Ledger" where entry % 11 = 0;
