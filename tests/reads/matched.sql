-- Joins of a small side with what the workers find for its rows in `big`: nearly each statement has a part that is done by position.
-- `few` is local, `part` is distributed by something else, `nobody` is a local table without rows. NULLs, and values that come
-- twice, are in all columns.

-- Anti joins.
SELECT * FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref);
SELECT f.id, f.txt FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.num > f.num);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.txt = f.txt);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.num = f.num);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.txt = f.txt AND b.d <= f.d);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.k = f.ref);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.k = f.ref AND b.flag);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref + 1);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.k = 7);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.k = 7 AND b.k = 8);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND f.id > 20);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.wide);
SELECT * FROM nobody f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref);
SELECT id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.num < 0);
SELECT f FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref) AND f.id < 30;
SELECT f.tableoid::regclass::text <> '', f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref);
SELECT s.id, s.ref FROM part s WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = s.ref);
SELECT s.id, s.ref FROM part s WHERE s.id < 40 AND NOT EXISTS (SELECT FROM big b WHERE b.txt = s.txt AND b.d > s.d);
SELECT count(*), sum(s.id) FROM part s WHERE NOT EXISTS (SELECT FROM big b WHERE b.k = s.ref AND b.num > 50);
SELECT s.txt, count(*) FROM part s WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = s.ref) GROUP BY s.txt;
SELECT f.id, s.id FROM few f JOIN part s ON s.id = f.id WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.txt = s.txt);
SELECT f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b JOIN other o ON o.k = b.k WHERE b.ref = f.ref AND o.n > 3);
SELECT f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND EXISTS (SELECT FROM other o WHERE o.k = b.k AND o.n = 2));
SELECT f.id FROM few f LEFT JOIN big b ON b.ref = f.ref WHERE b.k IS NULL;
SELECT f.id, b.txt, b.k FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.txt = f.txt WHERE b.k IS NULL;

-- Semi joins.
SELECT * FROM few f WHERE EXISTS (SELECT FROM big b WHERE b.ref = f.ref);
SELECT id FROM few f WHERE f.ref IN (SELECT ref FROM big WHERE num > 40);
SELECT id FROM few f WHERE (f.ref, f.txt) IN (SELECT ref, txt FROM big);
SELECT id FROM few f WHERE EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.num > f.num AND b.d <> f.d);
SELECT id FROM few f WHERE EXISTS (SELECT FROM big b WHERE b.num = f.num AND (b.flag OR f.id > 10));
SELECT id FROM few f WHERE f.ref IN (SELECT k FROM big);
SELECT id FROM few f WHERE f.wide IN (SELECT ref FROM big);
SELECT f.id, o.id FROM few f JOIN few o ON o.ref = f.ref WHERE f.ref IN (SELECT ref FROM big WHERE flag);
SELECT id FROM nobody f WHERE f.ref IN (SELECT ref FROM big);
SELECT s.id FROM part s WHERE s.ref IN (SELECT ref FROM big WHERE txt LIKE 'b%');
SELECT s.id FROM part s WHERE s.id % 7 = 0 AND EXISTS (SELECT FROM big b WHERE b.txt = s.txt AND b.ref <> s.ref) ORDER BY s.id LIMIT 5;
SELECT count(DISTINCT f.txt) FROM few f WHERE EXISTS (SELECT FROM big b WHERE b.ref = f.ref);
SELECT f.id FROM few f WHERE f.ref IN (SELECT b.ref FROM big b JOIN other o ON o.k = b.k AND o.n = 1);

-- Left joins.
SELECT f.id, b.k, b.id, b.num, b.txt FROM few f LEFT JOIN big b ON b.ref = f.ref;
SELECT f.id, b.k, b.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.num > f.num AND f.id > 4;
SELECT f.id, b FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.txt = f.txt;
SELECT f, b.id, b.tableoid IS NULL FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.txt = f.txt;
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.k = f.ref;
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.k = f.ref AND b.num > 90;
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.txt = f.txt AND b.d = f.d WHERE b.flag IS NOT TRUE;
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.flag WHERE coalesce(b.num, 1) > f.num;
SELECT f.id, b.id FROM nobody f LEFT JOIN big b ON b.ref = f.ref;
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.num < 0;
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.k = 7 AND b.k = 8;
SELECT s.id, b.id, b.num FROM part s LEFT JOIN big b ON b.ref = s.ref AND b.d > s.d WHERE s.id < 50;
SELECT s.id, count(b.id), sum(b.num) FROM part s LEFT JOIN big b ON b.ref = s.ref AND b.flag GROUP BY s.id;
SELECT f.id, b.id, o.n FROM few f LEFT JOIN (big b JOIN other o ON o.k = b.k) ON b.ref = f.ref AND o.n < 3;
SELECT f.id, count(*) FROM big b RIGHT JOIN few f ON b.ref = f.ref GROUP BY f.id;
SELECT f.id, x.word FROM few f LEFT JOIN (SELECT ref, 'found' AS word FROM big WHERE flag) x ON x.ref = f.ref;
SELECT f.id, (SELECT count(*) FROM part s LEFT JOIN big b ON b.ref = s.ref AND b.num > f.num WHERE s.id = f.id) FROM few f;
SELECT f.id, l.n FROM few f, LATERAL (SELECT count(b.id) AS n FROM part s LEFT JOIN big b ON b.ref = s.ref WHERE s.id < f.id) l WHERE f.id < 6;
SELECT f.id, b.id, c.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.flag LEFT JOIN big c ON c.ref = b.id;
SELECT f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref) AND EXISTS (SELECT FROM big b WHERE b.txt = f.txt);
[int4 40] SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.num > $1;
[int4 3] SELECT f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref + $1);

-- Read again, with the same parameters and with others.
SELECT f.id, x.id, x.n FROM few f JOIN (SELECT s.id, b.id AS n FROM part s LEFT JOIN big b ON b.ref = s.ref AND b.flag OFFSET 0) x ON x.id < f.id AND x.n > f.wide;
SELECT f.id, x.id FROM few f JOIN (SELECT s.id FROM part s WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = s.ref) OFFSET 0) x ON x.id < f.id;
SELECT f.id, (SELECT count(*) FROM part s WHERE s.id < f.id AND NOT EXISTS (SELECT FROM big b WHERE b.ref = s.ref)) FROM few f WHERE f.id < 20;
SELECT f.id, (SELECT sum(b.id) FROM part s LEFT JOIN big b ON b.ref = s.ref WHERE s.id < f.id) FROM few f WHERE f.id < 20;

-- Filters of the large side, rows of it as a whole in them among others.
SELECT f.id FROM few f WHERE f.ref IN (SELECT ref FROM big b WHERE num > 20 AND (flag OR d < '2020-02-01'));
SELECT f.id, b.id FROM few f LEFT JOIN big b ON b.ref = f.ref AND b.num > 20 AND b.txt IS NOT NULL;
SELECT f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b IS NOT NULL);
SELECT f.id FROM few f WHERE NOT EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.*::text LIKE '%' || f.id || '%');
SELECT f.id FROM few f WHERE EXISTS (SELECT FROM big b WHERE b.ref = f.ref AND b.ctid IS NOT NULL AND b.tableoid > 0);
SELECT f.id FROM few f WHERE EXISTS (SELECT FROM big b TABLESAMPLE BERNOULLI (100) WHERE b.ref = f.ref AND b.flag);
