-- Statements that once had another answer on distributed tables than on local ones, each as small as it could be made.

-- LATERAL with an expression of the table inside and the one before it failed: "variable not found in subplan target list".
SELECT a.id, x.c FROM customers a LEFT JOIN LATERAL (SELECT coalesce(b.note, a.name) AS c FROM orders b WHERE b.customer = a.id) x ON true;
SELECT b.id, a.n, x.c FROM places b JOIN single a ON a.n = b.id
  LEFT JOIN LATERAL (SELECT coalesce(o.note, a.word) AS c FROM orders o WHERE o.id = a.id) x ON true;
SELECT r1.d, c0 FROM single AS r1
  LEFT JOIN LATERAL (SELECT (CASE WHEN r2.item ~ 'o' THEN r1.word ELSE r2.sku END) AS c0 FROM lines AS r2 WHERE r2.no <= 79) AS r3 ON true
 WHERE r3.c0 <= 'note b';
SELECT r1.name FROM customers AS r1
  LEFT JOIN LATERAL (SELECT (r1.nums)[1] AS c0, nullif(r1.weight, 1.5) * 2 AS c1 FROM of_customer AS r2) AS r3 ON true
 WHERE r3.c1 <= r1.weight GROUP BY GROUPING SETS ((r1.name), ());

-- Grouping by a parameter crashed the session when the workers grouped.
[int8 39] SELECT $1 + 1, count(*) FROM stock GROUP BY ($1 + 1);
[int8 39] SELECT $1 FROM stock AS r1 GROUP BY ($1);
[mood 'ok', int8 39] SELECT $1 AS c0, $2 + 1 + r2.size AS c1 FROM stock AS r1 JOIN products AS r2 ON r2.sku = r1.sku GROUP BY ($1), ($2 + 1 + r2.size);

-- What EXTRACT asks for was made a parameter, and printing the statement crashed the session.
SELECT word FROM single WHERE extract(month from d)::int4 = 2;
SELECT name, extract(year from born) FROM customers WHERE id = 3 AND extract(month from born) = 1 AND normalize(name, NFC) = 'name 3';

-- A sub-query in the select list that ORDER BY, GROUP BY or DISTINCT refers to is printed twice, and failed: "the name of ... is not
-- where it should be in the deparsed statement".
SELECT (SELECT count(*) FROM orders o WHERE o.customer = c.id) n FROM customers c WHERE id = 3 ORDER BY n;
SELECT (SELECT count(*) FROM orders o WHERE o.customer = c.id) n, count(*) FROM customers c WHERE id = 3 GROUP BY 1;
SELECT DISTINCT r2.d, (SELECT min(r3.word) FROM single r3 WHERE r3.id = r2.id) FROM single r1 JOIN single r2 ON r1.id = r2.id ORDER BY 1 DESC, 2;

-- A row as a whole of an outer join's missing side was a row of NULLs and not NULL, when workers joined.
SELECT count(o), count(*) FROM customers c LEFT JOIN orders o ON o.customer = c.id AND o.qty = 2;
SELECT c.id, count(p) FROM customers c LEFT JOIN places p ON p.id = c.grp AND p.size = 1 GROUP BY c.id;
SELECT count(o), count(c) FROM customers c FULL JOIN orders o ON o.customer = c.id;

-- So was tableoid.
SELECT count(o.tableoid), count(*) FROM customers c LEFT JOIN orders o ON o.customer = c.id AND o.qty = 2;

-- A correlated aggregate was grouped by a value without its implicit cast.
SELECT c.id FROM customers c WHERE c.weight >= (SELECT avg(d.weight) FROM customers d WHERE d.fixed = c.name);
SELECT c.id FROM customers c WHERE 3 > (SELECT avg(o.qty) FROM orders o WHERE o.qty = c.weight);
SELECT c.id FROM customers c WHERE 30 > (SELECT avg(l.no) FROM lines l WHERE l.customer = c.score);

-- Groups of anonymous records failed: "input of anonymous composite types is not implemented".
SELECT row(grp, ok), count(*) FROM customers GROUP BY 1;

-- A column inside of a key, in another expression over that key, was grouped by as well, and there were more groups.
SELECT customer, (no / 3) * 2, count(*) FROM lines GROUP BY customer, no / 3;
SELECT customer, count(*) FROM lines GROUP BY customer, no / 3 HAVING (no / 3) + 1 > 0;

-- A column that stands twice in a sub-query that the workers compute.
SELECT r2.c0, r2.c2, r4.name FROM (SELECT DISTINCT r1.id, r1.name, r1.id FROM customers AS r1) AS r2 (c0, c1, c2) CROSS JOIN places AS r4 WHERE r2.c0 + r2.c2 < 40 ORDER BY 1, 2, 3;

-- ORDER BY a column whose name is also that of another one in the result went by the latter, in statements for one node.
SELECT r2.c2 AS c1, r2.c0 AS c2 FROM (SELECT r1.id, count(DISTINCT 4), min(r1.d) FROM single AS r1 GROUP BY r1.id) AS r2 (c0, c1, c2) ORDER BY r2.c1, 1 NULLS FIRST, 2 DESC LIMIT 7;
SELECT n AS id, id AS n FROM single ORDER BY single.id;
SELECT DISTINCT ON (single.n) id AS n, n AS id FROM single ORDER BY single.n, single.id;

-- A special numeric was counted twice: the deviation of one was NaN and not NULL. The average of -0 was -0.
SELECT g, stddev(v), variance(v), stddev_pop(v), avg(v), sum(v), count(v) FROM (SELECT grp % 40 AS g, CASE WHEN id % 40 = 1 THEN 'NaN'::numeric WHEN id % 40 = 2 THEN 'Infinity' END AS v FROM customers) c GROUP BY g ORDER BY g;
SELECT id % 7 AS g, stddev(v), var_pop(v), count(*) FROM (SELECT id, CASE WHEN id = 8 THEN 'NaN'::numeric WHEN id = 9 THEN '-Infinity' END AS v FROM customers) c GROUP BY 1 ORDER BY 1;
SELECT id % 7 AS g, avg(CASE WHEN id < 5 THEN '-0'::float8 END), avg(CASE WHEN id < 5 THEN '-0'::float4 END), regr_avgx(1, CASE WHEN id < 5 THEN '-0'::float8 END) FROM customers GROUP BY 1 ORDER BY 1;
-- A sort by no key: "invalid attnum: 0", or a crash.
SELECT c0 FROM (SELECT '2016-03-28'::date AS c0 FROM single ORDER BY 1 LIMIT 3) x, products p WHERE p.born > c0 OR c0 IS NOT NULL;
SELECT count(*) FROM customers c, (SELECT DISTINCT ON (word) word, n FROM single WHERE word = 'word 2') x WHERE c.grp > 2;
SELECT n, string_agg(word, ',' ORDER BY word), c FROM (SELECT n, word, count(*) OVER () AS c FROM single WHERE n = 3) x GROUP BY n, c;

-- A negative number that is sorted or grouped by was taken for the number of an output.
SELECT id, -1::int4 AS c FROM customers WHERE id = 7 ORDER BY 2 DESC, 1;
SELECT - 2 AS c, count(*) FROM customers WHERE id = 7 GROUP BY 1;
SELECT x.c FROM (SELECT DISTINCT -3 AS c, name FROM customers WHERE id = 7 ORDER BY 1, 2) x;

-- Rows that are sent along were sorted by a column that is not sent.
[float8 2] SELECT r5.qty AS c0, r5.placed AS c1 FROM (SELECT r1.due AS c0, r1.load AS c1, ((r1.due)::timestamptz AT TIME ZONE 'UTC')::date AS c2, r1.qty AS c3 FROM orders AS r1) AS r2 (c0, c1, c2, c3) JOIN links AS r3 ON nullif(r2.c1, -3::float8) <> $1 JOIN links AS r4 ON r3."Key" = r4."to" JOIN orders AS r5 ON r5.customer = r4."Key" WHERE ((r5.placed AT TIME ZONE 'UTC')::date + r4.weight % 9) = '2016-01-17'::date GROUP BY (r5.qty), (r5.placed), (r4."Key") ORDER BY 2 NULLS FIRST, 1 OFFSET 9;

-- A filter on a sub-query's column that no worker can compute was sent to them: column t.unknown does not exist.
SELECT x.id, x.n FROM (SELECT id, twice(grp) AS c, count(*) OVER (PARTITION BY id) AS n FROM customers) x WHERE x.c IS NOT NULL;

-- Distinct values of a table whose only join was removed: variable not found in subplan target list.
SELECT count(DISTINCT c.grp), bool_and(c.ok IS UNKNOWN) FROM customers c LEFT JOIN (SELECT avg(o.id) AS a FROM orders o) x ON c.score = x.a;

-- A column of a join with an alias is written as one of the join, which nothing that is sent has: "invalid attnum 1 for relation".
SELECT * FROM (single AS s CROSS JOIN places AS p) AS x (a, b, c, d, e);
SELECT x.a, y.b FROM (single AS s JOIN places AS p ON p.id = s.n) AS x (a) LEFT JOIN (orders AS o JOIN customers AS c ON o.customer = c.id) AS y (a, b) ON y.a = x.a;
SELECT x.a, count(*), min(x.b) FROM (single AS s JOIN customers AS c ON c.id = s.id) AS x (a, b) GROUP BY x.a ORDER BY x.a;
