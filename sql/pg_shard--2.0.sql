/* pg_shard 2.0: what CREATE EXTENSION creates. */

\echo Use "CREATE EXTENSION pg_shard" to load this file. \quit

/* Metadata, exactly as pg_shard 1.2 laid them out. */

CREATE SCHEMA pgs_distribution_metadata;

CREATE SEQUENCE pgs_distribution_metadata.shard_id_sequence MINVALUE 10000 NO CYCLE;

CREATE TABLE pgs_distribution_metadata.shard (
    id bigint PRIMARY KEY DEFAULT nextval('pgs_distribution_metadata.shard_id_sequence'),
    relation_id oid NOT NULL,
    storage "char" NOT NULL,
    min_value text NOT NULL,
    max_value text NOT NULL
);
CREATE INDEX shard_relation_index ON pgs_distribution_metadata.shard (relation_id);
ALTER SEQUENCE pgs_distribution_metadata.shard_id_sequence OWNED BY pgs_distribution_metadata.shard.id;

CREATE SEQUENCE pgs_distribution_metadata.shard_placement_id_sequence NO CYCLE;

CREATE TABLE pgs_distribution_metadata.shard_placement (
    id bigint PRIMARY KEY DEFAULT nextval('pgs_distribution_metadata.shard_placement_id_sequence'),
    shard_id bigint NOT NULL REFERENCES pgs_distribution_metadata.shard (id),
    shard_state integer NOT NULL,
    node_name text NOT NULL,
    node_port integer NOT NULL
);
CREATE INDEX shard_placement_node_name_node_port_index
    ON pgs_distribution_metadata.shard_placement (node_name, node_port);
CREATE INDEX shard_placement_shard_index ON pgs_distribution_metadata.shard_placement (shard_id);
ALTER SEQUENCE pgs_distribution_metadata.shard_placement_id_sequence
    OWNED BY pgs_distribution_metadata.shard_placement.id;

CREATE TABLE pgs_distribution_metadata.partition (
    relation_id oid UNIQUE NOT NULL,
    partition_method "char" NOT NULL,
    key text NOT NULL
);

SELECT pg_catalog.pg_extension_config_dump('pgs_distribution_metadata.partition', '');
SELECT pg_catalog.pg_extension_config_dump('pgs_distribution_metadata.shard', '');
SELECT pg_catalog.pg_extension_config_dump('pgs_distribution_metadata.shard_placement', '');
SELECT pg_catalog.pg_extension_config_dump('pgs_distribution_metadata.shard_id_sequence', '');
SELECT pg_catalog.pg_extension_config_dump('pgs_distribution_metadata.shard_placement_id_sequence', '');

/* Whatever changes the metadata, hand editing included, is told to every session at commit. */

CREATE SCHEMA pgs_catalog;

CREATE FUNCTION pgs_catalog.metadata_changed()
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'metadata_changed_wrapper';
COMMENT ON FUNCTION pgs_catalog.metadata_changed()
    IS 'makes all sessions read the metadata of distributed tables anew';

CREATE FUNCTION pgs_catalog.on_metadata_change()
    RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pgs_catalog.metadata_changed();
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION pgs_catalog.on_metadata_change() IS 'trigger of the metadata tables';

CREATE TRIGGER partition_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON pgs_distribution_metadata.partition
    FOR EACH STATEMENT EXECUTE FUNCTION pgs_catalog.on_metadata_change();
CREATE TRIGGER shard_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON pgs_distribution_metadata.shard
    FOR EACH STATEMENT EXECUTE FUNCTION pgs_catalog.on_metadata_change();
CREATE TRIGGER shard_placement_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON pgs_distribution_metadata.shard_placement
    FOR EACH STATEMENT EXECUTE FUNCTION pgs_catalog.on_metadata_change();

/* By this secret the node knows that a coordinator instructs it: what a superuser can read here he can put into an instruction.
   Row security, without a policy, keeps out whoever has got the right to read all tables. No dump has it. */

CREATE TABLE pgs_catalog.secret (secret text NOT NULL);
REVOKE ALL ON pgs_catalog.secret FROM PUBLIC;
ALTER TABLE pgs_catalog.secret ENABLE ROW LEVEL SECURITY;
INSERT INTO pgs_catalog.secret
    SELECT encode(sha256(convert_to(string_agg(gen_random_uuid()::text, ''), 'UTF8')), 'hex') FROM generate_series(1, 4);

/* What a distributed table carries itself: an access method, which is the heap's and keeps out servers that have not loaded the
   library when they started, and a security label, which says under which OID the metadata know it. A row of the metadata is a
   table's own only if the label agrees. pg_dump and what it writes set an empty search_path: OIDs of a dump mark nothing. */

CREATE FUNCTION pgs_catalog.table_handler(internal)
    RETURNS table_am_handler LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pg_shard_table_handler';
COMMENT ON FUNCTION pgs_catalog.table_handler(internal) IS 'the access method of distributed tables';
CREATE ACCESS METHOD pg_shard TYPE TABLE HANDLER pgs_catalog.table_handler;
COMMENT ON ACCESS METHOD pg_shard IS 'distributed tables: empty heaps that only a server with pg_shard preloaded opens';

CREATE FUNCTION pgs_catalog.is_preloaded()
    RETURNS boolean LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'is_preloaded_wrapper';
COMMENT ON FUNCTION pgs_catalog.is_preloaded() IS 'this server has loaded pg_shard when it started';

CREATE FUNCTION pgs_catalog.committed_at(transaction bigint)
    RETURNS text LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'committed_at_wrapper';
COMMENT ON FUNCTION pgs_catalog.committed_at(bigint)
    IS 'when a transaction of this server has committed that is visible: at a time, or by a time';

CREATE FUNCTION pgs_catalog.clock()
    RETURNS bigint LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'clock_wrapper';
COMMENT ON FUNCTION pgs_catalog.clock() IS 'this server''s clock, by which nodes agree on commit times';
CREATE FUNCTION pgs_catalog.commit_at(commit_time bigint)
    RETURNS bigint LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'commit_at_wrapper';
COMMENT ON FUNCTION pgs_catalog.commit_at(bigint)
    IS 'has the current transaction commit not before a time, and tells the clock';
CREATE FUNCTION pgs_catalog.commit_prepared_at(commit_time bigint, is_exact boolean DEFAULT true)
    RETURNS void LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'commit_prepared_at_wrapper';
COMMENT ON FUNCTION pgs_catalog.commit_prepared_at(bigint, boolean)
    IS 'tells when, or by when, the transaction of the session''s next COMMIT PREPARED has committed on other nodes';
CREATE FUNCTION pgs_catalog.commit_time()
    RETURNS bigint LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'commit_time_wrapper';
COMMENT ON FUNCTION pgs_catalog.commit_time()
    IS 'when the session''s last transaction with changes has committed';

CREATE FUNCTION pgs_catalog.mark_distributed(table_oid oid, also_restored boolean)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'mark_distributed_wrapper';
COMMENT ON FUNCTION pgs_catalog.mark_distributed(oid, boolean)
    IS 'marks a table as one that the metadata know by its OID';
CREATE FUNCTION pgs_catalog.unmark_distributed(table_oid oid)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'unmark_distributed_wrapper';
COMMENT ON FUNCTION pgs_catalog.unmark_distributed(oid) IS 'takes such a mark away';
REVOKE EXECUTE ON FUNCTION pgs_catalog.mark_distributed(oid, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pgs_catalog.unmark_distributed(oid) FROM PUBLIC;

CREATE FUNCTION pgs_catalog.on_partition_row()
    RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.relation_id <> NEW.relation_id THEN
        PERFORM pgs_catalog.unmark_distributed(OLD.relation_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pgs_catalog.mark_distributed(NEW.relation_id, TG_OP = 'UPDATE');
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION pgs_catalog.on_partition_row() IS 'trigger of the metadata table partition';
REVOKE EXECUTE ON FUNCTION pgs_catalog.on_partition_row() FROM PUBLIC;
CREATE TRIGGER partition_row_written AFTER INSERT OR UPDATE OF relation_id ON pgs_distribution_metadata.partition
    FOR EACH ROW WHEN (pg_catalog.current_setting('search_path') NOT IN ('', '""'))
    EXECUTE FUNCTION pgs_catalog.on_partition_row();
CREATE TRIGGER partition_row_deleted AFTER DELETE ON pgs_distribution_metadata.partition
    FOR EACH ROW EXECUTE FUNCTION pgs_catalog.on_partition_row();

CREATE FUNCTION pgs_catalog.is_hashed_by_oid(type_id oid) RETURNS boolean
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE part(id) AS (
        SELECT $1
        UNION
        SELECT inner_one
          FROM part
          JOIN pg_type AS t ON t.oid = part.id
          LEFT JOIN pg_range AS r ON t.oid IN (r.rngtypid, r.rngmultitypid)
         CROSS JOIN LATERAL unnest(ARRAY[t.typbasetype, t.typelem, r.rngsubtype]) AS i(inner_one)
         WHERE inner_one <> 0)
    SELECT coalesce(bool_or(t.typtype IN ('e', 'c')
                            OR t.typname LIKE 'reg%' AND t.typnamespace = 'pg_catalog'::regnamespace), false)
      FROM part JOIN pg_type AS t ON t.oid = part.id
$$;
COMMENT ON FUNCTION pgs_catalog.is_hashed_by_oid(oid)
    IS 'values of the type may have other hashes on other servers: enums, objects of the catalogs, rows that may hold either';

CREATE FUNCTION pgs_catalog.after_restore(new_shards boolean DEFAULT NULL)
    RETURNS SETOF regclass LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dumped oid[];
    restored oid[];
    filled oid[];
    problem text;
    rows pgs_distribution_metadata.partition[];
    entry pgs_distribution_metadata.partition;
    place integer;
    moved record;
BEGIN
    LOCK TABLE pgs_distribution_metadata.partition, pgs_distribution_metadata.shard IN SHARE ROW EXCLUSIVE MODE;
    WITH labelled AS (
        SELECT objoid AS own, substring(label FROM '^distributed table ([0-9]+)$')::oid AS told
          FROM pg_seclabel
         WHERE provider = 'pg_shard' AND classoid = 'pg_class'::regclass AND objsubid = 0)
    SELECT array_agg(told ORDER BY own), array_agg(own ORDER BY own),
           array_agg(own ORDER BY own) FILTER (WHERE pg_relation_size(own) > 0) INTO dumped, restored, filled
      FROM labelled AS l
     WHERE told <> own
       AND EXISTS (SELECT 1 FROM pgs_distribution_metadata.partition AS p WHERE p.relation_id = told)
       AND NOT EXISTS (SELECT 1 FROM labelled AS other WHERE other.own = l.told AND other.told = other.own);
    IF dumped IS NULL THEN
        RETURN;
    END IF;
    SELECT string_agg(tables, '; ') INTO problem
      FROM (SELECT string_agg(own::regclass::text, ', ') AS tables
              FROM unnest(dumped, restored) AS m(told, own) GROUP BY told HAVING count(*) > 1) AS several;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'several tables were restored from one distributed table'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'These are the same table: ' || problem || '.',
                  HINT = 'Drop all but one of them, or make them local tables with undistribute_table.';
    END IF;
    SELECT string_agg(own::regclass::text, ', ') INTO problem
      FROM unnest(restored) AS own
     WHERE own <> ALL (dumped)
       AND (EXISTS (SELECT 1 FROM pgs_distribution_metadata.partition AS p WHERE p.relation_id = own)
            OR EXISTS (SELECT 1 FROM pgs_distribution_metadata.shard AS s WHERE s.relation_id = own));
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'metadata of tables that are gone stand under the OIDs of restored tables'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'The tables are: ' || problem || '.',
                  HINT = 'Delete the rows of pgs_distribution_metadata with their OIDs in relation_id.';
    END IF;
    IF new_shards IS NULL AND filled IS NOT NULL THEN
        RAISE EXCEPTION 'restored tables hold rows'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The tables are: ' || array_to_string(filled::regclass[], ', ') || '.',
                  HINT = 'after_restore(true) creates new shards for them. after_restore(false) drops these rows and uses the shards that are on the nodes.';
    END IF;
    IF new_shards THEN
        RETURN QUERY SELECT pgs_catalog.distribute_restored(dumped, restored);
        RETURN;
    END IF;
    PERFORM pgs_catalog.drop_restored_rows(filled);
    /* All at once: an OID may be one table's in the dump and another one's here. */
    UPDATE pgs_distribution_metadata.shard AS s SET relation_id = m.own
      FROM unnest(dumped, restored) AS m(told, own) WHERE s.relation_id = m.told;
    SELECT array_agg(p) INTO rows FROM pgs_distribution_metadata.partition AS p WHERE p.relation_id = ANY (dumped);
    DELETE FROM pgs_distribution_metadata.partition WHERE relation_id = ANY (dumped);
    FOREACH entry IN ARRAY rows LOOP
        place := array_position(dumped, entry.relation_id);
        INSERT INTO pgs_distribution_metadata.partition (relation_id, partition_method, key)
            VALUES (restored[place], entry.partition_method, entry.key);
        PERFORM pgs_catalog.mark_distributed(restored[place], true);
        RETURN NEXT restored[place]::regclass;
    END LOOP;
    FOR moved IN
        SELECT p.relation_id::regclass AS own, min(s.id) AS shard, count(*)::integer AS shards
          FROM pgs_distribution_metadata.partition AS p
          JOIN pgs_distribution_metadata.shard AS s ON s.relation_id = p.relation_id
          JOIN pg_attribute AS a ON a.attrelid = p.relation_id AND a.attname = p.key
         WHERE p.relation_id = ANY (restored) AND pgs_catalog.is_hashed_by_oid(a.atttypid)
         GROUP BY p.relation_id HAVING count(*) > 1 ORDER BY 2
    LOOP
        /* Not if it went with a table that it lies beside. */
        IF EXISTS (SELECT 1 FROM pgs_distribution_metadata.shard AS s WHERE s.id = moved.shard) THEN
            RAISE NOTICE 'rows of table "%" are distributed anew', moved.own
                USING DETAIL = 'Values of its distribution column have other hashes in this database.';
            PERFORM @extschema@.alter_distributed_table(moved.own, shard_count => moved.shards);
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION pgs_catalog.after_restore(boolean)
    IS 'gives distributed tables that were restored from a dump the shards that their metadata name, or new ones with the restored rows; tells which';
REVOKE EXECUTE ON FUNCTION pgs_catalog.after_restore(boolean) FROM PUBLIC;

CREATE FUNCTION pgs_catalog.drop_restored_rows(restored oid[])
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
DECLARE
    functions text := (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'pg_shard');
    own oid;
BEGIN
    FOREACH own IN ARRAY coalesce(restored, '{}') LOOP
        EXECUTE format('SELECT %s.undistribute_table($1)', functions) USING own::regclass;
        IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = own AND NOT tgisinternal AND tgenabled IN ('A', 'R'))
           OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = own AND ev_enabled IN ('A', 'R')) THEN
            /* They would run with the caller's rights. */
            RAISE EXCEPTION 'cannot drop the restored rows of table "%": it has triggers or rules that fire always', own::regclass
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Have them fire as ORIGIN does, and change them back behind it.';
        END IF;
        EXECUTE format('DELETE FROM ONLY %s', own::regclass);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION pgs_catalog.drop_restored_rows(oid[]) IS 'a part of after_restore';
REVOKE EXECUTE ON FUNCTION pgs_catalog.drop_restored_rows(oid[]) FROM PUBLIC;

CREATE FUNCTION pgs_catalog.hash_family(table_name regclass, column_name text)
    RETURNS text LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(' ', coalesce(f.opcfamily::text, t.typname), a.attcollation)
      FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
      LEFT JOIN pg_opclass AS f ON f.opcmethod = 405 AND f.opcdefault
           AND f.opcintype = CASE t.oid WHEN 'varchar'::regtype THEN 'text'::regtype::oid ELSE t.oid END
     WHERE a.attrelid = $1 AND a.attname = $2
$$;
COMMENT ON FUNCTION pgs_catalog.hash_family(regclass, text)
    IS 'equal for columns whose equal values are in shards of one place, if the tables are cut alike';

CREATE FUNCTION pgs_catalog.distribute_restored(dumped oid[], restored oid[])
    RETURNS SETOF regclass LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    functions text := (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'pg_shard');
    wanted record;
    beside regclass[] := '{}';
    groups text[] := '{}';
    place integer;
BEGIN
    CREATE TEMP TABLE pgs_restored ON COMMIT DROP AS
        WITH placed AS (
            SELECT s.relation_id, s.id, s.min_value::integer AS low, count(*) AS copies,
                   string_agg(p.node_name || ':' || p.node_port, ',' ORDER BY p.node_name, p.node_port) AS nodes
              FROM pgs_distribution_metadata.shard AS s JOIN pgs_distribution_metadata.shard_placement AS p ON p.shard_id = s.id
             WHERE s.relation_id = ANY (dumped) GROUP BY 1, 2, 3)
        SELECT m.own, q.key, count(placed.id)::integer AS shards, coalesce(max(copies), 1)::integer AS copies,
               concat_ws(' ', string_agg(low || '@' || nodes, ' ' ORDER BY low), pgs_catalog.hash_family(m.own, q.key)) AS layout,
               count(placed.id) = 1 AND c.relkind = 'r' AND max(copies) = (
                   SELECT count(DISTINCT (node_name, node_port)) FROM pgs_distribution_metadata.shard_placement) AS is_reference
          FROM unnest(dumped, restored) AS m(told, own)
          JOIN pg_class AS c ON c.oid = m.own AND NOT c.relispartition
          JOIN pgs_distribution_metadata.partition AS q ON q.relation_id = m.told
          LEFT JOIN placed ON placed.relation_id = m.told
         GROUP BY m.own, q.key, c.relkind;
    DELETE FROM pgs_distribution_metadata.shard_placement AS p USING pgs_distribution_metadata.shard AS s
     WHERE s.id = p.shard_id AND s.relation_id = ANY (dumped);
    DELETE FROM pgs_distribution_metadata.shard WHERE relation_id = ANY (dumped);
    DELETE FROM pgs_distribution_metadata.partition WHERE relation_id = ANY (dumped);
    /* A table comes after those to which it refers. */
    LOOP
        SELECT r.* INTO wanted FROM pg_temp.pgs_restored AS r
         ORDER BY (SELECT count(*) FROM pg_constraint AS k JOIN pg_temp.pgs_restored AS other ON other.own = k.confrelid
                    WHERE k.conrelid = r.own AND k.contype = 'f' AND k.confrelid <> r.own), NOT r.is_reference, r.own
         LIMIT 1;
        EXIT WHEN NOT FOUND;
        place := array_position(groups, wanted.layout);
        IF wanted.is_reference THEN
            EXECUTE format('SELECT %s.create_reference_table($1)', functions) USING wanted.own::regclass;
        ELSE
            EXECUTE format('SELECT %s.create_distributed_table($1, $2, $3, $4, $5)', functions)
              USING wanted.own::regclass, wanted.key, greatest(wanted.shards, 1), wanted.copies,
                    coalesce(beside[place]::text, 'none');
            groups := groups || wanted.layout;
            beside := beside || wanted.own::regclass;
        END IF;
        DELETE FROM pg_temp.pgs_restored AS r WHERE r.own = wanted.own;
        RETURN NEXT wanted.own::regclass;
    END LOOP;
    DROP TABLE pg_temp.pgs_restored;
    /* Nodes of the old cluster, which the new one has never known. */
    DELETE FROM pgs_catalog.node AS n
     WHERE NOT n.is_added
       AND NOT EXISTS (SELECT 1 FROM pgs_catalog.known_nodes() AS k WHERE (k.name, k.port) = (n.name, n.port) AND k.is_listed)
       AND NOT EXISTS (SELECT 1 FROM pgs_distribution_metadata.shard_placement AS p WHERE (p.node_name, p.node_port) = (n.name, n.port));
END;
$$;
COMMENT ON FUNCTION pgs_catalog.distribute_restored(oid[], oid[]) IS 'a part of after_restore';
REVOKE EXECUTE ON FUNCTION pgs_catalog.distribute_restored(oid[], oid[]) FROM PUBLIC;

/* Schemas, types, functions and collations that nodes may have been given, since a distributed table needed them: the catalog's OID
   and the object's. When one is dropped here, it is dropped there. */

CREATE TABLE pgs_catalog.placed_object (
    object_id oid NOT NULL,
    class_id oid NOT NULL,
    PRIMARY KEY (object_id, class_id)
);
COMMENT ON TABLE pgs_catalog.placed_object IS 'what nodes have been given for distributed tables, and lose when it is dropped here';

/* When the statistics of a table's shards were last brought to the coordinator, and after how many changes of rows. */

CREATE TABLE pgs_catalog.statistics (
    relation_id oid PRIMARY KEY,
    changes numeric NOT NULL,
    brought timestamptz NOT NULL
);

/* The row under a cursor, for UPDATE and DELETE ... WHERE CURRENT OF. Nobody can call it by name. */

CREATE FUNCTION pgs_catalog.current_of(internal, internal, internal)
    RETURNS internal LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_shard_current_of';
COMMENT ON FUNCTION pgs_catalog.current_of(internal, internal, internal)
    IS 'a column of the row that a cursor stands on';

/* On a worker: rows that it splits and keeps for others, and rows that it fetches from them. The coordinator's sessions call
   these, with the rights of whoever reads: nobody gets at rows that another role has split. */

CREATE FUNCTION pgs_catalog.split_rows_step(internal, text, VARIADIC "any")
    RETURNS internal LANGUAGE c PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_shard_split_rows_step';
CREATE FUNCTION pgs_catalog.split_rows_end(internal)
    RETURNS text LANGUAGE c PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_shard_split_rows_end';
CREATE AGGREGATE pgs_catalog.split_rows(text, VARIADIC "any") (
    SFUNC = pgs_catalog.split_rows_step,
    STYPE = internal,
    FINALFUNC = pgs_catalog.split_rows_end,
    FINALFUNC_MODIFY = READ_WRITE,
    PARALLEL = RESTRICTED
);
COMMENT ON AGGREGATE pgs_catalog.split_rows(text, VARIADIC "any")
    IS 'keeps rows for other nodes, split by the hash of a column';

CREATE FUNCTION pgs_catalog.part_of_rows(name text, part integer)
    RETURNS SETOF bytea LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'part_of_rows_wrapper';
COMMENT ON FUNCTION pgs_catalog.part_of_rows(text, integer) IS 'a part of rows that a session has split, in pieces';

CREATE FUNCTION pgs_catalog.drop_rows(names text[])
    RETURNS void LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'drop_rows_wrapper';
COMMENT ON FUNCTION pgs_catalog.drop_rows(text[]) IS 'drops rows that this session has split: all, if none are named';

CREATE FUNCTION pgs_catalog.rows_of_support(internal)
    RETURNS internal LANGUAGE c STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_shard_rows_of_support';
CREATE FUNCTION pgs_catalog.rows_of(moved text, part integer, expected double precision)
    RETURNS SETOF record LANGUAGE c STRICT PARALLEL RESTRICTED SUPPORT pgs_catalog.rows_of_support
    AS 'MODULE_PATHNAME', 'pg_shard_rows_of';
COMMENT ON FUNCTION pgs_catalog.rows_of(text, integer, double precision)
    IS 'a part of rows that nodes have split, fetched from them';

CREATE FUNCTION pgs_catalog.copy_shard_placement(instruction text)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'copy_shard_placement_wrapper';
COMMENT ON FUNCTION pgs_catalog.copy_shard_placement(text)
    IS 'does what worker_copy_shard_placement does, for a table''s owner who has a coordinator''s word';

/* On a worker: a session that is not the owner's stores rows of a table as the owner. It lends no right: whoever calls it could
   as well SET ROLE. */

CREATE FUNCTION pgs_catalog.act_as_owner(shard regclass)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'act_as_owner_wrapper';
COMMENT ON FUNCTION pgs_catalog.act_as_owner(regclass)
    IS 'makes the rest of the subtransaction act as the owner of a table, under the restrictions of maintenance';

/* On a worker: a session acts with the rights of another role, on a coordinator's word. They are commands of the client; functions are
   refused. The session's number is in the word, so that it means nothing to any other session. */

CREATE FUNCTION pgs_catalog.lending_session()
    RETURNS text LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lending_session_wrapper';
COMMENT ON FUNCTION pgs_catalog.lending_session() IS 'the number by which coordinators name this session';
CREATE FUNCTION pgs_catalog.begin_acting(instruction text)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'begin_acting_wrapper';
COMMENT ON FUNCTION pgs_catalog.begin_acting(text)
    IS 'has the session act as another role, on a coordinator''s word';
CREATE FUNCTION pgs_catalog.end_acting()
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'end_acting_wrapper';
COMMENT ON FUNCTION pgs_catalog.end_acting() IS 'ends what begin_acting has begun';

/* Aggregates of users in parts: a node is asked for their transition states. Told are the aggregate's signature, the types of its
   arguments, the digest of the coordinator's aggregate, and the schemas to look names up in; then come the arguments. */

CREATE FUNCTION pgs_catalog.aggregate_definition(signature text, input_types text)
    RETURNS text LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_shard_aggregate_definition';
COMMENT ON FUNCTION pgs_catalog.aggregate_definition(text, text)
    IS 'a digest of all that an aggregate is made of, or NULL if it cannot be computed in parts here';

CREATE FUNCTION pgs_catalog.partial_state_step(internal, cstring, cstring, cstring, cstring, VARIADIC "any")
    RETURNS internal LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'pg_shard_partial_state_step';
CREATE FUNCTION pgs_catalog.partial_state_text(internal)
    RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'pg_shard_partial_state_text';
CREATE FUNCTION pgs_catalog.partial_state_bytes(internal)
    RETURNS bytea LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'pg_shard_partial_state_bytes';

CREATE AGGREGATE pgs_catalog.partial_state(cstring, cstring, cstring, cstring, VARIADIC "any") (
    SFUNC = pgs_catalog.partial_state_step, STYPE = internal, FINALFUNC = pgs_catalog.partial_state_text);
COMMENT ON AGGREGATE pgs_catalog.partial_state(cstring, cstring, cstring, cstring, VARIADIC "any")
    IS 'the transition state of another aggregate, as text';
CREATE AGGREGATE pgs_catalog.serial_state(cstring, cstring, cstring, cstring, VARIADIC "any") (
    SFUNC = pgs_catalog.partial_state_step, STYPE = internal, FINALFUNC = pgs_catalog.partial_state_bytes);
COMMENT ON AGGREGATE pgs_catalog.serial_state(cstring, cstring, cstring, cstring, VARIADIC "any")
    IS 'the internal transition state of another aggregate, as its serial function writes it';

/* What sessions of this server have under way on the nodes. */

CREATE FUNCTION pgs_catalog.activity_of_backends(
        OUT pid integer, OUT backend_start timestamptz, OUT kind text, OUT shards_done bigint, OUT shards bigint,
        OUT nodes text[], OUT waiting_for text[], OUT rows_received bigint, OUT bytes_received bigint,
        OUT rows_sent bigint, OUT bytes_sent bigint, OUT since timestamptz)
    RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'activity_of_backends_wrapper';
COMMENT ON FUNCTION pgs_catalog.activity_of_backends()
    IS 'what backends have under way on nodes, as far as the caller may see their statements';

CREATE VIEW pgs_catalog.activity AS
    SELECT a.pid, b.datname AS database, b.usename AS "user", b.query AS statement, a.kind, a.shards_done, a.shards,
           a.nodes, a.waiting_for, a.rows_received, a.bytes_received, a.rows_sent, a.bytes_sent, a.since
      FROM pgs_catalog.activity_of_backends() AS a
      JOIN pg_catalog.pg_stat_activity AS b ON b.pid = a.pid AND b.backend_start = a.backend_start;
COMMENT ON VIEW pgs_catalog.activity IS 'statements that have something under way on nodes, and how far they are';

CREATE FUNCTION pgs_catalog.shared_sessions(
        OUT node text, OUT database oid, OUT role oid, OUT state text, OUT pid integer, OUT node_pid integer, OUT statements integer,
        OUT opened timestamptz, OUT changed timestamptz)
    RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'shared_sessions_wrapper';
COMMENT ON FUNCTION pgs_catalog.shared_sessions() IS 'sessions to nodes that all backends of this server share';

CREATE VIEW pgs_catalog.sessions AS
    SELECT s.node, d.datname AS database, r.rolname AS "user", s.state, s.pid, s.node_pid, s.statements, s.opened, s.changed
      FROM pgs_catalog.shared_sessions() AS s
      LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.database
      LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.role;
COMMENT ON VIEW pgs_catalog.sessions IS 'sessions to nodes that all backends of this server share, and who has them';

CREATE VIEW pgs_catalog.relocation AS
    SELECT pid, database, "user", statement, pg_catalog.substr(kind, 13) AS phase, nodes, waiting_for, bytes_received, bytes_sent, since
      FROM pgs_catalog.activity WHERE kind OPERATOR(pg_catalog.~~) 'relocation: %';
COMMENT ON VIEW pgs_catalog.relocation IS 'shards that are being moved, copied or split, and how far that is';

/* Transactions over nodes. The node that decides about one has a row of it here, written by the transaction itself: if it is
   visible, the transaction has committed. Who finds a prepared transaction after a crash looks for the row that its name tells. The
   coordinator that has begun the transaction removes the row when nobody asks any more. */

CREATE TABLE pgs_catalog.decision (transaction xid8 NOT NULL, nonce bigint NOT NULL, coordinator bigint NOT NULL);
REVOKE ALL ON pgs_catalog.decision FROM PUBLIC;
GRANT SELECT ON pgs_catalog.decision TO PUBLIC;
COMMENT ON TABLE pgs_catalog.decision IS 'transactions over several nodes that have committed, and for which this node has decided';

/* By this number the nodes tell each other apart: servers that were made by copying one have its system identifier too. */

CREATE TABLE pgs_catalog.identity (identity bigint NOT NULL);
REVOKE ALL ON pgs_catalog.identity FROM PUBLIC;
GRANT SELECT ON pgs_catalog.identity TO PUBLIC;
COMMENT ON TABLE pgs_catalog.identity IS 'by which number other nodes know this one';
INSERT INTO pgs_catalog.identity
    SELECT ('x' || pg_catalog.substr(pg_catalog.md5(pg_catalog.gen_random_uuid()::text), 1, 16))::bit(64)::bigint;

/* SERIALIZABLE transactions lock this table: those that use this node alone share it, those that use several nodes have it alone. It
   stays empty. Whoever may use the schema may lock it. */

CREATE TABLE pgs_catalog.serializable_gate ();
REVOKE ALL ON pgs_catalog.serializable_gate FROM PUBLIC;
GRANT DELETE ON pgs_catalog.serializable_gate TO PUBLIC;
COMMENT ON TABLE pgs_catalog.serializable_gate IS 'what SERIALIZABLE transactions lock on a node; it stays empty';

CREATE FUNCTION pgs_catalog.begin_decision(coordinator bigint)
    RETURNS text LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'begin_decision_wrapper';
COMMENT ON FUNCTION pgs_catalog.begin_decision(bigint)
    IS 'notes that the current transaction has committed, for whoever asks later';
CREATE FUNCTION pgs_catalog.has_begun_decision(transaction bigint, nonce bigint)
    RETURNS boolean LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'has_begun_decision_wrapper';
COMMENT ON FUNCTION pgs_catalog.has_begun_decision(bigint, bigint)
    IS 'the transaction of that number has noted so, committed or not';

CREATE FUNCTION pgs_catalog.in_doubt_transactions(
        OUT node_name text, OUT node_port integer, OUT gid text, OUT prepared text, OUT decision text)
    RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'in_doubt_transactions_wrapper';
REVOKE EXECUTE ON FUNCTION pgs_catalog.in_doubt_transactions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgs_catalog.in_doubt_transactions() TO pg_monitor;
COMMENT ON FUNCTION pgs_catalog.in_doubt_transactions()
    IS 'transactions that are prepared on nodes, and what the nodes that decide say of them';

CREATE VIEW pgs_catalog.in_doubt AS
    SELECT node_name, node_port, gid, prepared::pg_catalog.timestamptz AS prepared,
           pg_catalog.clock_timestamp() - prepared::pg_catalog.timestamptz AS age, decision,
           CASE decision WHEN 'commit' THEN 'COMMIT' ELSE 'ROLLBACK' END || pg_catalog.format(' PREPARED %L', gid) AS command
      FROM pgs_catalog.in_doubt_transactions();
REVOKE ALL ON pgs_catalog.in_doubt FROM PUBLIC;
GRANT SELECT ON pgs_catalog.in_doubt TO pg_monitor;
COMMENT ON VIEW pgs_catalog.in_doubt
    IS 'transactions over nodes that are prepared somewhere, and the command that ends each on its node';

/* The nodes. Those of pg_worker_list.conf and of the placements come here by themselves; add_node adds others. Health is what the watcher has
   seen last. Whoever may write here sends this server's credentials to any host. */

CREATE TABLE pgs_catalog.node (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    port integer NOT NULL,
    host text,
    host_port integer,
    rack text,
    is_added boolean NOT NULL DEFAULT false,
    is_draining boolean NOT NULL DEFAULT false,
    health text NOT NULL DEFAULT 'up' CHECK (health IN ('up', 'suspected', 'down')),
    state text NOT NULL GENERATED ALWAYS AS (CASE WHEN is_draining THEN 'draining' ELSE health END) STORED,
    since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_error text,
    UNIQUE (name, port)
);
REVOKE ALL ON pgs_catalog.node FROM PUBLIC;
GRANT SELECT ON pgs_catalog.node TO pg_monitor;
COMMENT ON TABLE pgs_catalog.node IS 'the nodes of this coordinator';
SELECT pg_catalog.pg_extension_config_dump('pgs_catalog.node', '');
SELECT pg_catalog.pg_extension_config_dump('pgs_catalog.node_id_seq', '');
CREATE TRIGGER node_changed AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF name, port, host, host_port, is_added, is_draining
    ON pgs_catalog.node
    FOR EACH STATEMENT EXECUTE FUNCTION pgs_catalog.on_metadata_change();

CREATE TABLE pgs_catalog.orphaned_shard (
    shard_id bigint NOT NULL,
    node_name text NOT NULL,
    node_port integer NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (shard_id, node_name, node_port)
);
REVOKE ALL ON pgs_catalog.orphaned_shard FROM PUBLIC;
GRANT SELECT ON pgs_catalog.orphaned_shard TO pg_monitor;
COMMENT ON TABLE pgs_catalog.orphaned_shard
    IS 'shards that a lost node may still have though it has no placement of them: dropped when it is back';
/* A dump leaves it out: what is to be dropped may have become a placement again when the dump is restored. */

CREATE FUNCTION pgs_catalog.known_nodes(
        OUT name text, OUT port integer, OUT is_listed boolean, OUT takes_shards boolean)
    RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'known_nodes_wrapper';
REVOKE EXECUTE ON FUNCTION pgs_catalog.known_nodes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgs_catalog.known_nodes() TO pg_monitor;
COMMENT ON FUNCTION pgs_catalog.known_nodes()
    IS 'the nodes of the worker list, of the placements and of the table node; whether they get placements of new shards';

CREATE FUNCTION pgs_catalog.placements_of_nodes(
        OUT node_name text, OUT node_port integer, OUT placements bigint, OUT inactive bigint)
    RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT node_name, node_port, count(*), count(*) FILTER (WHERE shard_state <> 1)
      FROM pgs_distribution_metadata.shard_placement GROUP BY 1, 2
$$;
REVOKE EXECUTE ON FUNCTION pgs_catalog.placements_of_nodes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgs_catalog.placements_of_nodes() TO pg_monitor;
COMMENT ON FUNCTION pgs_catalog.placements_of_nodes() IS 'how many placements each node holds, and how many of them are inactive';

CREATE VIEW pgs_catalog.nodes AS
    SELECT n.id, k.name, k.port, coalesce(n.host, k.name) AS host, coalesce(n.host_port, k.port) AS host_port, n.rack,
           coalesce(n.state, 'up') AS state, coalesce(n.health, 'up') AS health, n.since, n.last_error, k.is_listed, k.takes_shards,
           coalesce(p.placements, 0) AS placements, coalesce(p.inactive, 0) AS inactive
      FROM pgs_catalog.known_nodes() AS k
      LEFT JOIN pgs_catalog.node AS n ON n.name = k.name AND n.port = k.port
      LEFT JOIN pgs_catalog.placements_of_nodes() AS p ON p.node_name = k.name AND p.node_port = k.port;
REVOKE ALL ON pgs_catalog.nodes FROM PUBLIC;
GRANT SELECT ON pgs_catalog.nodes TO pg_monitor;
COMMENT ON VIEW pgs_catalog.nodes IS 'the nodes of this coordinator, their state, and how many placements they hold';

CREATE FUNCTION pgs_catalog.add_node(
        name text, port integer DEFAULT 5432, rack text DEFAULT NULL, host text DEFAULT NULL, host_port integer DEFAULT NULL)
    RETURNS integer LANGUAGE c AS 'MODULE_PATHNAME', 'add_node_wrapper';
COMMENT ON FUNCTION pgs_catalog.add_node(text, integer, text, text, integer)
    IS 'adds a node, which gets all reference tables at once and placements of new shards from now on';
CREATE FUNCTION pgs_catalog.remove_node(name text, port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'remove_node_wrapper';
COMMENT ON FUNCTION pgs_catalog.remove_node(text, integer)
    IS 'forgets a node and its placements, unless one of them is the last healthy one of its shard';
CREATE FUNCTION pgs_catalog.set_node_address(name text, port integer, host text, host_port integer DEFAULT NULL)
    RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'set_node_address_wrapper';
COMMENT ON FUNCTION pgs_catalog.set_node_address(text, integer, text, integer)
    IS 'says under which address a node is reached; NULL for the one by which it is known';
CREATE FUNCTION pgs_catalog.set_node_rack(name text, port integer, rack text)
    RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'set_node_rack_wrapper';
COMMENT ON FUNCTION pgs_catalog.set_node_rack(text, integer, text)
    IS 'says in which rack a node stands: placements of a shard go to different racks where there are some';

CREATE FUNCTION pgs_catalog.check_placements(
        table_name regclass, repair boolean DEFAULT false, OUT shard_id bigint, OUT node_name text, OUT node_port integer,
        OUT rows_missing bigint, OUT rows_surplus bigint)
    RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'check_placements_wrapper';
COMMENT ON FUNCTION pgs_catalog.check_placements(regclass, boolean)
    IS 'placements that differ from the first healthy one of their shard, and by how many rows; repairs them if asked';

/* Shards change their place while clients go on. The shards beside one in other tables go along. */

CREATE FUNCTION pgs_catalog.move_shard(
        shard_id bigint, source_name text, source_port integer, target_name text, target_port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'move_shard_wrapper';
COMMENT ON FUNCTION pgs_catalog.move_shard(bigint, text, integer, text, integer)
    IS 'moves a placement of a shard, and of those beside it, to another node';

CREATE FUNCTION pgs_catalog.copy_shard(
        shard_id bigint, source_name text, source_port integer, target_name text, target_port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'copy_shard_wrapper';
COMMENT ON FUNCTION pgs_catalog.copy_shard(bigint, text, integer, text, integer)
    IS 'gives a shard, and those beside it, one more placement';

CREATE FUNCTION pgs_catalog.split_shard(shard_id bigint, split_points integer[])
    RETURNS bigint[] LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'split_shard_wrapper';
COMMENT ON FUNCTION pgs_catalog.split_shard(bigint, integer[])
    IS 'splits a shard, and those beside it, behind each of these hashes; returns the numbers of its parts';

CREATE FUNCTION pgs_catalog.isolate_key(table_name regclass, key text)
    RETURNS bigint LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'isolate_key_wrapper';
COMMENT ON FUNCTION pgs_catalog.isolate_key(regclass, text)
    IS 'gives a value of the distribution column a shard of its own, and returns its number';

CREATE FUNCTION pgs_catalog.replace_placement(
        shard_id bigint, source_name text, source_port integer, lost_name text, lost_port integer, target_name text, target_port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'replace_placement_wrapper';
COMMENT ON FUNCTION pgs_catalog.replace_placement(bigint, text, integer, text, integer, text, integer)
    IS 'gives a shard, and those beside it, a placement in place of one that is lost or has missed writes';

CREATE FUNCTION pgs_catalog.drop_placement(shard_id bigint, node_name text, node_port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'drop_placement_wrapper';
COMMENT ON FUNCTION pgs_catalog.drop_placement(bigint, text, integer)
    IS 'removes a placement of a shard, and of those beside it, from a node';

/* Plans for the moves that give each node its share, or take everything away from a node, and procedures that carry them out: each step commits.
   They have no search_path of their own, since those that have cannot commit, so everything in them is qualified. */

CREATE FUNCTION pgs_catalog.set_node_draining(name text, port integer, is_draining boolean)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'set_node_draining_wrapper';
COMMENT ON FUNCTION pgs_catalog.set_node_draining(text, integer, boolean)
    IS 'says whether a node gives its placements away and gets no new ones';

CREATE FUNCTION pgs_catalog.plan_moves(
        name text, port integer, to_name text, to_port integer, by text,
        OUT action text, OUT shard_id bigint, OUT table_name text, OUT source_name text,
        OUT source_port integer, OUT target_name text, OUT target_port integer, OUT bytes bigint, OUT rows bigint)
    RETURNS SETOF record LANGUAGE c AS 'MODULE_PATHNAME', 'plan_moves_wrapper';
COMMENT ON FUNCTION pgs_catalog.plan_moves(text, integer, text, integer, text)
    IS 'what plan_rebalance and plan_leave return';

CREATE FUNCTION pgs_catalog.plan_rebalance(
        by text DEFAULT 'bytes',
        OUT action text, OUT shard_id bigint, OUT table_name text, OUT source_name text,
        OUT source_port integer, OUT target_name text, OUT target_port integer, OUT bytes bigint, OUT rows bigint)
    RETURNS SETOF record LANGUAGE sql AS 'SELECT * FROM pgs_catalog.plan_moves(NULL, NULL, NULL, NULL, $1)';
COMMENT ON FUNCTION pgs_catalog.plan_rebalance(text)
    IS 'the moves after which all nodes hold equal shares by bytes, rows or shards, and those that are drained nothing';

CREATE FUNCTION pgs_catalog.plan_leave(
        name text, port integer, to_name text DEFAULT NULL, to_port integer DEFAULT NULL, by text DEFAULT 'bytes',
        OUT action text, OUT shard_id bigint, OUT table_name text, OUT source_name text,
        OUT source_port integer, OUT target_name text, OUT target_port integer, OUT bytes bigint, OUT rows bigint)
    RETURNS SETOF record LANGUAGE sql AS 'SELECT * FROM pgs_catalog.plan_moves(coalesce($1, ''''), $2, $3, $4, $5)';
COMMENT ON FUNCTION pgs_catalog.plan_leave(text, integer, text, integer, text)
    IS 'the steps after which a node holds nothing, with all of it on another one if that is given';

CREATE PROCEDURE pgs_catalog.rebalance(by text DEFAULT 'bytes') LANGUAGE plpgsql AS $$
DECLARE
    step record;
BEGIN
    FOR step IN SELECT * FROM pgs_catalog.plan_rebalance(by) LOOP
        PERFORM pgs_catalog.move_shard(
            step.shard_id, step.source_name, step.source_port, step.target_name, step.target_port);
        COMMIT;
    END LOOP;
END;
$$;
COMMENT ON PROCEDURE pgs_catalog.rebalance(text) IS 'carries out what plan_rebalance plans';

CREATE PROCEDURE pgs_catalog.carry_away(name text, port integer, to_name text, to_port integer, by text)
    LANGUAGE plpgsql AS $$
DECLARE
    step record;
BEGIN
    PERFORM pgs_catalog.set_node_draining(name, port, true);
    COMMIT;
    FOR step IN SELECT * FROM pgs_catalog.plan_leave(name, port, to_name, to_port, by) LOOP
        IF step.action OPERATOR(pg_catalog.=) 'move' THEN
            PERFORM pgs_catalog.move_shard(
                step.shard_id, step.source_name, step.source_port, step.target_name, step.target_port);
        ELSIF step.action OPERATOR(pg_catalog.=) 'copy' THEN
            PERFORM pgs_catalog.replace_placement(
                step.shard_id, step.source_name, step.source_port, name, port, step.target_name, step.target_port);
        ELSE
            PERFORM pgs_catalog.drop_placement(step.shard_id, name, port);
        END IF;
        COMMIT;
    END LOOP;
END;
$$;
COMMENT ON PROCEDURE pgs_catalog.carry_away(text, integer, text, integer, text)
    IS 'what drain_node and replace_node have in common';

CREATE PROCEDURE pgs_catalog.drain_node(name text, port integer, by text DEFAULT 'bytes')
    LANGUAGE plpgsql AS $$
BEGIN
    CALL pgs_catalog.carry_away(name, port, NULL, NULL, by);
END;
$$;
COMMENT ON PROCEDURE pgs_catalog.drain_node(text, integer, text)
    IS 'moves all that a node holds to the others; what only a lost node holds stays';

CREATE PROCEDURE pgs_catalog.replace_node(name text, port integer, new_name text, new_port integer)
    LANGUAGE plpgsql AS $$
BEGIN
    CALL pgs_catalog.carry_away(name, port, new_name, new_port, 'bytes');
END;
$$;
COMMENT ON PROCEDURE pgs_catalog.replace_node(text, integer, text, integer)
    IS 'moves all that a node holds to another one, or makes it anew there from other placements';

/* Sizes and counters of the shards. PostgreSQL's own functions and views see the coordinator's empty tables. */

CREATE FUNCTION pgs_catalog.table_figures(table_oid oid)
    RETURNS bigint[] LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'table_figures_wrapper';
COMMENT ON FUNCTION pgs_catalog.table_figures(oid)
    IS 'sizes and counters of a distributed table''s shards, summed up; NULL if a node is away or a placement is missing';

CREATE FUNCTION pgs_catalog.table_size(table_name regclass)
    RETURNS bigint LANGUAGE sql STRICT AS 'SELECT (pgs_catalog.table_figures($1::pg_catalog.oid))[1]';
COMMENT ON FUNCTION pgs_catalog.table_size(regclass)
    IS 'bytes of one placement of each shard, with indexes and TOAST; NULL if a node is away or a placement is missing';

CREATE VIEW pgs_catalog.tables AS
    WITH holder AS (SELECT count(DISTINCT (node_name, node_port)) AS nodes FROM pgs_distribution_metadata.shard_placement),
    shard AS (
        SELECT s.relation_id, s.id, s.min_value, s.max_value, count(sp.id) AS placements,
               string_agg(sp.node_name || ':' || sp.node_port, ',' ORDER BY sp.node_name, sp.node_port) AS nodes
          FROM pgs_distribution_metadata.shard AS s
          LEFT JOIN pgs_distribution_metadata.shard_placement AS sp ON sp.shard_id = s.id
         GROUP BY s.relation_id, s.id, s.min_value, s.max_value),
    layout AS (
        SELECT relation_id, count(*) AS shards, sum(placements)::bigint AS placements, min(id) AS first_shard,
               string_agg(concat_ws(' ', min_value, max_value, nodes), '; ' ORDER BY min_value, id) AS places
          FROM shard GROUP BY relation_id)
    SELECT n.nspname AS schema, c.relname AS "table", p.key AS distribution_column,
           coalesce(l.shards, 0) AS shards, coalesce(l.placements, 0) AS placements,
           nullif(c.reltuples, -1)::bigint AS estimated_rows,
           f.figures[1] AS bytes, f.figures[1] - f.figures[2] AS index_bytes, f.figures[3] AS bytes_of_placements,
           CASE WHEN c.relispartition THEN 'partition' WHEN c.relkind = 'p' THEN 'partitioned' WHEN c.relkind = 'f' THEN 'foreign'
                WHEN l.shards = 1 AND l.placements = (SELECT nodes FROM holder) THEN 'reference' ELSE 'distributed' END AS kind,
           min(l.first_shard) OVER (PARTITION BY l.places, pgs_catalog.hash_family(c.oid, p.key)) AS colocation_group
      FROM pgs_distribution_metadata.partition AS p
      JOIN pg_catalog.pg_class AS c ON c.oid = p.relation_id
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN layout AS l ON l.relation_id = c.oid
      CROSS JOIN LATERAL (SELECT pgs_catalog.table_figures(c.oid) OFFSET 0) AS f(figures);
COMMENT ON VIEW pgs_catalog.tables IS 'distributed tables, and the sizes of their shards';

CREATE VIEW pgs_catalog.stat_tables AS
    SELECT n.nspname AS schema, c.relname AS "table", f.figures[6] AS seq_scan, f.figures[7] AS idx_scan,
           f.figures[8] AS n_tup_ins, f.figures[9] AS n_tup_upd, f.figures[10] AS n_tup_del,
           f.figures[4] AS n_live_tup, f.figures[5] AS n_dead_tup
      FROM pgs_distribution_metadata.partition AS p
      JOIN pg_catalog.pg_class AS c ON c.oid = p.relation_id
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (SELECT pgs_catalog.table_figures(c.oid) OFFSET 0) AS f(figures);
COMMENT ON VIEW pgs_catalog.stat_tables IS 'the figures of pg_stat_all_tables for the shards of distributed tables, summed up';

CREATE VIEW pgs_catalog.shards AS
    SELECT n.nspname AS schema, c.relname AS "table", s.id AS shard_id,
           s.min_value::integer AS first_hash, s.max_value::integer AS last_hash,
           pg_catalog.format('%I.%I', n.nspname, c.relname || '_' || s.id) AS name,
           (SELECT count(*) FROM pgs_distribution_metadata.shard_placement AS sp WHERE sp.shard_id = s.id) AS placements
      FROM pgs_distribution_metadata.shard AS s
      JOIN pg_catalog.pg_class AS c ON c.oid = s.relation_id
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE pg_catalog.has_any_column_privilege(c.oid, 'SELECT');
COMMENT ON VIEW pgs_catalog.shards IS 'shards of the distributed tables that the user may read';

CREATE VIEW pgs_catalog.placements AS
    SELECT s.schema, s."table", s.shard_id, s.name, sp.id AS placement_id, sp.node_name, sp.node_port,
           sp.shard_state = 1 AS is_healthy
      FROM pgs_catalog.shards AS s
      JOIN pgs_distribution_metadata.shard_placement AS sp ON sp.shard_id = s.shard_id;
COMMENT ON VIEW pgs_catalog.placements IS 'where the shards of the distributed tables are that the user may read';

GRANT SELECT ON pgs_catalog.tables, pgs_catalog.stat_tables, pgs_catalog.shards, pgs_catalog.placements TO PUBLIC;
GRANT USAGE ON SCHEMA pgs_catalog TO PUBLIC;
GRANT SELECT ON pgs_catalog.activity, pgs_catalog.relocation, pgs_catalog.sessions TO PUBLIC;
REVOKE EXECUTE ON FUNCTION pgs_catalog.metadata_changed() FROM PUBLIC;

/* The functions of pg_shard 1.2, in the extension's schema. */

CREATE FUNCTION column_to_column_name(table_oid oid, column_var text)
    RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'column_to_column_name_wrapper';
COMMENT ON FUNCTION column_to_column_name(oid, text)
    IS 'the name of the column that a node-tree text refers to';

CREATE FUNCTION column_name_to_column(table_oid oid, column_name text)
    RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'column_name_to_column_wrapper';
COMMENT ON FUNCTION column_name_to_column(oid, text)
    IS 'the node-tree text of a reference to a column';

CREATE FUNCTION partition_column_to_node_string(table_oid oid)
    RETURNS text LANGUAGE c AS 'MODULE_PATHNAME', 'partition_column_to_node_string_wrapper';
COMMENT ON FUNCTION partition_column_to_node_string(oid)
    IS 'return textual form of distributed table''s partition column';

CREATE FUNCTION master_create_distributed_table(table_name text, partition_column text,
                                                partition_method "char" DEFAULT 'h')
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'master_create_distributed_table_wrapper';
COMMENT ON FUNCTION master_create_distributed_table(text, text, "char")
    IS 'makes a table distributed by the hash of a column';

CREATE FUNCTION master_create_worker_shards(table_name text, shard_count integer,
                                            replication_factor integer DEFAULT 2)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'master_create_worker_shards_wrapper';
COMMENT ON FUNCTION master_create_worker_shards(text, integer, integer)
    IS 'creates the shards of a distributed table on the workers of pg_worker_list.conf';

/* Commands past the coordinator, for administrators. */

CREATE FUNCTION pgs_catalog.run_command_on_nodes(
        command text, OUT node_name text, OUT node_port integer, OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'run_command_on_nodes_wrapper';
COMMENT ON FUNCTION pgs_catalog.run_command_on_nodes(text)
    IS 'runs a command on each node, outside of the transaction; the first field of its first row, or the error';
REVOKE EXECUTE ON FUNCTION pgs_catalog.run_command_on_nodes(text) FROM PUBLIC;

CREATE FUNCTION pgs_catalog.run_command_on_placements(
        table_name regclass, command text, OUT shard_id bigint, OUT node_name text, OUT node_port integer,
        OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE c AS 'MODULE_PATHNAME', 'run_command_on_placements_wrapper';
COMMENT ON FUNCTION pgs_catalog.run_command_on_placements(regclass, text)
    IS 'runs a command for each healthy placement of a table, with the shard''s name for %s, outside of the transaction';
REVOKE EXECUTE ON FUNCTION pgs_catalog.run_command_on_placements(regclass, text) FROM PUBLIC;

CREATE FUNCTION pgs_catalog.run_command_on_shards(
        table_name regclass, command text, OUT shard_id bigint, OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE sql AS $$
    SELECT shard_id, pg_catalog.bool_and(success),
           coalesce(pg_catalog.min(result) FILTER (WHERE NOT success), (pg_catalog.array_agg(result ORDER BY number))[1])
      FROM pgs_catalog.run_command_on_placements($1, $2) WITH ORDINALITY AS r(shard_id, node_name, node_port, success, result, number)
     GROUP BY 1 ORDER BY 1
$$;
COMMENT ON FUNCTION pgs_catalog.run_command_on_shards(regclass, text)
    IS 'the same with one row for each shard, whose placements all run the command';
REVOKE EXECUTE ON FUNCTION pgs_catalog.run_command_on_shards(regclass, text) FROM PUBLIC;

CREATE FUNCTION pgs_catalog.shard_of_key(table_name regclass, key text)
    RETURNS bigint LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'shard_of_key_wrapper';
COMMENT ON FUNCTION pgs_catalog.shard_of_key(regclass, text) IS 'the shard that a value of the distribution column belongs to';

CREATE FUNCTION get_shard_id_for_distribution_column(table_name regclass, distribution_value anyelement)
    RETURNS bigint LANGUAGE sql STRICT SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET extra_float_digits = 1
    AS 'SELECT pgs_catalog.shard_of_key($1, $2::pg_catalog.text)';
COMMENT ON FUNCTION get_shard_id_for_distribution_column(regclass, anyelement)
    IS 'the shard that a value of the distribution column belongs to';
CREATE FUNCTION get_shard_id_for_distribution_column(table_name regclass, distribution_value text)
    RETURNS bigint LANGUAGE sql STRICT AS 'SELECT pgs_catalog.shard_of_key($1, $2)';
COMMENT ON FUNCTION get_shard_id_for_distribution_column(regclass, text)
    IS 'the shard that a value of the distribution column belongs to';

/* New in 2.0: a table becomes distributed with its rows, and local again. */

CREATE FUNCTION create_distributed_table(table_name regclass, distribution_column text,
                                         shard_count integer DEFAULT 16, replication_factor integer DEFAULT 1,
                                         colocate_with text DEFAULT 'default')
    RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'create_distributed_table_wrapper';
COMMENT ON FUNCTION create_distributed_table(regclass, text, integer, integer, text)
    IS 'distributes a table by the hash of a column, creates its shards, and takes its rows along';

CREATE FUNCTION create_reference_table(table_name regclass)
    RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'create_reference_table_wrapper';
COMMENT ON FUNCTION create_reference_table(regclass)
    IS 'places a table with its rows whole on all workers, where distributed tables join with it';

CREATE FUNCTION alter_distributed_table(table_name regclass, distribution_column text DEFAULT NULL,
                                        shard_count integer DEFAULT NULL, replication_factor integer DEFAULT NULL,
                                        colocate_with text DEFAULT NULL)
    RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'alter_distributed_table_wrapper';
COMMENT ON FUNCTION alter_distributed_table(regclass, text, integer, integer, text)
    IS 'distributes a distributed table anew: by another column, in other shards, beside another table';

CREATE FUNCTION undistribute_table(table_name regclass)
    RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'undistribute_table_wrapper';
COMMENT ON FUNCTION undistribute_table(regclass)
    IS 'brings the rows of a distributed table back into the local table, and drops the shards';

CREATE FUNCTION master_copy_shard_placement(shard_id bigint, source_node_name text, source_node_port integer,
                                            target_node_name text, target_node_port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'master_copy_shard_placement_wrapper';
COMMENT ON FUNCTION master_copy_shard_placement(bigint, text, integer, text, integer)
    IS 'repairs an inactive placement by copying a healthy one over it';

CREATE FUNCTION worker_copy_shard_placement(table_name text, source_node_name text, source_node_port integer)
    RETURNS void LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'worker_copy_shard_placement_wrapper';
COMMENT ON FUNCTION worker_copy_shard_placement(text, text, integer)
    IS 'appends the rows of the table of the same name on another node';

CREATE FUNCTION sync_table_metadata_to_citus(table_name text)
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE WARNING 'sync_table_metadata_to_citus is deprecated and will be removed in a future version';
    RAISE EXCEPTION 'cannot synchronize metadata with CitusDB'
        USING ERRCODE = 'feature_not_supported',
              DETAIL = 'CitusDB is not part of this server.',
              HINT = 'The metadata of table ' || coalesce(table_name, '(null)')
                     || ' are in schema pgs_distribution_metadata.';
END;
$$;
COMMENT ON FUNCTION sync_table_metadata_to_citus(text)
    IS 'synchronize a distributed table''s metadata with CitusDB: no longer supported';

CREATE FUNCTION create_insert_proxy_for_table(target_table regclass, sequence regclass DEFAULT NULL)
    RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $create_insert_proxy_for_table$
DECLARE
    proxy_name text;
    attributes text;
    parameters text;
    values_used text;
    count_rows text := '';
BEGIN
    SELECT relname || '_insert_proxy' INTO proxy_name FROM pg_class WHERE oid = target_table;

    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
           string_agg('$' || position, ', ' ORDER BY attnum),
           string_agg('NEW.' || quote_ident(attname), ', ' ORDER BY attnum)
      INTO attributes, parameters, values_used
      FROM (SELECT attname, attnum, row_number() OVER (ORDER BY attnum) AS position
              FROM pg_attribute
             WHERE attrelid = target_table AND attnum > 0 AND NOT attisdropped AND attgenerated = '') AS live;

    IF sequence IS NOT NULL THEN
        count_rows := format('PERFORM pg_catalog.nextval(%L);', sequence::oid::regclass);
    END IF;

    EXECUTE format('CREATE TEMPORARY TABLE %I (LIKE %s INCLUDING DEFAULTS)', proxy_name, target_table);
    EXECUTE format(
        $function$
        CREATE FUNCTION pg_temp.copy_to_insert() RETURNS trigger LANGUAGE plpgsql AS $trigger$
        BEGIN
            EXECUTE %L USING %s;
            %s
            RETURN NULL;
        END;
        $trigger$
        $function$,
        format('INSERT INTO %s (%s) VALUES (%s)', target_table, attributes, parameters), values_used, count_rows);
    EXECUTE format('CREATE TRIGGER copy_to_insert BEFORE INSERT ON %I '
                   'FOR EACH ROW EXECUTE FUNCTION pg_temp.copy_to_insert()', proxy_name);
    RETURN proxy_name;
END;
$create_insert_proxy_for_table$;
COMMENT ON FUNCTION create_insert_proxy_for_table(regclass, regclass)
    IS 'create a proxy table that redirects INSERTed rows to a target table';

/* A coordinator without the library in all its sessions would read and write its own empty tables. A worker needs the functions
   only; the coordinator's sessions say that it is one. */

DO $$
BEGIN
    IF NOT pgs_catalog.is_preloaded()
       AND coalesce(pg_catalog.current_setting('pg_shard.is_worker', true), '') <> 'on' THEN
        RAISE EXCEPTION 'cannot create extension pg_shard: the library is not preloaded'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'This server has not loaded the library pg_shard when it was started.',
                  HINT = 'Add pg_shard to shared_preload_libraries in the server''s configuration and restart it. '
                         'On a worker, which does not need that, SET pg_shard.is_worker = on first.';
    END IF;
END;
$$;
