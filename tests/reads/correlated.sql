-- Correlated sub-queries of all kinds, each of which has one answer: the same on distributed tables as on local ones.

-- Aggregates in the SELECT list: of no rows NULL or 0; over values that are NULL; computed with.
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT count(o.note) FROM orders o WHERE o.customer = c.id), (SELECT max(o.note) FROM orders o WHERE o.customer = c.id), (SELECT sum(o.total) FROM orders o WHERE o.customer = c.id AND o.paid) FROM customers c;
SELECT c.id, (SELECT count(*) + 1 FROM orders o WHERE o.customer = c.id), (SELECT coalesce(sum(o.qty), -1) * count(*) FROM orders o WHERE o.customer = c.id), (SELECT CASE WHEN count(*) > 1 THEN 'many' WHEN count(*) = 0 THEN 'none' ELSE 'one' END FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT count(*) + c.grp FROM orders o WHERE o.customer = c.id), (SELECT c.name || max(o.note) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT count(*) FILTER (WHERE o.paid) FROM orders o WHERE o.customer = c.id), (SELECT count(DISTINCT o.qty) FROM orders o WHERE o.customer = c.id), (SELECT string_agg(o.note, ',' ORDER BY o.id DESC) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT array_agg(o.id ORDER BY o.id) FROM orders o WHERE o.customer = c.id), (SELECT bool_or(o.paid) FROM orders o WHERE o.customer = c.id), (SELECT regr_count(o.load, o.load) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY o.load) FROM orders o WHERE o.customer = c.id), (SELECT rank(3) WITHIN GROUP (ORDER BY o.qty) FROM orders o WHERE o.customer = c.id), (SELECT total_of(o.qty) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT p.id, (SELECT count(*) FROM customers c WHERE c.grp = p.id), (SELECT count(*) FROM customers c WHERE c.grp = p.id AND c.score > 20) FROM places p;
-- Values that are NULL equal nothing.
SELECT c.id, c.grp, (SELECT count(*) FROM orders o WHERE o.qty = c.grp) FROM customers c;
SELECT c.id, (SELECT count(*) FROM stock s WHERE s.note = c.name), (SELECT count(*) FROM customers d WHERE d.name = c.name AND d.grp = c.grp) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.qty IS NOT DISTINCT FROM c.grp), (SELECT count(*) FROM orders o WHERE o.qty < c.grp), (SELECT count(*) FROM orders o WHERE o.customer = c.id AND o.qty > c.grp) FROM customers c;
-- Across types and collations, and of expressions.
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.id = c.id), (SELECT count(*) FROM orders o WHERE o.total = c.id), (SELECT count(*) FROM orders o WHERE o.load = c.weight), (SELECT count(*) FROM customers d WHERE d.code = c.code), (SELECT count(*) FROM customers d WHERE d.fixed = c.fixed) FROM customers c;
SELECT c.id, (SELECT count(*) FROM customers d WHERE d.fixed = c.name), (SELECT count(*) FROM customers d WHERE lower(d.name) = lower(c.name)), (SELECT count(*) FROM customers d WHERE d.name COLLATE "und-x-icu" = c.name), (SELECT count(*) FROM customers d WHERE d.feel = c.feel), (SELECT count(*) FROM customers d WHERE d.nums = c.nums) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id + 1), (SELECT count(*) FROM orders o WHERE o.customer + 1 = c.id), (SELECT count(*) FROM orders o WHERE o.customer = c.id / 2), (SELECT count(*) FROM orders o WHERE (o.customer, o.qty) = (c.id, c.grp)) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id AND o.customer = c.grp), (SELECT count(*) FROM lines l WHERE l.customer = c.id AND l.order_id = c.grp AND l.no = 1) FROM customers c;
-- Over joins, other sub-queries, views.
SELECT c.id, (SELECT sum(l.price) FROM orders o JOIN lines l ON l.customer = o.customer AND l.order_id = o.id WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o LEFT JOIN places p ON p.id = o.qty WHERE o.customer = c.id AND p.size IS DISTINCT FROM 20) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id AND EXISTS (SELECT FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id)) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id AND o.qty IN (SELECT p.id FROM places p WHERE p.size > 20)) FROM customers c;
SELECT c.id, (SELECT max((SELECT count(*) FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id)) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, (SELECT count(*) FROM (SELECT customer, qty FROM orders UNION ALL SELECT customer, no FROM lines) x WHERE x.customer = c.id) FROM customers c;
SELECT c.id, (SELECT count(*) FROM (SELECT DISTINCT customer, qty FROM orders) x WHERE x.customer = c.id) FROM customers c;
SELECT x.id, x.many FROM (SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) AS many FROM customers c) x WHERE x.many > 1;
WITH w AS (SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) AS many FROM customers c) SELECT a.id, b.many FROM w a JOIN w b ON a.id = b.many;
WITH w AS MATERIALIZED (SELECT customer, qty FROM orders) SELECT c.id, (SELECT count(*) FROM w WHERE w.customer = c.id) FROM customers c;
-- Where they stand: filters, orders, groups, windows, limits, set operations, outer joins.
SELECT c.id FROM customers c WHERE (SELECT count(*) FROM orders o WHERE o.customer = c.id) = 0;
SELECT c.id FROM customers c WHERE c.grp = 2 OR (SELECT count(*) FROM orders o WHERE o.customer = c.id) > 1;
SELECT c.id FROM customers c WHERE (SELECT max(o.total) FROM orders o WHERE o.customer = c.id) IS NULL;
SELECT c.id FROM customers c WHERE coalesce((SELECT sum(o.qty) FROM orders o WHERE o.customer = c.id), 0) < c.grp;
SELECT c.id FROM customers c WHERE NOT (c.ok AND (SELECT count(*) FROM orders o WHERE o.customer = c.id) IN (1, 2)) AND c.id > 7;
SELECT c.id FROM customers c ORDER BY (SELECT count(*) FROM orders o WHERE o.customer = c.id) DESC, c.id LIMIT 7;
SELECT DISTINCT (SELECT count(*) FROM orders o WHERE o.customer = c.id), c.grp FROM customers c;
SELECT DISTINCT ON (1) (SELECT count(*) FROM orders o WHERE o.customer = c.id), c.id FROM customers c ORDER BY 1, 2;
SELECT c.grp, sum((SELECT count(*) FROM orders o WHERE o.customer = c.id)), count((SELECT max(o.qty) FROM orders o WHERE o.customer = c.id)) FROM customers c GROUP BY c.grp;
SELECT (SELECT count(*) FROM orders o WHERE o.customer = c.id) AS many, count(*) FROM customers c GROUP BY 1;
SELECT c.grp, (SELECT count(*) FROM orders o WHERE o.qty = c.grp), count(*) FROM customers c GROUP BY c.grp HAVING (SELECT count(*) FROM orders o WHERE o.qty = c.grp) > 1 OR max((SELECT count(*) FROM orders o WHERE o.customer = c.id)) > 3;
SELECT (SELECT max(c.id) FROM orders o WHERE o.qty = 3 LIMIT 1) FROM customers c;
SELECT c.id, rank() OVER (PARTITION BY c.grp ORDER BY (SELECT count(*) FROM orders o WHERE o.customer = c.id)), sum((SELECT count(*) FROM orders o WHERE o.customer = c.id)) OVER (PARTITION BY c.grp) FROM customers c;
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) FROM customers c UNION SELECT p.id, (SELECT count(*) FROM orders o WHERE o.qty = p.id) FROM places p;
SELECT p.id, c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id), (SELECT count(*) FROM orders o WHERE o.qty = p.id) FROM places p LEFT JOIN customers c ON c.grp = p.id AND c.ok;
SELECT c.id, o.id, (SELECT count(*) FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id) FROM customers c FULL JOIN orders o ON o.customer = c.id WHERE c.id IS NULL OR c.ok;
SELECT c.id, o.id FROM customers c LEFT JOIN orders o ON o.customer = c.id AND (SELECT count(*) FROM lines l WHERE l.customer = c.id) > 1;
SELECT customer, (SELECT count(*) FROM lines l WHERE l.customer = x.customer) FROM orders o JOIN stock s ON s.place = o.qty JOIN (SELECT id AS customer FROM customers) x USING (customer);
SELECT g, (SELECT count(*) FROM orders o WHERE o.customer = g) FROM generate_series(1, 50, 7) AS g;
SELECT v.a, (SELECT sum(total) FROM orders o WHERE o.customer = v.a AND o.qty = v.b) FROM (VALUES (1, 2), (2, 3), (NULL, 1), (7, NULL), (32, 1)) AS v (a, b);
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) FROM customers c WHERE c.grp = 3 AND c.born > date '2016-01-10';
SELECT c.id, (SELECT count(*) FROM stock s WHERE s.sku = p.sku), (SELECT count(*) FROM orders o WHERE o.customer = c.id) FROM customers c JOIN products p ON p.size = c.grp WHERE c.ok AND p.kind = 'k1';
[int8 3] SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id AND o.qty <> $1) FROM customers c WHERE c.grp < $1;
-- Volatile ones are computed for each row; errors of groups that nobody asks for are none.
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id AND random() < 2) FROM customers c;
SELECT c.id, (SELECT sum(100 / (100 - o.customer)) FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, CASE WHEN c.id < 90 THEN (SELECT sum(1 / (o.customer - 90)) FROM orders o WHERE o.customer = c.id) END FROM customers c;
SELECT c.id, CASE WHEN c.id < 0 THEN (SELECT 1 / (count(*) - count(*)) FROM orders o WHERE o.customer = c.id) ELSE 7 END FROM customers c;

-- EXISTS where PostgreSQL has no join for it.
SELECT c.id, EXISTS (SELECT FROM orders o WHERE o.customer = c.id), NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.paid) FROM customers c;
SELECT c.id FROM customers c WHERE c.grp = 2 OR EXISTS (SELECT FROM orders o WHERE o.customer = c.id AND o.qty > 3);
SELECT c.id FROM customers c WHERE c.grp = 2 OR NOT EXISTS (SELECT FROM orders o WHERE o.customer = c.id);
SELECT c.id, CASE WHEN EXISTS (SELECT FROM orders o WHERE o.qty = c.grp LIMIT 1) THEN 1 WHEN EXISTS (SELECT DISTINCT s.place FROM stock s WHERE s.note = c.name) THEN 2 END FROM customers c;
SELECT c.grp, count(*) FILTER (WHERE EXISTS (SELECT FROM orders o WHERE o.customer = c.id)) FROM customers c GROUP BY c.grp;
SELECT c.id, EXISTS (SELECT FROM orders o WHERE o.customer = c.id LIMIT 0), EXISTS (SELECT count(*) FROM orders o WHERE o.customer = c.id), EXISTS (SELECT FROM orders o WHERE o.customer = c.id OFFSET 1), EXISTS (SELECT FROM orders o WHERE o.customer = c.id GROUP BY o.qty HAVING count(*) > 1) FROM customers c;
SELECT c.id, c.grp IN (SELECT o.qty FROM orders o WHERE o.customer = c.id), c.grp NOT IN (SELECT o.qty FROM orders o WHERE o.customer = c.id), c.grp > ALL (SELECT o.qty FROM orders o WHERE o.customer = c.id) FROM customers c;
SELECT c.id, EXISTS (SELECT FROM orders o WHERE o.customer = c.id AND EXISTS (SELECT FROM lines l WHERE l.customer = c.id AND l.order_id = o.id)), EXISTS (SELECT FROM orders o WHERE o.customer = c.id AND (o.paid OR EXISTS (SELECT FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id))) FROM customers c;

-- One row by a key.
SELECT o.id, (SELECT c.name FROM customers c WHERE c.id = o.customer) FROM orders o;
SELECT o.id, (SELECT c.name || '!' FROM customers c WHERE c.id = o.customer), (SELECT coalesce(c.name, 'nobody') FROM customers c WHERE c.id = o.customer), (SELECT 1 FROM customers c WHERE c.id = o.customer AND c.ok), (SELECT o.note || c.code FROM customers c WHERE c.id = o.customer) FROM orders o;
SELECT l.no, (SELECT o.note FROM orders o WHERE o.customer = l.customer AND o.id = l.order_id), (SELECT p.label FROM products p WHERE p.sku = l.sku) FROM lines l;
SELECT c.id, (SELECT p.name FROM places p WHERE p.id = c.grp), (SELECT s.word FROM single s WHERE s.id = c.grp), (SELECT s.word FROM single s WHERE c.id = s.id AND s.n > 2) FROM customers c;
SELECT o.id FROM orders o WHERE (SELECT c.grp FROM customers c WHERE c.id = o.customer) = 2 OR (SELECT c.ok FROM customers c WHERE c.id = o.customer);
SELECT o.id FROM orders o ORDER BY (SELECT c.name FROM customers c WHERE c.id = o.customer) NULLS FIRST, o.customer, o.id LIMIT 9;
SELECT o.id, (SELECT d FROM customers d WHERE d.id = o.customer) IS NULL, (SELECT c.id / c.id FROM customers c WHERE c.id = o.customer) FROM orders o;
SELECT o.id, (SELECT (SELECT p.name FROM places p WHERE p.id = c.grp) FROM customers c WHERE c.id = o.customer) FROM orders o;

-- The first row by an order.
SELECT c.id, (SELECT o.id FROM orders o WHERE o.customer = c.id ORDER BY o.total DESC, o.id LIMIT 1) FROM customers c;
SELECT c.id, (SELECT o.note || o.qty FROM orders o WHERE o.customer = c.id AND o.paid IS NOT NULL ORDER BY o.note NULLS FIRST, o.id DESC LIMIT 1), (SELECT o.id FROM orders o WHERE o.qty = c.grp ORDER BY 1, o.customer FETCH FIRST ROW ONLY) FROM customers c;
SELECT c.id, (SELECT o.qty FROM orders o WHERE o.customer = c.id ORDER BY 1 LIMIT 1), (SELECT o.id FROM orders o WHERE o.customer = c.id ORDER BY o.total, o.id LIMIT 1 OFFSET 1), (SELECT min(o.id) FROM orders o WHERE o.customer = c.id LIMIT 1) FROM customers c;
SELECT c.id, (SELECT s.amount FROM stock s WHERE s.note = c.name ORDER BY s.amount DESC, s.sku, s.place LIMIT 1) FROM customers c WHERE c.grp = 1 OR (SELECT o.paid FROM orders o WHERE o.customer = c.id ORDER BY o.id LIMIT 1);
SELECT c.id, (SELECT o.id FROM orders o WHERE o.customer = c.id ORDER BY lower(o.note), o.id LIMIT 1), (SELECT o.id FROM orders o WHERE o.customer = c.id ORDER BY 1 / (101 - o.customer), o.id LIMIT 1) FROM customers c;
SELECT c.id, (SELECT x.item FROM (SELECT l.item, l.price, l.order_id, o.customer FROM lines l JOIN orders o ON o.customer = l.customer AND o.id = l.order_id) x WHERE x.customer = c.id ORDER BY x.price, x.order_id LIMIT 1) FROM customers c;

-- LATERAL.
SELECT c.id, s.id, s.total FROM customers c CROSS JOIN LATERAL (SELECT o.id, o.total FROM orders o WHERE o.customer = c.id ORDER BY o.total DESC, o.id LIMIT 2) s;
SELECT c.id, s.id, s.n FROM customers c LEFT JOIN LATERAL (SELECT o.id, o.qty + 1 AS n FROM orders o WHERE o.customer = c.id AND o.paid ORDER BY o.id LIMIT 3) s ON true;
SELECT c.id, s.id FROM customers c LEFT JOIN LATERAL (SELECT o.id, o.qty FROM orders o WHERE o.customer = c.id ORDER BY o.id LIMIT 3) s ON s.qty > c.grp WHERE c.ok;
SELECT c.id, s.many, s.most FROM customers c, LATERAL (SELECT count(*) AS many, max(o.qty) AS most FROM orders o WHERE o.customer = c.id) s WHERE s.many <> 1;
SELECT c.id, s.many, s.many + 1, s.most, t.n FROM customers c LEFT JOIN LATERAL (SELECT count(*) AS many, max(o.qty) + count(*) AS most FROM orders o WHERE o.customer = c.id) s ON true JOIN LATERAL (SELECT count(*) AS n FROM lines l WHERE l.customer = c.id AND l.no = 1) t ON true;
SELECT c.id, s.many FROM customers c LEFT JOIN LATERAL (SELECT count(*) AS many FROM orders o WHERE o.customer = c.id) s ON s.many > 1;
SELECT c.id, s.id, t.item FROM customers c CROSS JOIN LATERAL (SELECT o.id, o.customer FROM orders o WHERE o.customer = c.id ORDER BY o.id LIMIT 2) s LEFT JOIN LATERAL (SELECT l.item FROM lines l WHERE l.customer = s.customer AND l.order_id = s.id ORDER BY l.no LIMIT 1) t ON true;
SELECT c.id, s.* FROM customers c JOIN LATERAL (SELECT o.id, o.note FROM orders o WHERE o.qty = c.grp ORDER BY o.customer, o.id LIMIT 1) s ON s.id > 3;
SELECT c.id, s FROM customers c JOIN LATERAL (SELECT o.id, o.note FROM orders o WHERE o.customer = c.id ORDER BY o.id LIMIT 1) s ON true;
SELECT c.id, s.a FROM customers c CROSS JOIN LATERAL (SELECT o.id + c.grp AS a FROM orders o WHERE o.customer = c.id ORDER BY o.id LIMIT 1) s;
SELECT p.id, s.id FROM places p LEFT JOIN LATERAL (SELECT c.id FROM customers c WHERE c.grp = p.id ORDER BY c.score DESC NULLS LAST, c.id LIMIT 2) s ON true;
SELECT p.id, s.n FROM places p CROSS JOIN LATERAL (SELECT count(*) AS n FROM customers c WHERE c.grp = p.id) s ORDER BY s.n DESC, p.id;
SELECT c.grp, sum(s.many), max(s.many) FROM customers c CROSS JOIN LATERAL (SELECT count(*) AS many FROM orders o WHERE o.customer = c.id) s GROUP BY c.grp;
SELECT c.id, (SELECT max(x.id) FROM (SELECT o.id FROM orders o WHERE o.customer = s.many) x) FROM customers c CROSS JOIN LATERAL (SELECT count(*) AS many FROM orders o WHERE o.customer = c.id) s;
