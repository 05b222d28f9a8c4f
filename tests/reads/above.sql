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

-- GROUPING SETS with the distribution column in all sets.
SELECT customer, qty, count(*), grouping(customer, qty), grouping(qty) FROM orders GROUP BY customer, ROLLUP (qty);
SELECT customer, qty, paid, sum(total), avg(load) FROM orders GROUP BY GROUPING SETS ((customer, qty), (customer, paid), (customer)) HAVING count(*) > 1;
SELECT customer, qty, count(*) FROM orders GROUP BY GROUPING SETS ((customer), (customer), (qty, customer)) ORDER BY 1, 2 LIMIT 7;
SELECT customer, (no / 3) * 2, no / 3, count(DISTINCT item) FROM lines GROUP BY customer, CUBE ((no / 3));
SELECT customer, qty, string_agg(note, ',' ORDER BY id), mode() WITHIN GROUP (ORDER BY feel) FROM orders GROUP BY customer, CUBE (qty) HAVING grouping(qty) = 1;
SELECT id, name, grp, count(*) FROM customers GROUP BY GROUPING SETS ((id), (id, grp));
SELECT c.id, c.grp, count(o.id), max(o.total) FROM customers c LEFT JOIN orders o ON o.customer = c.id GROUP BY c.id, ROLLUP (c.grp) ORDER BY 1 DESC, 2 NULLS FIRST LIMIT 9;
SELECT k, v, count(*) FROM empty_shelf GROUP BY k, ROLLUP (v);

-- GROUPING SETS in parts: NULL keys beside keys that are not in the set, the empty set over no rows, sets twice.
SELECT grp, feel, count(*), sum(score), avg(weight), grouping(grp, feel) FROM customers GROUP BY ROLLUP (grp, feel);
SELECT grp, feel, ok, count(*), grouping(feel), grouping(ok, grp) FROM customers GROUP BY CUBE (grp, feel, ok) HAVING count(*) > 2;
SELECT grp, count(*) FROM customers GROUP BY GROUPING SETS ((grp), (grp), ());
SELECT grp, feel, count(*) FROM customers GROUP BY DISTINCT ROLLUP (grp, feel), ROLLUP (grp);
SELECT grp, count(*), sum(score) FROM customers WHERE score < 0 GROUP BY ROLLUP (grp);
SELECT grp, count(*), sum(score) FROM customers WHERE id = 3 AND id = 4 GROUP BY ROLLUP (grp);
SELECT grp, count(*), sum(score) FROM customers WHERE id IN (3, 4, 5) GROUP BY ROLLUP (grp);
SELECT grp, count(*), sum(score) FROM customers WHERE id < 0 GROUP BY GROUPING SETS ((grp), ());
SELECT v, b, count(*), max(n), sum(n) FROM empty_shelf GROUP BY CUBE (v, b);
SELECT v, count(*) FROM empty_shelf GROUP BY GROUPING SETS ((v));
SELECT customer, qty, count(*), avg(total) FROM orders GROUP BY CUBE (customer, qty);
SELECT grp + 1, (grp + 1) * 2, name, count(*), stddev(score) FROM customers GROUP BY GROUPING SETS ((grp + 1), (name), (grp + 1, name)) HAVING (grp + 1) IS NOT NULL OR grouping(name) = 0;
SELECT grouping(grp) + 1, coalesce(grp, -1), bool_or(ok), max(name) FROM customers GROUP BY ROLLUP (grp) ORDER BY 1, 2 LIMIT 5;
SELECT grp, grp, count(*), sum(grp) FROM customers GROUP BY GROUPING SETS ((1), (2), ());
SELECT 7, grp, count(*) FROM customers GROUP BY ROLLUP (1, 2);
SELECT c.grp, o.qty, count(*), sum(o.total) FROM customers c JOIN orders o ON o.customer = c.id GROUP BY GROUPING SETS ((c.grp, o.qty), (o.qty), ());
SELECT p.kind, s.place, count(*) FROM products p JOIN stock s ON s.amount = p.size GROUP BY ROLLUP (p.kind, s.place);
SELECT grp, rank() OVER (ORDER BY count(*), grp), count(*) FROM customers GROUP BY ROLLUP (grp);
SELECT id, rank() OVER (PARTITION BY id ORDER BY count(*)), grp FROM customers GROUP BY GROUPING SETS ((id), (id, grp));
SELECT DISTINCT grp, count(*) > 3 FROM customers GROUP BY CUBE (grp, feel);
SELECT grp, count(DISTINCT name) FROM customers GROUP BY ROLLUP (grp);
SELECT grp, name, corr(weight, score), count(*) FILTER (WHERE ok) FROM customers GROUP BY ROLLUP (grp, name);
[int8 2] SELECT grp % $1, count(*), grouping(grp % $1) FROM customers GROUP BY ROLLUP (grp % $1);

-- Aggregates of the server in parts.
SELECT grp, round(corr(weight, score)::numeric, 9), round(covar_pop(weight, score)::numeric, 9), round(covar_samp(score, weight)::numeric, 9), regr_count(weight, score),
  round(regr_slope(weight, score)::numeric, 9), round(regr_intercept(weight, score)::numeric, 9), round(regr_r2(weight, score)::numeric, 9), round(regr_avgx(weight, score)::numeric, 9),
  round(regr_avgy(weight, score)::numeric, 9), round(regr_sxx(weight, score)::numeric, 9), round(regr_syy(weight, score)::numeric, 9), round(regr_sxy(weight, score)::numeric, 9) FROM customers GROUP BY grp;
SELECT corr(weight, score) FILTER (WHERE id < 0), covar_pop(weight, score) FILTER (WHERE id = 3), regr_count(weight, score) FILTER (WHERE ok) FROM customers;
SELECT corr(weight, 2), regr_slope(2, weight), regr_r2(weight, 2.5), regr_sxx(1, weight) FROM customers;
SELECT regr_avgx(n, k), corr(n, k), covar_samp(n, k), avg(d - date '2016-01-01') FROM empty_shelf;
SELECT round(regr_slope(weight, score) FILTER (WHERE ok OR name IS NULL)::numeric, 9) FROM customers;
SELECT grp, avg(span), sum(span), avg(span) FILTER (WHERE ok) FROM customers GROUP BY grp;
SELECT avg(span) FROM customers WHERE id < 0;
SELECT corr(CASE WHEN id = 5 THEN 'infinity' ELSE weight END, score), corr(CASE WHEN id = 5 THEN 'nan' ELSE weight END, score) FROM customers;

-- Ordered-set aggregates, and aggregates with an order of their own.
SELECT customer, percentile_cont(0.3) WITHIN GROUP (ORDER BY load), percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY total DESC), mode() WITHIN GROUP (ORDER BY note) FROM orders GROUP BY customer;
SELECT customer, string_agg(note, ',' ORDER BY id DESC), array_agg(id ORDER BY total NULLS FIRST, id), rank(3) WITHIN GROUP (ORDER BY qty), jsonb_agg(qty ORDER BY id) FILTER (WHERE paid) FROM orders GROUP BY customer;
SELECT qty, percentile_cont(0.3) WITHIN GROUP (ORDER BY load), string_agg(note, ',' ORDER BY customer, id), dense_rank(3, 'x') WITHIN GROUP (ORDER BY qty, note) FROM orders GROUP BY qty;

-- Windows in a sub-query that is joined where its rows lie.
SELECT c.name, x.id, x.place FROM customers c JOIN (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY total DESC, id) AS place FROM orders) x ON x.customer = c.id WHERE x.place <= 2;
SELECT c.name, x.id, x.place FROM customers c LEFT JOIN (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY total DESC, id) AS place FROM orders) x ON x.customer = c.id AND x.place = 2;
SELECT x.customer, x.many, l.item FROM (SELECT customer, count(*) OVER (PARTITION BY customer) AS many, qty FROM orders WHERE qty > 2) x JOIN lines l ON l.customer = x.customer WHERE l.no = 1 AND x.many > 1;
SELECT c.grp, sum(x.s), max(x.r) FROM customers c JOIN (SELECT customer, qty, sum(total) AS s, rank() OVER (PARTITION BY customer ORDER BY sum(total)) AS r FROM orders GROUP BY customer, qty) x ON x.customer = c.id GROUP BY c.grp;
SELECT c.id, x.more FROM customers c JOIN (SELECT customer, rank() OVER (PARTITION BY customer ORDER BY qty, id) + 1 AS more FROM orders) x ON x.customer = c.id;
SELECT a.customer, a.r, b.r FROM (SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY id) AS r FROM orders) a JOIN (SELECT customer, order_id, rank() OVER (PARTITION BY customer ORDER BY order_id DESC, no) AS r FROM lines) b
  ON b.customer = a.customer WHERE a.r = b.r;
SELECT count(*), sum(x.place) FROM customers c JOIN (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY total DESC, id) AS place FROM orders) x ON x.customer = c.id WHERE x.place <= 2 AND c.ok;
SELECT c.id FROM customers c WHERE c.id IN (SELECT customer FROM (SELECT customer, row_number() OVER (PARTITION BY customer ORDER BY id) AS n FROM orders) x WHERE n >= 2);
SELECT x.id, rank() OVER (PARTITION BY x.id ORDER BY x.many, o.id) FROM (SELECT id, count(*) OVER (PARTITION BY id) AS many FROM customers) x JOIN orders o ON o.customer = x.id;
[int8 2] SELECT c.name, x.id FROM customers c JOIN (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY id) AS place FROM orders) x ON x.customer = c.id WHERE x.place <= $1 AND c.grp < $1;
