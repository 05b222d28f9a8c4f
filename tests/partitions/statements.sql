select count(*), min(ts), max(ts) from m
select count(*) from m_2024; select count(*) from m_2025; select count(*) from m_2025_d
select * from m where id = 3
insert into m values (100, '2024-05-05','x'),(101,'2025-05-05','a') returning *
insert into m values (102, '2030-05-05','x')
create table m_def partition of m default
insert into m values (102, '2030-05-05','x')
update m set ts = '2024-06-06' where id = 102
select * from m_def; select * from m_2024 where id=102
update m set n = n + 1 where v = 'a'
update m set n = t.g from (select generate_series(1,5) g) t where t.g = m.id
select count(*), sum(n) from m
update m set id = id + 1000 where id < 3
delete from m where id > 1000
select ts >= '2025-01-01' as late, count(*) from m group by 1 order by 1
alter table m add column w int default 7
alter table m alter n type bigint
select sum(w), sum(n) from m
create table m_2026 (like m including defaults); alter table m_2026 add column zz int; alter table m_2026 drop column zz
insert into m_2026 values (7,'2026-02-02','q',1,1)
alter table m attach partition m_2026 for values from ('2026-01-01') to ('2027-01-01')
select * from m where ts > '2026-01-01'
insert into m_2026 values (8,'2026-02-03','q',1,1); insert into m_2026 values (8,'2022-02-03','q',1,1)
alter table m detach partition m_2024
select count(*) from m
select count(*) from m_2024
alter table m attach partition m_2024 for values from ('2024-01-01') to ('2025-01-01')
select count(*) from m
drop table m_2025_a
select count(*) from m
copy m from program 'printf "201\t2024-07-07\tz\t1\t1\n202\t2030-01-01\tz\t1\t1\n"'
select * from m where id > 200 order by 1
select m.id, x.v from m join m_2024 x using (id, ts) where id = 201 order by 1
truncate m_2024; select count(*) from m
analyze m; vacuum m
create index m_n on m(n); drop index m_n
select * from m order by id limit 3 for update
begin; declare c cursor for select * from m where v = 'z' for update; fetch 1 from c; update m set n = 99 where current of c; commit
select id, n from m where v='z'
insert into m values (201,'2024-07-07','up') on conflict (id, ts) do update set v = excluded.v
insert into m select id + 5000, ts, v from m where v='z'
merge into m using (values (5201, date '2024-07-07')) s(id,ts) on m.id=s.id and m.ts = s.ts when matched then update set v='merged' when not matched then insert (id, ts, v) values (s.id, s.ts, 'new')
select id, v from m where id > 5000 order by 1
select count(*) from only m; update only m set n = 5; select count(*) from (select * from m) x, lateral (select 1 from m y where y.id = x.id and y.ts = x.ts) z
with w as (update m set n = n + 1 where id = 201 returning *), d as (delete from m where id = 5202 returning *) select w.id, d.id from w, d
prepare p(int) as select v from m where id = $1; execute p(201); alter table m rename v to vv; alter table m rename vv to v; execute p(201); deallocate p
alter table m rename id to key; select count(*) from m where key = 201; insert into m_def (key, ts, v) values (301, '2035-01-01', 'k'); alter table m rename key to id
alter table m_def rename to m_rest; select * from m_rest order by id; select * from m where id = 301
create table m_2024_7 partition of m_2024 for values from ('2024-07-01') to ('2024-08-01')
begin; create table m_2023 partition of m for values from ('2023-01-01') to ('2024-01-01'); insert into m values (400, '2023-03-03', 'new'); select count(*) from m_2023; rollback
select count(*) from m where id = 400; create table m_2023 partition of m for values from ('2023-01-01') to ('2024-01-01'); insert into m values (400, '2023-03-03', 'new'); select * from m_2023
create table if not exists m_2023 partition of m for values from ('2023-01-01') to ('2024-01-01')
create table m_2030 partition of m for values from ('2030-01-01') to ('2031-01-01')
delete from m_rest where ts >= '2030-01-01' and ts < '2031-01-01'; create table m_2030 partition of m for values from ('2030-01-01') to ('2031-01-01'); insert into m_2030 values (500, '2030-05-05', 'x')
alter table m add constraint positive check (n >= 0); insert into m values (600, '2024-02-02', 'x', -1); alter table m drop constraint positive; insert into m values (600, '2024-02-02', 'x', -1)
alter table m_2030 add constraint only_here check (v <> 'never'); insert into m values (501, '2030-06-06', 'never')
truncate m_2023; drop table m_2023, m_2030
truncate m; select count(*) from m
drop table m
