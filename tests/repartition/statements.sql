-- Each is answered like plain PostgreSQL's, and rows move from worker to worker for it.

-- One side moves to where the other's distribution column leads.
SELECT a.id, c.id, c.y FROM a JOIN c ON a.t = c.id;
SELECT a.id, c.id, c.y FROM a LEFT JOIN c ON a.t = c.id;
SELECT a.id, c.id, c.y FROM c LEFT JOIN a ON a.t = c.id;
SELECT a.id, c.id, c.y FROM c FULL JOIN a ON a.t = c.id;
SELECT a.id FROM a WHERE EXISTS (SELECT FROM c WHERE c.id = a.t AND c.y > 10);
SELECT a.id FROM a WHERE NOT EXISTS (SELECT FROM c WHERE c.id = a.t AND c.y > 10);
SELECT c.id, c.y FROM c WHERE EXISTS (SELECT FROM a WHERE c.id = a.t AND a.x > c.y);
SELECT c.id, c.y FROM c WHERE NOT EXISTS (SELECT FROM a WHERE c.id = a.t AND a.x > c.y);
SELECT a.id FROM a WHERE a.t IN (SELECT id FROM c);
SELECT e.id, c.i, c.n FROM c JOIN e ON c.i = e.id;
SELECT e.id, e.tags, c.b FROM c JOIN e ON c.b = e.id;
SELECT a.id, e.id, e.tags FROM a LEFT JOIN e ON a.b = e.id;
SELECT a.id, e.id, e.tags FROM a FULL JOIN e ON a.x = e.id;

-- Both sides move.
SELECT a.id, c.id FROM a JOIN c ON a.x = c.i;
SELECT a.id, c.id, c.y FROM a LEFT JOIN c ON a.x = c.i;
SELECT a.id, c.id, c.y FROM a FULL JOIN c ON a.x = c.i;
SELECT a.id FROM a WHERE EXISTS (SELECT FROM c WHERE c.i = a.x);
SELECT a.id FROM a WHERE NOT EXISTS (SELECT FROM c WHERE c.i = a.x);
SELECT a.id, c.id FROM a JOIN c ON a.u = c.u;
SELECT a.id, c.id FROM a FULL JOIN c ON a.u = c.u AND a.x < c.y;
SELECT a.id, c.id, a.n, c.n FROM a JOIN c ON a.n = c.n;
SELECT a.id, c.id FROM a LEFT JOIN c ON a.n = c.n WHERE c.id IS NULL OR c.y > 20;
SELECT a.id, c.id FROM a JOIN c ON a.x = c.b;
SELECT a.id, c.id FROM a JOIN c ON a.v = c.v AND a.x > c.y;
SELECT a.id, c.id, a.f, c.f FROM a JOIN c ON a.f = c.f;
SELECT a.id, c.id, a.d FROM a JOIN c ON a.d = c.d;
SELECT p.id, q.id FROM a p JOIN a q ON p.x = q.b WHERE p.id < 100;
SELECT p.id, q.id FROM a p LEFT JOIN a q ON p.t = q.t AND q.id > 300 WHERE p.id < 100;

-- And more is done where they lie.
SELECT c.id, count(*), sum(a.x) FROM a JOIN c ON a.t = c.id GROUP BY c.id;
SELECT a.t, count(*), sum(c.y) FROM a LEFT JOIN c ON a.t = c.id GROUP BY a.t;
SELECT a.x, count(*), max(c.y), count(DISTINCT c.id) FROM a JOIN c ON a.x = c.i GROUP BY a.x HAVING count(*) > 3;
SELECT c.y, avg(a.n), min(a.id) FROM a JOIN c ON a.x = c.i GROUP BY c.y;
SELECT count(*), count(a.id), count(c.id), sum(c.y) FROM a FULL JOIN c ON a.x = c.i;
SELECT a.id, c.y FROM a JOIN c ON a.x = c.i ORDER BY c.y DESC, a.id, c.id LIMIT 17;
SELECT DISTINCT c.y, a.x FROM a JOIN c ON a.u = c.u;
SELECT a.x, c.y, rank() OVER (PARTITION BY a.x ORDER BY c.y, a.id, c.id) FROM a JOIN c ON a.x = c.i WHERE a.id < 200;
SELECT a.id, c.id, r.name FROM a JOIN c ON a.x = c.i LEFT JOIN r ON r.id = a.x;
SELECT a.id, c.id, e.note FROM a JOIN e ON a.id = e.id JOIN c ON a.x = c.i;
SELECT a.id, c.id, e.note FROM a JOIN c ON a.x = c.i LEFT JOIN e ON a.b = e.id AND e.note <> 'n';
SELECT c.id, g.n FROM c JOIN (SELECT id, count(*) AS n FROM e GROUP BY id) g ON g.id = c.i;
SELECT a.id, s.total FROM a JOIN (SELECT id, sum(y) AS total FROM c GROUP BY id) s ON s.id = a.t;
SELECT a.id, (SELECT count(*) FROM r WHERE r.id = a.x), c.y FROM a JOIN c ON a.x = c.i WHERE a.id < 50;
SELECT count(*) FROM a WHERE a.x < (SELECT avg(c.y) FROM c JOIN a q ON q.x = c.i);
