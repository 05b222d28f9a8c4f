CREATE VIEW tv AS SELECT k, c AS first, a AS second, arr, v FROM t;
CREATE VIEW tw AS SELECT k, a, s FROM t WHERE k < 100;
CREATE VIEW ruled AS SELECT k, a, s FROM t;
CREATE RULE ruled_update AS ON UPDATE TO ruled DO INSTEAD UPDATE t SET a = new.a, s = old.s || new.s WHERE k = old.k;
CREATE RULE ruled_delete AS ON DELETE TO ruled DO INSTEAD UPDATE t SET s = 'gone' WHERE k = old.k;
CREATE VIEW iv AS SELECT k, a, s FROM t;
CREATE FUNCTION iv_instead() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        IF tg_op = 'DELETE' THEN UPDATE t SET s = 'deleted' WHERE k = old.k; RETURN old; END IF;
        IF tg_op = 'UPDATE' THEN UPDATE t SET s = 'updated', a = new.a WHERE k = old.k; RETURN new; END IF;
        INSERT INTO t (k, a, s) VALUES (new.k, new.a, 'inserted'); RETURN new;
    END $$;
CREATE TRIGGER iv_instead INSTEAD OF INSERT OR UPDATE OR DELETE ON iv FOR EACH ROW EXECUTE FUNCTION iv_instead();
CREATE VIEW tree AS WITH RECURSIVE r (k, x, d) AS (
        SELECT k, x, 1 FROM u WHERE k = 1 UNION ALL SELECT u.k, u.x, d + 1 FROM u, r WHERE u.k = r.k AND u.x > r.x AND d < 4)
    SEARCH DEPTH FIRST BY x SET seq CYCLE x SET looped USING path SELECT k, x, d, looped FROM r;
CREATE VIEW otree AS WITH RECURSIVE r (k, up) AS (SELECT k, up FROM o WHERE k = 1 UNION ALL SELECT o.k, o.up FROM o, r WHERE o.up = r.k)
    SEARCH DEPTH FIRST BY k SET seq SELECT k, up, seq::text AS seq FROM r;
