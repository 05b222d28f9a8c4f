-- Columns assigned together, in another order than the table's.
UPDATE t SET (c, a) = (SELECT 7, 8) WHERE k = 1 RETURNING k, a, c;
UPDATE t SET (c, a) = (SELECT 7, 8) RETURNING k, a, c;
UPDATE t SET (c, s, a) = (SELECT 7, 'z', 8), n = 3 WHERE k = 1;
UPDATE t SET n = 5, (c, a) = (SELECT 7, 8), (arr, s) = (SELECT ARRAY[1], 'x') WHERE k = 1 RETURNING *;
UPDATE t SET (n, arr) = (SELECT 5, ARRAY[6]), (s, c) = (SELECT 'x', 9), (a) = ROW(3) WHERE k IN (1, 2);
UPDATE t SET (c, a) = (SELECT max(x), min(x) FROM u WHERE u.k = t.k) WHERE t.k = 3;
UPDATE t SET (c, a) = (SELECT max(x), min(x) FROM u WHERE u.k = t.k);
UPDATE t SET (c, a) = (SELECT t.a, t.c) WHERE k = 2;
UPDATE t SET (s, c) = (SELECT y, x FROM u WHERE u.k = 3 ORDER BY x LIMIT 1) WHERE k = 3;
UPDATE tv SET (first, second) = (SELECT 1, 2) WHERE k = 4;
UPDATE tv SET (second, first) = (SELECT 1, 2), arr[3] = 5 WHERE k = 4 RETURNING *;
INSERT INTO t (k) VALUES (1) ON CONFLICT (k) DO UPDATE SET (c, a) = (SELECT 7, 8) RETURNING a, c;
INSERT INTO t (k, a) VALUES (1, 3), (20, 4) ON CONFLICT (k) DO UPDATE SET (c, a) = (SELECT excluded.a, 8);
INSERT INTO t (k, a) VALUES (2, 3) ON CONFLICT (k) DO UPDATE SET (c, a) = ROW (excluded.a, 8), arr[1] = 9, arr[2] = 8;
INSERT INTO tv (k) VALUES (2) ON CONFLICT (k) DO UPDATE SET (second, first) = (SELECT 7, 8);
WITH w AS (UPDATE t SET (c, a) = (SELECT 7, 8) WHERE k = 1 RETURNING a, c) SELECT * FROM w;
-- Several assignments to parts of one column.
UPDATE t SET arr[1] = 5, arr[2] = 6 WHERE k = 1 RETURNING arr;
UPDATE t SET arr[1] = 5, arr[2] = 6, arr[4] = 7;
UPDATE t SET arr[2] = 6, a = 3, arr[1] = 5, s = 'x', arr[2] = 7 WHERE k = 1;
UPDATE t SET arr[1:2] = '{8,9}', arr[2] = 1 WHERE k = 1;
UPDATE t SET arr[a / 10] = 5, arr[a / 10 + 1] = a + 1 WHERE k = 1;
UPDATE t SET v.i = 1, v.j = 'x' WHERE k = 1 RETURNING v;
UPDATE t SET v.j = 'x', v.i = 1;
UPDATE t SET v.i = (v).i + 1, v.j = (v).j || 'x' WHERE k = 5;
UPDATE t SET j['a'] = '1', j['b'] = '2' WHERE k = 1 RETURNING j;
UPDATE t SET j['a'] = '1', j['b']['c'] = '2', j['k'] = to_jsonb(a);
UPDATE t SET w.p.i = 5, w.p.j = 'q', w.n[2] = 6, w.n[1] = 3, w.o.i = 9 WHERE k = 1 RETURNING w;
UPDATE t SET w.p.i = 5, w.p.j = 'q', w.n[2] = 6, w.n[1] = 3, w.o.i = 9;
UPDATE t SET q[1] = 4, q[2] = 5, q[3] = 6 WHERE k = 1 RETURNING q;
UPDATE t SET q[1] = 4, q[2] = 5;
UPDATE t SET q[1] = -1, q[2] = 5 WHERE k = 1;
UPDATE t SET two[1][1] = 4, two[1][1] = 5 WHERE k = 1;
UPDATE tv SET arr[1] = 5, v.i = 2, arr[2] = 6, v.j = 'x' WHERE k = 1 RETURNING *;
UPDATE t SET arr[1] = x, arr[2] = x + 1 FROM u WHERE u.k = t.k AND t.k = 3 AND u.x < 10;
-- Both.
UPDATE t SET (arr[1], arr[2]) = (SELECT 7, 8) WHERE k = 1 RETURNING arr;
UPDATE t SET (arr[1], arr[2]) = (SELECT 7, 8);
UPDATE t SET arr[1] = 3, (c, arr[2], a) = (SELECT 7, 8, 9), arr[2] = 1, (v.j, s, v.i) = (SELECT 'jj', 'ss', 3) WHERE k = 1;
UPDATE t SET (v.i, arr[1]) = (SELECT 7, 8), (v.j, arr[2]) = (SELECT 'x', 9), v.i = 0 WHERE k = 1;
UPDATE t SET (q[2], q[1]) = (SELECT 7, 8) WHERE k = 1;
UPDATE t SET v.i = (SELECT max(x) FROM u WHERE u.k = 1), v.j = (SELECT min(y) FROM u WHERE u.k = 1) WHERE k = 1;
UPDATE t SET arr[1] = (SELECT max(x) FROM u WHERE u.k = t.k), arr[2] = (SELECT 2) WHERE k = 1;
UPDATE t SET (v.i, v.j) = (SELECT max(x), 'm' FROM u WHERE u.k = t.k);
-- The same in INSERT.
INSERT INTO t (k, arr[1], arr[2]) VALUES (30, 1, 2) RETURNING arr;
INSERT INTO t (k, arr[1], arr[3], v.j, v.i) VALUES (30, 1, 2, 'a', 3), (31, 4, 5, 'b', 6), (32, 7, 8, 'c', 9) RETURNING k, arr, v;
INSERT INTO t (arr[2], k, w.p.i, w.n[1], w.p.j) VALUES (1, 30, 2, 3, 'x') RETURNING arr, w;
INSERT INTO t (arr[2], k, w.p.i, w.n[1], w.p.j) VALUES ((SELECT 4), 30, (SELECT 2), 3, 'x') RETURNING arr, w;
INSERT INTO t (k, arr[1], arr[2]) SELECT 40 + k, x, x + 1 FROM u WHERE k = 3 AND x < 10 RETURNING arr;
INSERT INTO t (k, arr[1], v.i, arr[2], v.j) SELECT 100 + x, x, k, x + 1, y FROM u;
INSERT INTO t (k, arr[1], v.i, arr[2], v.j) SELECT k, a, a, c, s FROM t WHERE k = 3 ON CONFLICT (k) DO UPDATE SET arr[1] = 55, arr[2] = excluded.arr[2], v.i = 1, v.j = 'z';
INSERT INTO t (k, q[1], q[2]) VALUES (30, 1, 2), (31, 3, 4);
INSERT INTO t (k, q[1], q[2]) VALUES (30, -1, 2);
INSERT INTO t (k, j['a'], j['b']) VALUES (30, '1', '2');
INSERT INTO tv (k, arr[1], v.i, arr[2]) VALUES (30, 1, 5, 2);
INSERT INTO t (k, arr[1]) VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET arr[1] = excluded.arr[1] + 7, arr[2] = t.arr[1], v.i = 4, v.j = 'u';
WITH w AS (INSERT INTO t (k, arr[1], arr[2]) VALUES (30, 1, 2) RETURNING arr) SELECT * FROM w;
-- MERGE.
MERGE INTO t USING (SELECT 3 AS k) AS o ON t.k = o.k WHEN MATCHED THEN UPDATE SET arr[1] = 5, arr[2] = 6, v.i = 3, v.j = 'm';
MERGE INTO t USING (SELECT DISTINCT k FROM u) AS o ON t.k = o.k WHEN MATCHED THEN UPDATE SET arr[1] = 5, arr[2] = 6 WHEN NOT MATCHED THEN INSERT (k, arr[1], arr[2]) VALUES (o.k, 1, 2);
-- DEFAULT for a generated column.
UPDATE t SET g = DEFAULT WHERE k = 1 RETURNING g;
UPDATE t SET g = DEFAULT;
UPDATE t SET g = DEFAULT, s = DEFAULT, n = DEFAULT WHERE k = 1 RETURNING *;
INSERT INTO t (k, g) VALUES (30, DEFAULT), (31, DEFAULT);
INSERT INTO t (k) VALUES (1) ON CONFLICT (k) DO UPDATE SET g = DEFAULT;
MERGE INTO t USING (SELECT 3 AS k) AS o ON t.k = o.k WHEN MATCHED THEN UPDATE SET g = DEFAULT;
-- Set-returning functions in VALUES.
INSERT INTO t (k, a) VALUES (generate_series(30, 33), 5);
INSERT INTO t (k, a) VALUES (generate_series(30, 33), generate_series(1, 2)) RETURNING k, a;
INSERT INTO t (k, a) VALUES (30, generate_series(5, 5)) RETURNING k, a;
INSERT INTO t (k, s) VALUES (30, unnest(ARRAY['x'])) ON CONFLICT DO NOTHING;
INSERT INTO u VALUES (1, generate_series(1, 3), 'n');
INSERT INTO u VALUES (generate_series(1, 3), 7, (SELECT max(s) FROM t));
WITH w AS (INSERT INTO u VALUES (1, generate_series(1, 3)) RETURNING x) SELECT * FROM w;
-- Temporary functions.
UPDATE t SET a = pg_temp.twice(a) WHERE k = 1;
UPDATE t SET a = pg_temp.twice(a);
UPDATE t SET a = pg_temp.next(a) WHERE k = 1;
DELETE FROM t WHERE k = 1 AND pg_temp.twice(a) = 20;
DELETE FROM t WHERE pg_temp.next(a) > 50;
INSERT INTO t (k, a) VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET a = pg_temp.twice(t.a);
UPDATE t SET s = 'x' WHERE k = 1 RETURNING pg_temp.twice(a);
-- Rules and INSTEAD OF triggers.
UPDATE ruled SET a = 5, s = 'n' WHERE k = 1;
UPDATE ruled SET a = a + 1;
DELETE FROM ruled WHERE k = 2;
DELETE FROM ruled;
UPDATE iv SET a = 3 WHERE k = 1;
UPDATE iv SET a = 3 WHERE k < 4;
DELETE FROM iv WHERE k = 1;
DELETE FROM iv WHERE a > 50;
INSERT INTO iv VALUES (30, 1, 'x');
INSERT INTO iv SELECT k + 40, a FROM t RETURNING k;
UPDATE iv SET a = 3 WHERE k = 1 RETURNING *;
-- Exclusion constraints as arbiters.
INSERT INTO e VALUES (1, '[3,4)', 'no') ON CONFLICT ON CONSTRAINT e_apart DO NOTHING;
INSERT INTO e VALUES (1, '[3,4)', 'no'), (2, '[8,9)', 'yes'), (3, '[1,2)', 'yes') ON CONFLICT ON CONSTRAINT e_apart DO NOTHING;
INSERT INTO e SELECT x, '[1,3)' FROM u WHERE k = 1 ON CONFLICT ON CONSTRAINT e_apart DO NOTHING;
INSERT INTO e VALUES (1, '[3,4)', 'no') ON CONFLICT DO NOTHING RETURNING *;
-- SEARCH and CYCLE.
WITH RECURSIVE r (k, x) AS (SELECT k, x FROM u WHERE k = 1 UNION ALL SELECT u.k, u.x FROM u, r WHERE u.k = r.k AND u.x > r.x) SEARCH BREADTH FIRST BY x SET seq UPDATE t SET a = 9 FROM r WHERE t.k = r.k AND t.k = 1 AND r.x > 9;
DELETE FROM t USING tree WHERE tree.k = t.k AND t.k = 1;
-- Aliases of joins, whole rows.
UPDATE t SET a = j.x FROM (u JOIN (SELECT 1 AS k) o USING (k)) AS j WHERE t.k = j.k AND t.k = 1 AND x < 5;
UPDATE t SET s = u::text FROM u WHERE t.k = u.k AND t.k = 1 AND x < 5;
UPDATE tw SET s = tw::text WHERE k = 1 RETURNING tw;
DELETE FROM t WHERE k = 1 RETURNING t, t.*, row_to_json(t);
UPDATE t SET s = 'u' WHERE k = 1 RETURNING t, row_to_json(t.*);
-- Aliases, FROM, sub-queries, defaults, conflicts.
UPDATE t AS "order" SET a = "order".a + z.x FROM (SELECT k, max(x) AS x FROM u GROUP BY k) z WHERE z.k = "order".k AND "order".k = 1 RETURNING "order".*, z.*;
UPDATE t SET a = DEFAULT, s = DEFAULT, arr = NULL, (n, c) = ROW (DEFAULT, 4) WHERE k = 1 RETURNING *;
UPDATE t SET s = (now() - now())::text::varchar(3), n = random() * 0, arr = ARRAY[k, a] || 5 WHERE k = 1;
UPDATE t SET v = ROW(a, s), j = jsonb_build_object('x', v), w = ROW(ROW(1, 'x'), NULL, v)::deep WHERE k = 1 RETURNING v, j, w;
UPDATE t SET arr[1:2] = ARRAY[a, 4], two = '{{1,2},{3,4}}' WHERE k = 1;
DELETE FROM t USING u AS x (q), (VALUES (1), (2)) AS v (q) WHERE t.k = x.q AND v.q = x.q AND t.k = 1 RETURNING t.k, x.x, v.*;
INSERT INTO t AS z (k, a) VALUES (1, 5) ON CONFLICT (k) WHERE k > 0 DO UPDATE SET a = z.a + excluded.a, s = excluded.s || z.s WHERE z.a > 1 RETURNING z.*, (z.v).i;
INSERT INTO t (k) VALUES (1) ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET (s, a) = ROW (excluded.k::text, t.a + 1), n = DEFAULT RETURNING *;
INSERT INTO t (k, s, n) VALUES (30, DEFAULT, DEFAULT), (31, 'x', 2), (32, DEFAULT, 3) RETURNING k, s, n;
INSERT INTO t (s, k) SELECT y, 200 + x FROM u WHERE k = 1 ORDER BY x DESC LIMIT 2 RETURNING *;
INSERT INTO t (k, s) (VALUES (30, 'a'), (31, 'b') ORDER BY 1 LIMIT 1);
INSERT INTO t (k, v, arr) VALUES (30, ROW(1, 'x'), ARRAY[1, NULL]), (31, NULL, '{}') RETURNING v, arr;
WITH d AS (DELETE FROM u WHERE k = 1 RETURNING *), i AS (INSERT INTO t (k, a) SELECT 300 + x, k FROM d RETURNING k) SELECT count(*) FROM i, d;
WITH d (q) AS (DELETE FROM u WHERE k = 1 RETURNING k) UPDATE t SET a = 0 WHERE k IN (SELECT q FROM d) AND k = 1 RETURNING k;
MERGE INTO t AS z USING u AS q (k) ON z.k = q.k AND z.k = 1 WHEN MATCHED AND q.x < 9 THEN UPDATE SET a = q.x, s = DEFAULT WHEN MATCHED THEN DO NOTHING;
MERGE INTO o USING (VALUES (1, 7), (9, 8)) AS q (k, up) ON o.k = q.k WHEN MATCHED THEN UPDATE SET up = q.up WHEN NOT MATCHED THEN INSERT (up, k) VALUES (q.up, q.k);
MERGE INTO o USING (SELECT 2 AS k) q ON o.k = q.k WHEN MATCHED AND o.up = 1 THEN DELETE WHEN NOT MATCHED THEN INSERT DEFAULT VALUES;
UPDATE o SET up = (SELECT max(k) FROM o AS i WHERE i.up = o.up) RETURNING *;
-- Operators that SQL has no place to name are those of the type: without regard to case.
UPDATE c SET d = NULLIF(s, 'a') WHERE k = 1 RETURNING d;
UPDATE c SET d = NULLIF(s, 'a') RETURNING k, d;
UPDATE c SET d = CASE s WHEN 'a' THEN 'was a' ELSE 'other' END RETURNING k, d;
UPDATE c SET d = 'z' WHERE (k, s) <= (1, 'a') AND k = 1 RETURNING k;
UPDATE c SET d = 'z' WHERE (s, d) < ('B', 'Y') RETURNING k;
UPDATE c SET d = 'z' WHERE (k, s) IN (SELECT k, upper(s::text)::citext FROM c) AND k = 3 RETURNING k;
UPDATE c SET d = 'z' WHERE (s, k) IN (SELECT upper(s::text)::citext, k FROM c) RETURNING k;
UPDATE c SET d = 'z' WHERE (k, s) <= ANY (SELECT k, upper(s::text)::citext FROM c) AND k = 3 RETURNING k;
UPDATE c SET d = x.v FROM (SELECT k, s, 'joined' AS v FROM c a JOIN (SELECT k, upper(s::text)::citext AS s FROM c) b USING (k, s)) x WHERE x.k = c.k RETURNING c.k, c.d;
UPDATE c SET d = x.v FROM (SELECT k, s, 'joined' AS v FROM c a JOIN (SELECT k, upper(s::text)::citext AS s FROM c) b USING (k, s)) x WHERE x.k = c.k AND c.k = 3 RETURNING c.k, c.d;
DELETE FROM c WHERE EXISTS (SELECT FROM c a NATURAL JOIN (SELECT k, upper(s::text)::citext AS s FROM c) b WHERE a.k = c.k) RETURNING k;
DELETE FROM c WHERE s IS NOT DISTINCT FROM 'a' RETURNING k;
DELETE FROM c WHERE s IS NOT DISTINCT FROM 'a' AND k = 1 RETURNING k;
DELETE FROM c WHERE s = ANY (SELECT upper(i.s::text)::citext FROM c i WHERE i.k = c.k) AND k = 3 RETURNING k;
INSERT INTO c VALUES (1, 'q', 'q') ON CONFLICT (k) DO UPDATE SET d = NULLIF(c.s, 'a') RETURNING k, d;
INSERT INTO c VALUES (1, 'q', 'q'), (3, 'q', 'q') ON CONFLICT (k) DO UPDATE SET d = CASE c.s WHEN 'a' THEN 'was a' END RETURNING k, d;
INSERT INTO c SELECT k + 10, NULLIF(s, 'a'), CASE s WHEN 'a' THEN 'x' END FROM c RETURNING k, s, d, NULLIF(s, 'B');
WITH x AS (UPDATE c SET d = NULLIF(s, 'a') WHERE k = 1 RETURNING k, s, d) SELECT k, NULLIF(s, 'a'), CASE s WHEN 'a' THEN 1 END, s IS DISTINCT FROM 'a' FROM x;
MERGE INTO c USING (SELECT k, upper(s::text)::citext AS s FROM c) d ON c.k = d.k AND c.s IS NOT DISTINCT FROM d.s WHEN MATCHED THEN UPDATE SET d = 'm';
-- Collations of what is computed here.
UPDATE t SET s = 'u' WHERE s < concat('T') COLLATE "und-x-icu" RETURNING k;
UPDATE t SET s = 'u' WHERE k = 1 AND s < concat('T') COLLATE "und-x-icu" RETURNING k;
UPDATE t SET s = greatest(s, concat('T') COLLATE "und-x-icu") WHERE k = 1 RETURNING s;
DELETE FROM t WHERE k = 1 AND s < ANY (ARRAY['A', concat('T') COLLATE "und-x-icu"]) RETURNING k;
-- What is too long for its column is refused, and not cut off.
INSERT INTO c (k, n) SELECT k, repeat('long', 2) FROM c WHERE k = 1 ON CONFLICT (k) DO UPDATE SET n = excluded.n RETURNING n;
INSERT INTO c (n, k) SELECT 'ab ' || repeat(' ', 5), k FROM c WHERE k = 1 ON CONFLICT (k) DO UPDATE SET n = excluded.n RETURNING n;
INSERT INTO c (n, k) VALUES ('longer', 1), ('x', 1) ON CONFLICT DO NOTHING;
INSERT INTO c (n, k) VALUES ('abc  ', 21), ('x', 22) RETURNING n;
INSERT INTO c (n, k) VALUES ('abc  ', 21), ('x', 21) ON CONFLICT DO NOTHING RETURNING n;
WITH gone AS (DELETE FROM c WHERE k = 1 RETURNING k) INSERT INTO c (k, n) SELECT k, repeat('long', 2) FROM gone;
WITH gone AS (DELETE FROM c WHERE k = 1 RETURNING k) INSERT INTO c (k, s, n) SELECT k, 'S'::varchar(1), 12 FROM gone RETURNING s, n;
UPDATE c SET n = repeat('long', 2) WHERE k = 1;
UPDATE c SET (n, d) = (SELECT repeat('long', 2), 'x') WHERE k = 1;
