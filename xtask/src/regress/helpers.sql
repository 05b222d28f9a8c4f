-- What the runner of PostgreSQL's tests needs on the coordinator.
CREATE SCHEMA regress_runner;
GRANT USAGE ON SCHEMA regress_runner TO PUBLIC;

-- Columns that hold NULLs when the file runs on local tables: they cannot be distribution columns.
CREATE TABLE regress_runner.nullable (relation name, attribute name);
-- Tables that stay local, and why.
CREATE TABLE regress_runner.left_local (relation oid PRIMARY KEY, name name, reason text);

CREATE FUNCTION regress_runner.tables() RETURNS TABLE (relation oid, name name)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT c.oid, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^(pg_|pgs_|information_schema|regress_runner)'
      AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
    ORDER BY c.oid
$$;

-- The columns of the tables named in a text that hold NULLs.
CREATE FUNCTION regress_runner.nulls_in(text text) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET client_min_messages = error AS $$
DECLARE
    t record;
    found bool;
BEGIN
    FOR t IN SELECT r.relation, r.name, a.attname FROM regress_runner.tables() AS r
             JOIN pg_attribute AS a ON a.attrelid = r.relation
             WHERE a.attnum > 0 AND NOT a.attisdropped AND NOT a.attnotnull
               AND text ~* ('\m' || r.name || '\M') AND r.name ~ '^\w+$'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE (%I) IS NULL)', t.relation::regclass, t.attname) INTO found;
        IF found THEN RETURN NEXT t.name || ' ' || t.attname; END IF;
    END LOOP;
END
$$;

-- Distributes every table that can be.
CREATE PROCEDURE regress_runner.distribute()
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET client_min_messages = error AS $$
DECLARE
    t record;
    col name;
    reason text;
    done bool;
BEGIN
    FOR t IN SELECT r.relation, r.name FROM regress_runner.tables() AS r
             WHERE NOT EXISTS (SELECT FROM pgs_distribution_metadata.partition AS p WHERE p.relation_id = r.relation)
               AND NOT EXISTS (SELECT FROM regress_runner.left_local AS l WHERE l.relation = r.relation)
    LOOP
        done := false;
        reason := 'no column can be a distribution column';
        FOR col IN SELECT a.attname FROM pg_attribute AS a
                   WHERE a.attrelid = t.relation AND a.attnum > 0 AND NOT a.attisdropped
                     AND (a.attnotnull OR NOT EXISTS (SELECT FROM regress_runner.nullable AS x
                                                       WHERE x.relation = t.name AND x.attribute = a.attname))
                   ORDER BY NOT a.attnotnull, a.attnum
        LOOP
            BEGIN
                PERFORM public.create_distributed_table(t.relation::regclass, col::text, 4, 1);
                done := true;
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                reason := sqlstate || ': ' || sqlerrm;
            END;
        END LOOP;
        IF NOT done THEN
            BEGIN
                PERFORM public.create_reference_table(t.relation::regclass);
            EXCEPTION WHEN OTHERS THEN
                INSERT INTO regress_runner.left_local VALUES (t.relation, t.name, reason) ON CONFLICT DO NOTHING;
            END;
        END IF;
    END LOOP;
END
$$;

-- Makes the tables that are named in a text, or whose indexes are, local again.
CREATE PROCEDURE regress_runner.localize(text text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET client_min_messages = error AS $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT DISTINCT p.relation_id FROM pgs_distribution_metadata.partition AS p
             JOIN pg_class AS c ON c.oid = p.relation_id LEFT JOIN pg_index AS i ON i.indrelid = c.oid
             LEFT JOIN pg_class AS ic ON ic.oid = i.indexrelid
             WHERE (c.relname ~ '^\w+$' AND text ~* ('\m' || c.relname || '\M'))
                OR (ic.relname ~ '^\w+$' AND text ~* ('\m' || ic.relname || '\M'))
    LOOP
        BEGIN
            PERFORM public.undistribute_table(t.relation_id::regclass);
        EXCEPTION WHEN OTHERS THEN
        END;
    END LOOP;
    DELETE FROM regress_runner.left_local AS l WHERE text ~* ('\m' || regexp_replace(l.name, '\W', '.', 'g') || '\M');
END
$$;
