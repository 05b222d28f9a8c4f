-- Each statement yields the same rows, in any order.

-- One table

SELECT * FROM customers;
SELECT * FROM orders;
SELECT * FROM products;
SELECT * FROM empty_shelf;
SELECT count(*) FROM customers;
SELECT count(*), count(region), count(DISTINCT region) FROM customers;
SELECT 1 FROM customers;
SELECT FROM customers;
SELECT count(*) FROM (SELECT FROM orders) AS nothing;
SELECT id FROM customers WHERE id = 17;
SELECT * FROM customers WHERE id = 17 AND region = 'east';
SELECT * FROM customers WHERE id = 999;
SELECT * FROM customers WHERE id = 1 AND id = 2;
SELECT * FROM customers WHERE id IS NULL;
SELECT * FROM customers WHERE id = NULL;
SELECT * FROM customers WHERE false;
SELECT id FROM customers WHERE id IN (1, 2, 3, 17, 160, 161);
SELECT id FROM customers WHERE id = ANY (ARRAY[5, NULL, 7]);
SELECT id FROM customers WHERE id = ANY ('{}'::int[]);
SELECT id FROM customers WHERE id <> ALL (ARRAY[1, 2, 3]);
SELECT id FROM customers WHERE id NOT IN (1, 2, NULL);
SELECT id FROM customers WHERE id = 4 OR id = 5 OR name = 'name 6';
SELECT id FROM customers WHERE (id = 4 AND region = 'west') OR (id = 5 AND region = '');
SELECT id FROM customers WHERE id = 4 OR false;
SELECT id FROM customers WHERE id = 3 + 4;
SELECT id FROM customers WHERE id = 7::bigint;
SELECT id FROM customers WHERE id = 7::smallint;
SELECT id FROM customers WHERE id = 7.0;
SELECT id FROM customers WHERE id = 7.5;
SELECT id FROM customers WHERE 7 = id;
SELECT id FROM customers WHERE id + 0 = 7;
SELECT id FROM customers WHERE (id, name) = (7, 'name 7');
SELECT id FROM customers WHERE (id, name) IN ((7, 'name 7'), (8, 'name 7'));
SELECT id FROM customers WHERE id BETWEEN 10 AND 20;
SELECT id FROM customers WHERE id % 2 = 0 AND NOT active;
SELECT id FROM customers WHERE active IS NOT TRUE;
SELECT id FROM customers WHERE active IS UNKNOWN;
SELECT id FROM customers WHERE region IS DISTINCT FROM 'north';
SELECT id FROM customers WHERE region LIKE '%o%' AND name ILIKE 'NAME 1%';
SELECT id FROM customers WHERE name SIMILAR TO 'name (1|2)[0-9]';
SELECT id, name ~ '3$', length(name) FROM customers WHERE name ~ '[35]$';
SELECT id, CASE WHEN score > 50 THEN 'high' WHEN score IS NULL THEN 'none' ELSE 'low' END FROM customers;
SELECT id, coalesce(region, 'nowhere'), nullif(region, 'north'), greatest(id, 50), least(score, 3) FROM customers;
SELECT id, tags[1], tags[2:3], array_length(tags, 1), cardinality(tags), tags || 'end'::text FROM customers;
SELECT id FROM customers WHERE 't1' = ANY (tags);
SELECT id FROM customers WHERE tags @> ARRAY['t2'];
SELECT id FROM customers WHERE tags = '{}';
SELECT id, profile -> 'level', profile ->> 'nick', profile #> '{list,0}', profile ? 'nick' FROM customers;
SELECT id FROM customers WHERE profile @> '{"level": 2}';
SELECT id, jsonb_array_length(profile -> 'list'), jsonb_pretty(profile) FROM customers WHERE profile IS NOT NULL;
SELECT id, key, value FROM customers, jsonb_each(profile) WHERE id < 20;
SELECT id, feeling, feeling > 'sad', feeling::text FROM customers;
SELECT id FROM customers WHERE feeling IN ('ok', 'happy');
SELECT id, home, (home).street, (home).number FROM customers;
SELECT id FROM customers WHERE (home).number = 3;
SELECT id FROM customers WHERE home = ROW('street 3', 3)::address;
SELECT id, joined, joined + 30, date_trunc('month', joined), extract(isodow FROM joined) FROM customers;
SELECT id, to_char(joined, 'YYYY-MM') FROM customers WHERE joined < '2016-02-01';
SELECT c FROM customers AS c WHERE id < 10;
SELECT c.* FROM customers AS c WHERE id < 10;
SELECT row_to_json(c) FROM customers AS c;
SELECT to_jsonb(c) - 'profile' FROM customers AS c WHERE id IN (2, 3);
SELECT count(c), count(DISTINCT c.region) FROM customers AS c;
SELECT c IS NULL, c IS NOT NULL FROM customers AS c;
SELECT ROW(id, region) FROM customers;
SELECT tableoid::regclass, id FROM customers WHERE id < 30;
SELECT DISTINCT tableoid::regclass FROM orders;
SELECT id, tableoid = 'customers'::regclass FROM customers WHERE id = 3;
SELECT count(*) FROM customers WHERE ctid IS NOT NULL;
SELECT count(*) FROM customers WHERE xmin IS NOT NULL AND cmin IS NOT NULL;
SELECT (ctid IS NOT NULL) AS has_ctid, id FROM customers WHERE id = 5;

-- Types

SELECT * FROM orders WHERE customer_id = 32;
SELECT o FROM orders AS o WHERE customer_id = 32;
SELECT placed, placed::text, array_agg(placed), ROW(placed, id) FROM orders WHERE customer_id = 32 GROUP BY placed, id;
SELECT ARRAY[o] FROM orders AS o WHERE customer_id = 32;
SELECT * FROM products WHERE sku = 'sku-13';
SELECT p FROM products AS p WHERE sku = 'sku-14';
SELECT placed FROM orders WHERE customer_id = 32 AND placed = '2016-03-30 21:49:00.123456+00';
SELECT id FROM customers WHERE id = 5 AND joined = date '2016-01-06';
SELECT id FROM orders WHERE placed = timestamptz '2016-03-30 21:49:00.123456+00';
SELECT sku FROM products WHERE sku = 'sku-13' AND shelf_life = interval '1 year 1 mon -7 days 19.5 seconds';
SELECT sku, weight * 1.1::float8, price / 7 FROM products WHERE sku = 'sku-13';
SELECT tstzrange(placed, placed + interval '1 hour') FROM orders WHERE customer_id IN (32, 63);
SELECT max(placed) FROM orders WHERE customer_id = 32;

SELECT sku, price, price * 2, round(price, 1), price = 'NaN' FROM products;
SELECT sku, weight, weight * 2 FROM products;
SELECT sku, weight FROM products WHERE weight = 'Infinity';
SELECT sku, released, released + interval '1 month', released AT TIME ZONE 'UTC' FROM products WHERE sku <> 'sku-5';
SELECT sku, isfinite(released) FROM products;
SELECT sku, shelf_life, shelf_life * 2, justify_interval(shelf_life) FROM products;
SELECT sku FROM products WHERE shelf_life > interval '1 year';
SELECT sku, picture, length(picture), encode(picture, 'base64') FROM products;
SELECT sku FROM products WHERE picture = '\x00030003';
SELECT sku, tag FROM products WHERE tag > '80000000-0000-0000-0000-000000000000';
SELECT sku FROM products WHERE tag = md5('7')::uuid;
SELECT sku, opens, opens + interval '1 hour' FROM products;
SELECT sku, network, host(network), masklen(network) FROM products WHERE network << '10.0.0.0/12';
SELECT sku, valid, upper(valid), isempty(valid) FROM products;
SELECT sku FROM products WHERE valid @> 20;
SELECT sku, small, abs(small), letter, code, length(code), code || '!' FROM products;
SELECT sku FROM products WHERE code = 'c7';
SELECT sku FROM products WHERE code = 'c7    ';
SELECT sku FROM products WHERE letter = 'b';
SELECT sku, doc, doc ->> 'b' FROM products;
SELECT sku, bits, bits || B'1', length(bits) FROM products;
SELECT customer_id, id, placed, placed AT TIME ZONE 'Europe/Berlin', placed::date FROM orders WHERE id < 40;
SELECT id FROM orders WHERE placed >= '2016-03-27 00:00:00+00' AND placed < '2016-03-27 06:00:00+00';
SELECT id FROM orders WHERE placed::date = date '2016-03-28';
SELECT date_trunc('day', placed), count(*) FROM orders GROUP BY 1;
SELECT note, octet_length(note), quote_literal(note) FROM orders WHERE id < 60;
SELECT id FROM orders WHERE note = E'note c\t\\';
SELECT id, items, items[2], 3 = ANY (items) FROM orders WHERE items && ARRAY[3, 4];
SELECT sku FROM products WHERE sku = 'sku-3';
SELECT sku FROM products WHERE sku = 'sku-3'::varchar;
SELECT sku FROM products WHERE sku IN ('sku-1', 'sku-2', 'none');
SELECT sku FROM products WHERE sku LIKE 'sku-1%';
SELECT sku FROM products WHERE upper(sku) = 'SKU-9';
SELECT sku COLLATE "C", sku < 'sku-3' COLLATE "C" FROM products;

-- Aggregates and groups

SELECT min(id), max(id), sum(id), avg(id), count(*) FROM customers;
SELECT sum(total), avg(total), min(total), max(total), stddev_pop(total)::numeric(20,6) FROM orders;
SELECT sum(weight), avg(weight), min(weight) FROM orders;
SELECT min(name), max(region), bool_and(active), bool_or(active), every(id > 0) FROM customers;
SELECT min(placed), max(placed), min(joined) FROM orders, customers;
SELECT sum(id), min(v.k), count(v.*) FROM customers LEFT JOIN empty_shelf AS v ON v.k = id;
SELECT count(*), sum(k), max(v), array_agg(k) FROM empty_shelf;
SELECT k, count(*) FROM empty_shelf GROUP BY k;
SELECT region, count(*) FROM customers GROUP BY region;
SELECT region, active, count(*), sum(score) FROM customers GROUP BY region, active;
SELECT region, count(*) FROM customers GROUP BY region HAVING count(*) > 22 AND min(id) < 5 AND max(id) > 100;
SELECT customer_id, sum(total) FROM orders GROUP BY customer_id;
SELECT customer_id, sum(total) FROM orders GROUP BY customer_id HAVING sum(total) > 2000;
SELECT id % 10 AS digit, count(*), avg(score) FROM customers GROUP BY digit;
SELECT id, name, count(*) FROM customers GROUP BY id;
SELECT string_agg(name, ',' ORDER BY id) FROM customers WHERE id < 30;
SELECT region, array_agg(id ORDER BY id DESC) FROM customers GROUP BY region;
SELECT region, string_agg(DISTINCT name, '/' ORDER BY name) FROM customers GROUP BY region;
SELECT json_agg(name ORDER BY id) FROM customers WHERE id < 5;
SELECT jsonb_object_agg(id, name) FROM customers WHERE id < 5;
SELECT count(*) FILTER (WHERE active), sum(id) FILTER (WHERE region = 'north') FROM customers;
SELECT region, active, count(*), grouping(region, active) FROM customers GROUP BY GROUPING SETS ((region, active), (region), ());
SELECT region, active, sum(score) FROM customers GROUP BY ROLLUP (region, active);
SELECT region, active, feeling, count(*) FROM customers GROUP BY CUBE (region, active, feeling);
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY score), mode() WITHIN GROUP (ORDER BY region) FROM customers;
SELECT percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY id) FROM customers;
SELECT rank(50) WITHIN GROUP (ORDER BY score) FROM customers;
SELECT count(DISTINCT (region, active)) FROM customers;
SELECT DISTINCT region FROM customers;
SELECT DISTINCT region, active FROM customers WHERE id > 10;
SELECT DISTINCT ON (region) region, id FROM customers ORDER BY region, id;
SELECT sum(count(*)) OVER () FROM customers GROUP BY region;
SELECT regr_count(score, id), corr(id, id) FROM customers;
SELECT max(sum_of) FROM (SELECT sum(total) AS sum_of FROM orders GROUP BY customer_id) AS sums;

-- Windows

SELECT id, rank() OVER (PARTITION BY region ORDER BY score, id) FROM customers;
SELECT id, row_number() OVER (ORDER BY id), lag(id) OVER (ORDER BY id), lead(name, 2, 'none') OVER (ORDER BY id) FROM customers;
SELECT id, sum(score) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM customers;
SELECT id, count(*) OVER w, first_value(id) OVER w FROM customers WINDOW w AS (PARTITION BY active ORDER BY joined, id);
SELECT customer_id, id, sum(total) OVER (PARTITION BY customer_id ORDER BY id) FROM orders;
SELECT id, ntile(4) OVER (ORDER BY id), percent_rank() OVER (ORDER BY region NULLS FIRST) FROM customers;
SELECT * FROM (SELECT id, dense_rank() OVER (ORDER BY name) AS place FROM customers) AS ranked WHERE place < 4;

-- Joins on the key

SELECT c.name, o.total FROM customers AS c JOIN orders AS o ON o.customer_id = c.id;
SELECT c.name, sum(o.total) FROM customers AS c JOIN orders AS o ON o.customer_id = c.id GROUP BY c.name;
SELECT c.id, o.id FROM customers AS c, orders AS o WHERE o.customer_id = c.id AND c.id = 12;
SELECT c.id, o.id FROM customers AS c JOIN orders AS o ON o.customer_id = c.id WHERE o.customer_id = 12 AND o.total > 10;
SELECT c.id, o.id FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id AND o.total > 500;
SELECT c.id, o.id FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id WHERE c.id = 7;
SELECT c.id, o.id FROM customers AS c RIGHT JOIN orders AS o ON o.customer_id = c.id;
SELECT c.id, o.id FROM customers AS c FULL JOIN orders AS o ON o.customer_id = c.id;
SELECT c.id, o.id FROM customers AS c FULL JOIN orders AS o ON o.customer_id = c.id AND c.id = 5;
SELECT c.id FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id WHERE o.id IS NULL;
SELECT a.id, b.name FROM customers AS a JOIN customers AS b USING (id);
SELECT count(*) FROM customers NATURAL JOIN customers AS again;
SELECT a.id, b.id FROM orders AS a JOIN orders AS b ON a.customer_id = b.customer_id AND a.id < b.id;
SELECT c, o FROM customers AS c JOIN orders AS o ON o.customer_id = c.id WHERE c.id = 3;
SELECT c.id, o FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id WHERE c.id IN (3, 4);

-- Joins off the key, and with local tables

SELECT a.id, b.id FROM customers AS a JOIN customers AS b ON b.id = a.parent;
SELECT a.id, b.id FROM customers AS a LEFT JOIN customers AS b ON b.parent = a.id AND b.active;
SELECT a.id, b.id FROM customers AS a JOIN customers AS b ON b.id = a.parent WHERE a.id = 20;
SELECT c.id, p.sku FROM customers AS c JOIN products AS p ON p.sku = 'sku-' || c.id;
SELECT c.id, p.sku FROM customers AS c FULL JOIN products AS p ON p.sku = 'sku-' || c.id;
SELECT c.id, p.sku FROM customers AS c, products AS p WHERE c.id = 3 AND p.sku = 'sku-9';
SELECT count(*) FROM customers CROSS JOIN products;
SELECT count(*) FROM customers AS c JOIN orders AS o ON c.id < o.customer_id AND o.id < 50;
SELECT c.id, r.currency FROM customers AS c JOIN countries AS r USING (region);
SELECT c.id, r.currency FROM customers AS c LEFT JOIN countries AS r USING (region) WHERE c.id = 4;
SELECT r.region, count(c.id) FROM countries AS r LEFT JOIN customers AS c USING (region) GROUP BY r.region;
SELECT r.region, c.id FROM countries AS r FULL JOIN customers AS c ON c.region = r.region AND c.id < 10;
SELECT n, name FROM numbers JOIN customers ON id = n;
SELECT n, name FROM numbers LEFT JOIN customers ON id = n WHERE n > 155;
SELECT n.n, o.id, c.name FROM numbers AS n JOIN orders AS o ON o.customer_id = n.n JOIN customers AS c ON c.id = o.customer_id;
SELECT a.id, k.k FROM customers AS a LEFT JOIN empty_shelf AS k ON k.k = a.id WHERE a.id < 5;
SELECT a.id FROM customers AS a JOIN empty_shelf AS k ON true;
SELECT v.x, c.name FROM (VALUES (1, 'a'), (5, 'b'), (NULL, 'c')) AS v (x, y) LEFT JOIN customers AS c ON c.id = v.x;
SELECT g, c.region FROM generate_series(155, 165) AS g LEFT JOIN customers AS c ON c.id = g;
SELECT c.id, u.tag FROM customers AS c, unnest(c.tags) AS u (tag);
SELECT c.id, u.tag, u.place FROM customers AS c LEFT JOIN unnest(c.tags) WITH ORDINALITY AS u (tag, place) ON true;
SELECT c.id, r.relname FROM customers AS c JOIN pg_class AS r ON r.relname = 'pg_class' WHERE c.id < 4;

-- Sub-queries

SELECT id FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE total > 900);
SELECT id FROM customers WHERE id NOT IN (SELECT customer_id FROM orders);
SELECT id FROM customers WHERE id NOT IN (SELECT parent FROM customers);
SELECT id FROM customers WHERE id NOT IN (SELECT parent FROM customers WHERE parent IS NOT NULL);
SELECT id FROM customers AS c WHERE EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id AND o.total > c.score);
SELECT id FROM customers AS c WHERE NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id);
SELECT id FROM customers AS c WHERE EXISTS (SELECT FROM empty_shelf);
SELECT id, (SELECT count(*) FROM orders AS o WHERE o.customer_id = c.id) FROM customers AS c;
SELECT id, (SELECT name FROM customers AS p WHERE p.id = c.parent) FROM customers AS c;
SELECT id, (SELECT max(total) FROM orders) - score FROM customers;
SELECT id, ARRAY(SELECT o.id FROM orders AS o WHERE o.customer_id = c.id ORDER BY o.id) FROM customers AS c WHERE id < 20;
SELECT id FROM customers WHERE score > (SELECT avg(score) FROM customers);
SELECT id FROM customers WHERE score > ALL (SELECT weight FROM orders);
SELECT id FROM customers WHERE score = ANY (SELECT total FROM orders);
SELECT id FROM customers WHERE (region, active) IN (SELECT region, active FROM customers WHERE id < 3);
SELECT id FROM customers WHERE id = (SELECT max(customer_id) FROM orders WHERE customer_id < 161);
SELECT id FROM customers WHERE id = (SELECT 12);
SELECT id FROM customers AS c WHERE score = (SELECT max(score) FROM customers AS other WHERE other.region = c.region);
SELECT region FROM countries AS r WHERE EXISTS (SELECT FROM customers AS c WHERE c.region = r.region AND c.id > 100);
SELECT region, (SELECT min(id) FROM customers AS c WHERE c.region = r.region) FROM countries AS r;
SELECT n FROM numbers WHERE n IN (SELECT id FROM customers WHERE active);
SELECT * FROM (SELECT id, name FROM customers WHERE id < 50) AS few WHERE id > 45;
SELECT * FROM (SELECT region, count(*) AS many FROM customers GROUP BY region) AS g JOIN countries USING (region);
SELECT * FROM (SELECT id FROM customers ORDER BY id LIMIT 5) AS few JOIN orders ON customer_id = few.id;
SELECT few.id FROM (SELECT id FROM customers OFFSET 0) AS few WHERE few.id = 9;
SELECT c.id, latest.id FROM customers AS c, LATERAL (SELECT o.id FROM orders AS o WHERE o.customer_id = c.id ORDER BY o.placed DESC LIMIT 1) AS latest;
SELECT c.id, latest.total FROM customers AS c LEFT JOIN LATERAL (SELECT o.total FROM orders AS o WHERE o.total < c.score ORDER BY o.total DESC, o.id LIMIT 1) AS latest ON true WHERE c.id < 25;
SELECT n, few.id FROM numbers, LATERAL (SELECT id FROM customers WHERE id = n + 1) AS few;
SELECT c.id, x.sum FROM customers AS c, LATERAL (SELECT sum(o.total) FROM orders AS o WHERE o.customer_id = c.parent) AS x WHERE c.id = 40;

-- WITH

WITH few AS (SELECT * FROM customers WHERE id < 10) SELECT count(*), min(region) FROM few;
WITH few AS MATERIALIZED (SELECT id, region FROM customers) SELECT a.id, b.id FROM few AS a JOIN few AS b USING (region) WHERE a.id < 5;
WITH sums AS (SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id) SELECT c.name, sums.total FROM customers AS c JOIN sums ON sums.customer_id = c.id WHERE sums.total > 1500;
WITH one AS (SELECT * FROM customers WHERE id = 8) SELECT one.name, o.id FROM one JOIN orders AS o ON o.customer_id = 8;
WITH unused AS (SELECT * FROM orders) SELECT 1;
WITH RECURSIVE up (id, parent, depth) AS (SELECT id, parent, 0 FROM customers WHERE id = 150 UNION ALL SELECT c.id, c.parent, up.depth + 1 FROM customers AS c JOIN up ON c.id = up.parent) SELECT * FROM up;
WITH RECURSIVE down (id, depth) AS (SELECT id, 0 FROM customers WHERE parent IS NULL UNION SELECT c.id, down.depth + 1 FROM customers AS c JOIN down ON c.parent = down.id) SELECT depth, count(*) FROM down GROUP BY depth;
WITH RECURSIVE counting (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 20) SELECT n, name FROM counting LEFT JOIN customers ON id = n * 10;

-- Set operations

SELECT id FROM customers UNION SELECT customer_id FROM orders;
SELECT id FROM customers UNION ALL SELECT customer_id FROM orders;
SELECT id FROM customers INTERSECT SELECT customer_id FROM orders;
SELECT id FROM customers EXCEPT SELECT customer_id FROM orders;
SELECT customer_id FROM orders EXCEPT ALL SELECT id FROM customers;
SELECT region FROM customers INTERSECT ALL SELECT region FROM countries;
SELECT name FROM customers WHERE id = 1 UNION ALL SELECT note FROM orders WHERE customer_id = 2;
SELECT id FROM customers WHERE id = 1 UNION ALL SELECT id FROM customers WHERE id = 1;
SELECT 0 AS id, NULL AS region UNION SELECT id, region FROM customers WHERE id < 5;
SELECT sum(x) FROM (SELECT id AS x FROM customers UNION ALL SELECT n FROM numbers UNION ALL SELECT NULL) AS all_of_them;
VALUES (1, (SELECT count(*) FROM customers)), (2, (SELECT count(*) FROM orders));

-- Functions

SELECT id, generate_series(1, id % 3) FROM customers WHERE id < 20;
SELECT id, double_it(id) FROM customers WHERE double_it(id) < 30;
SELECT id FROM customers WHERE double_it(id) = 24;
SELECT id, name_of(id) FROM customers WHERE id < 6;
SELECT name_of(33);
SELECT id, md5(name), left(name, 3), repeat('x', id % 3) FROM customers;
SELECT id FROM customers WHERE joined < now() AND placed_before(joined);
SELECT count(*) FROM customers WHERE random() >= 0;
SELECT current_user, count(*) FROM customers;
SELECT id, pg_typeof(score), pg_typeof(home), pg_typeof(c) FROM customers AS c WHERE id < 3;
SELECT id FROM customers TABLESAMPLE BERNOULLI (100) WHERE id < 9;
SELECT * FROM ONLY customers WHERE id < 9;
TABLE empty_shelf;

-- Views

SELECT * FROM regional;
SELECT * FROM regional WHERE region = 'north';
SELECT * FROM of_customer WHERE id = 14;
SELECT count(*), sum(total) FROM of_customer;
