create table m(id int, ts date not null, v text, n int default 0, primary key (id, ts)) partition by range (ts);
create table m_2024 partition of m for values from ('2024-01-01') to ('2025-01-01');
create table m_2025 partition of m for values from ('2025-01-01') to ('2026-01-01') partition by hash (id);
create table m_2025_a partition of m_2025 for values with (modulus 2, remainder 0);
create table m_2025_d partition of m_2025 for values with (modulus 2, remainder 1);
create index on m(v);
insert into m select i, '2024-03-01'::date + i*20, case when i%3=0 then 'a' else 'b' end from generate_series(1,30) i;
