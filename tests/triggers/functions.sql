-- The functions resolve the tables' names by the caller's search path.
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := 'epoch'::timestamptz + NEW.n * interval '1 day';
    NEW.n := NEW.n + 1;
    RETURN NEW;
END $$;

CREATE FUNCTION decide() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v text := CASE WHEN TG_OP = 'DELETE' THEN OLD.v ELSE NEW.v END;
BEGIN
    CASE v
        WHEN 'skip' THEN RETURN NULL;
        WHEN 'count' THEN SELECT count(*) INTO NEW.n FROM t;
        WHEN 'move' THEN NEW.k := NEW.k + 1000;
        WHEN 'other' THEN UPDATE t SET n = -5 WHERE k = 2;
        WHEN 'itself' THEN UPDATE t SET n = -5 WHERE k = OLD.k;
        WHEN 'bad' THEN
            RAISE EXCEPTION 'no % here', NEW.k USING ERRCODE = 'ABC12', DETAIL = 'A detail.', HINT = 'A hint.';
        WHEN 'caught' THEN
            BEGIN
                INSERT INTO audit (k, what) VALUES (NEW.k, 'undone');
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN
                NEW.v := 'was caught';
            END;
        ELSE NULL;
    END CASE;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    o jsonb := CASE WHEN TG_LEVEL = 'ROW' AND TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    w jsonb := CASE WHEN TG_LEVEL = 'ROW' AND TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
BEGIN
    INSERT INTO audit (k, what, o, w)
    VALUES (coalesce((o ->> 'k')::int, (w ->> 'k')::int, 0),
            concat_ws(' ', TG_NAME, TG_WHEN, TG_OP, TG_TABLE_NAME, TG_ARGV, pg_trigger_depth(), current_user, current_setting('my.name', true)),
            o - 'volatile', w - 'volatile');
    RETURN NULL;
END $$;

CREATE FUNCTION note_tables() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit (k, what, w) SELECT n.k, TG_NAME, to_jsonb(n.*) - 'volatile' FROM n;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO audit (k, what, o) SELECT o.k, TG_NAME, to_jsonb(o.*) - 'volatile' FROM o;
    ELSE
        INSERT INTO audit (k, what, o, w)
        SELECT x.k, TG_NAME, to_jsonb(o.*) - 'volatile', to_jsonb(n.*) - 'volatile'
        FROM (SELECT k FROM o UNION SELECT k FROM n) x LEFT JOIN o USING (k) LEFT JOIN n USING (k);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM t WHERE k = OLD.k;
        RETURN OLD;
    END IF;
    INSERT INTO t (k, v) VALUES (NEW.k, NEW.v || '!') ON CONFLICT (k) DO UPDATE SET v = excluded.v;
    RETURN NEW;
END $$;
