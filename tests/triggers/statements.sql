INSERT INTO t (k, v) VALUES (1, 'a')
INSERT INTO t (k, v) VALUES (2, 'b'), (3, 'skip'), (4, 'd') RETURNING k, v, n, g
INSERT INTO t (k, v) SELECT i, 'i' || i FROM generate_series(10, 16) AS i
INSERT INTO t SELECT k + 20, v FROM t WHERE k > 13
INSERT INTO t (k, v) VALUES (5, 'count'), (6, 'count'), (7, 'count')
INSERT INTO t (k, v) VALUES (8, 'move'), (9, 'move') RETURNING k
INSERT INTO t (k, v) VALUES (40, 'x'), (41, 'bad')
INSERT INTO t (k, v) VALUES (1, 'again')
INSERT INTO t (k, v) VALUES (42, 'caught'), (43, 'caught')
UPDATE t SET v = 'A' WHERE k = 1 RETURNING *
UPDATE t SET n = n + 10 WHERE k > 3
UPDATE t SET v = 'skip' WHERE k = 10
UPDATE t SET v = v WHERE k IN (11, 12)
UPDATE t SET n = -7 WHERE k = 11
UPDATE t SET k = k + 500 WHERE k IN (12, 13)
UPDATE t SET v = 'move' WHERE k = 14
UPDATE t SET v = 'other' WHERE k = 15
UPDATE t SET v = 'other' WHERE k = 2
UPDATE t SET v = 'itself' WHERE k = 16
UPDATE t SET v = 'bad' WHERE k = 16
UPDATE t SET v = 'j' || j.k FROM (VALUES (1), (4)) AS j (k) WHERE t.k = j.k
UPDATE t SET v = 'n' FROM t AS o WHERE o.k = t.k + 1 AND t.k < 3
DELETE FROM t WHERE k = 16 RETURNING *
DELETE FROM t WHERE k > 20 AND v LIKE 'i%'
DELETE FROM t WHERE false
INSERT INTO t (k, v) VALUES (1, 'conflict') ON CONFLICT (k) DO UPDATE SET v = excluded.v || t.v RETURNING k, v, n, g
INSERT INTO t (k, v) VALUES (1, 'conflict'), (50, 'new') ON CONFLICT DO NOTHING RETURNING k
INSERT INTO t (k, v) VALUES (1, 'skip'), (2, 'x'), (51, 'new') ON CONFLICT (k) DO UPDATE SET v = excluded.v
INSERT INTO t (k, v) VALUES (2, 'x') ON CONFLICT (k) DO UPDATE SET v = 'skip'
MERGE INTO t USING (VALUES (1, 'm1'), (2, 'm2'), (60, 'm60'), (4, 'del')) AS s (k, v) ON t.k = s.k WHEN MATCHED AND s.v = 'del' THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)
MERGE INTO t USING (VALUES (70, 'skip'), (1, 'skip')) AS s (k, v) ON t.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)
WITH w AS (INSERT INTO t (k, v) VALUES (71, 'w') RETURNING k), u AS (UPDATE t SET v = 'u' WHERE k = 50 RETURNING k) SELECT * FROM w, u
WITH gone AS (DELETE FROM t WHERE k = 71 RETURNING *) INSERT INTO t (k, v) SELECT k + 1, v FROM gone
COPY t (k, v) FROM PROGRAM 'printf "80\tcopied\n81\tskip\n82\tcount\n83\tcount\n84\tmove\n"'
COPY t (k, v) FROM PROGRAM 'printf "85\tcopied\n86\tbad\n"'
INSERT INTO changeable VALUES (90, 'view'), (1, 'view')
UPDATE changeable SET v = 'changed' WHERE k IN (90, 50)
DELETE FROM changeable WHERE k = 90
BEGIN; UPDATE t SET v = 'first' WHERE k = 2; SELECT count(*) FROM audit; SET CONSTRAINTS ALL IMMEDIATE; SELECT count(*) FROM audit; UPDATE t SET v = 'second' WHERE k = 2; COMMIT
BEGIN; UPDATE t SET v = 'undone' WHERE k = 2; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK
BEGIN; SAVEPOINT a; UPDATE t SET v = 'undone' WHERE k = 2; ROLLBACK TO a; UPDATE t SET v = 'kept' WHERE k = 6; SAVEPOINT b; DELETE FROM t WHERE k = 7; RELEASE b; COMMIT
SET my.name = 'Ada'; UPDATE t SET v = 'Ada' WHERE k = 2; RESET my.name
SET ROLE changer; UPDATE t SET v = 'by the changer' WHERE k = 2; UPDATE t SET updated_at = NULL WHERE k = 2; RESET ROLE
ALTER TABLE t ADD COLUMN volatile uuid DEFAULT gen_random_uuid()
ALTER TABLE t DISABLE TRIGGER e_row; UPDATE t SET v = 'disabled' WHERE k = 2
ALTER TABLE t ENABLE TRIGGER e_row; UPDATE t SET v = 'enabled' WHERE k = 2
ALTER TABLE t DROP COLUMN volatile; UPDATE t SET v = 'dropped' WHERE k = 2
ALTER TABLE t ADD COLUMN more int DEFAULT 7; UPDATE t SET v = 'more' WHERE k = 2; INSERT INTO t (k) VALUES (95)
DROP TRIGGER e_row ON t; UPDATE t SET v = 'gone' WHERE k = 2
ALTER TRIGGER f_column ON t RENAME TO renamed; UPDATE t SET v = 'renamed' WHERE k = 2
SET session_replication_role = replica; UPDATE t SET v = 'replica' WHERE k = 2; RESET session_replication_role
ALTER TABLE t ENABLE ALWAYS TRIGGER renamed; SET session_replication_role = replica; UPDATE t SET v = 'always' WHERE k = 2; RESET session_replication_role
PREPARE p AS UPDATE t SET n = n + 1 WHERE k = 6; EXECUTE p; ALTER TABLE t DISABLE TRIGGER USER; EXECUTE p; ALTER TABLE t ENABLE TRIGGER USER; EXECUTE p; DEALLOCATE p
TRUNCATE t
