-- Windows, groups and distinct rows of all kinds, each of which has one answer: the same on distributed tables as on local ones.

-- Windows by the distribution column: frames of all kinds, FILTER, order by operators, NULLs first and last.
SELECT customer, id, sum(qty) OVER (PARTITION BY customer ORDER BY id ROWS 2 PRECEDING) FROM orders;
SELECT customer, id, sum(qty) OVER (PARTITION BY customer ORDER BY id ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) FROM orders;
SELECT customer, id, count(*) OVER (PARTITION BY customer ORDER BY placed RANGE BETWEEN interval '3 days' PRECEDING AND interval '1 day' FOLLOWING) FROM orders;
SELECT customer, id, array_agg(id) OVER (PARTITION BY customer ORDER BY id DESC RANGE BETWEEN 5 PRECEDING AND 3 FOLLOWING EXCLUDE CURRENT ROW) FROM orders;
SELECT customer, id, count(*) OVER (PARTITION BY customer ORDER BY qty GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE GROUP) FROM orders;
SELECT customer, id, count(*) OVER (PARTITION BY customer ORDER BY qty GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE TIES) FROM orders;
SELECT customer, id, count(note) FILTER (WHERE paid) OVER (PARTITION BY customer), count(*) OVER (PARTITION BY customer, paid) FROM orders;
SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY total USING >, note USING ~<~) FROM orders;
SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY note COLLATE "C" DESC NULLS LAST, qty NULLS FIRST) FROM orders;
SELECT customer, id, first_value(note) OVER w, last_value(note) OVER w, nth_value(note, 2) OVER w, lag(note, 2, 'none') OVER w, lead(qty) OVER w, ntile(3) OVER w,
  percent_rank() OVER w, cume_dist() OVER w FROM orders WINDOW w AS (PARTITION BY customer ORDER BY id);
SELECT id, row_number() OVER (PARTITION BY id, grp), max(code) OVER (PARTITION BY id), min(fixed) OVER (PARTITION BY id), sum(weight) OVER (PARTITION BY id) FROM customers;
SELECT k, rank() OVER (PARTITION BY k ORDER BY n), count(*) OVER (PARTITION BY k) FROM empty_shelf;
SELECT "Key", lag("a ""b"" c") OVER (PARTITION BY "Key" ORDER BY "Größe"), sum("Größe") OVER (PARTITION BY "Key" / 2000) FROM "Odd Names";
SELECT id, sum(n) OVER (), rank() OVER (ORDER BY n), sum(f) OVER (ORDER BY id) FROM single;
SELECT "Key", "to", feel, rank() OVER (PARTITION BY "Key" ORDER BY feel DESC, "to") + 1, now() = max(now()) OVER (PARTITION BY "Key") FROM links;

-- Partitions that lie in no single shard stay here, also behind an outer join.
SELECT qty, rank() OVER (PARTITION BY qty ORDER BY total, id), count(*) OVER (PARTITION BY customer) FROM orders;
SELECT c.id, o.id, count(*) OVER (PARTITION BY o.customer), count(*) OVER (PARTITION BY c.id) FROM customers c LEFT JOIN orders o ON o.customer = c.id AND o.qty > 4;
SELECT c.id, o.id, rank() OVER (PARTITION BY o.customer, c.grp ORDER BY o.total, o.id) FROM customers c JOIN orders o ON o.customer = c.id;
SELECT c.id, o.id, count(*) OVER (PARTITION BY o.customer) FROM customers c FULL JOIN orders o ON o.customer = c.id;

-- Windows over groups.
SELECT customer, qty, sum(total), rank() OVER (PARTITION BY customer ORDER BY sum(total) DESC, qty), sum(sum(total)) OVER (PARTITION BY customer) FROM orders GROUP BY customer, qty;
SELECT customer, count(*), sum(count(*)) OVER (PARTITION BY customer) FROM orders GROUP BY customer HAVING count(*) > 1;
SELECT customer + 1, max(total), lag(max(total)) OVER (PARTITION BY customer + 1) FROM orders GROUP BY customer + 1;
SELECT qty, sum(total), rank() OVER (PARTITION BY qty ORDER BY sum(total)) FROM orders GROUP BY qty;
SELECT id, name, count(*) OVER (PARTITION BY id) FROM customers GROUP BY id;

-- The planner takes a filter on ranks for a condition of the window.
SELECT * FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY total DESC, id) AS place FROM orders) x WHERE place <= 2;
SELECT customer FROM (SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY qty) AS place FROM orders) x WHERE 2 > place;
SELECT * FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY id) AS first, dense_rank() OVER (PARTITION BY customer ORDER BY qty DESC) AS second FROM orders) x
 WHERE first <= 3 AND second < 3;
SELECT * FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY id) AS place FROM orders) x WHERE place = 2;
SELECT * FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY id) AS place FROM orders) x WHERE place <= NULL;
SELECT * FROM (SELECT customer, id, count(*) OVER (PARTITION BY customer ORDER BY id) AS many FROM orders) x WHERE many <= (SELECT min(grp) + 1 FROM customers);
[int8 2] SELECT * FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY id) AS place FROM orders) x WHERE place <= $1;
[int8 1] SELECT customer, id, sum(qty) OVER (PARTITION BY customer ORDER BY id ROWS $1 PRECEDING) FROM orders;
SELECT * FROM (SELECT id, row_number() OVER (ORDER BY n, id) AS place FROM single) x WHERE place <= 4;

-- DISTINCT, ORDER BY and LIMIT above windows.
SELECT DISTINCT customer, count(*) OVER (PARTITION BY customer) FROM orders;
SELECT DISTINCT count(*) OVER (PARTITION BY customer), qty FROM orders ORDER BY 1, 2 LIMIT 5;
SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY total) FROM orders ORDER BY 3 DESC, 1, 2 LIMIT 7 OFFSET 2;
SELECT customer, id FROM orders ORDER BY rank() OVER (PARTITION BY customer ORDER BY total) DESC, 1, 2 LIMIT 7;
SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY total) - 1 FROM orders ORDER BY 3 DESC, 1, 2 LIMIT 7;

-- DISTINCT ON, by the distribution column and by others.
SELECT DISTINCT ON (customer) customer, id, note FROM orders ORDER BY customer, total DESC, id;
SELECT DISTINCT ON (customer) id, note FROM orders ORDER BY customer DESC, total NULLS FIRST, id;
SELECT DISTINCT ON (qty) qty, customer, id FROM orders ORDER BY qty DESC NULLS LAST, placed, customer, id;
SELECT DISTINCT ON (note, qty) note, qty, customer, id FROM orders ORDER BY note NULLS FIRST, qty DESC, customer, id;
SELECT DISTINCT ON (qty, customer) qty, customer FROM orders;
SELECT DISTINCT ON (qty % 3, note) qty % 3, note FROM orders ORDER BY note;
SELECT DISTINCT ON (1 + 1) customer, id FROM orders ORDER BY 1 + 1, customer, id;
SELECT DISTINCT ON (grp) grp, name, id FROM customers ORDER BY grp, name COLLATE "C" DESC NULLS LAST, id LIMIT 3;
SELECT DISTINCT ON (c.grp) c.grp, o.total, o.id, c.id FROM customers c LEFT JOIN orders o ON o.customer = c.id ORDER BY c.grp, o.total DESC NULLS LAST, o.id, c.id;
SELECT DISTINCT ON (o.customer) o.customer, c.id, o.id FROM customers c FULL JOIN orders o ON o.customer = c.id ORDER BY o.customer, c.id, o.id;
SELECT DISTINCT ON (v) v, k FROM empty_shelf ORDER BY v, k;
SELECT DISTINCT ON (customer) customer, qty, sum(total) FROM orders GROUP BY customer, qty ORDER BY customer, sum(total) DESC, qty;
SELECT DISTINCT ON (qty) customer, qty, sum(total) FROM orders GROUP BY customer, qty ORDER BY qty, sum(total) DESC, customer;
SELECT DISTINCT ON (qty) qty, sum(total) FROM orders GROUP BY qty ORDER BY qty;
SELECT DISTINCT ON (customer) customer, id, rank() OVER (PARTITION BY customer ORDER BY total) FROM orders ORDER BY customer, rank() OVER (PARTITION BY customer ORDER BY total) DESC, id;
[int8 3] SELECT DISTINCT ON (qty % $1) qty % $1, customer, id FROM orders ORDER BY qty % $1, customer, id;
