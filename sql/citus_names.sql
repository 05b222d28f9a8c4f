/* Names under which tools of Citus ask: optional. Run it as superuser in a database with pg_shard:

       psql -f citus_names.sql

   Each function does with pg_shard what tools expect of the name, with the caller's rights. It can be run again. */

\set QUIET on
SELECT n.nspname AS pg_shard FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname = 'pg_shard' \gset
/* What PostgreSQL has comes first, whatever else users have made in the schema. */
SELECT pg_catalog.set_config('search_path', pg_catalog.format('pg_catalog, %I, pg_temp', :'pg_shard'), false) \g /dev/null

BEGIN;

CREATE OR REPLACE FUNCTION :"pg_shard".citus_version() RETURNS text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT 'pg_shard ' || extversion FROM pg_extension WHERE extname = 'pg_shard';
END;

/* Tables. Where no type of distribution is given, pg_shard's own function answers. */

CREATE OR REPLACE FUNCTION :"pg_shard".create_distributed_table(
        table_name regclass, distribution_column text, distribution_type text,
        colocate_with text DEFAULT 'default', shard_count integer DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF distribution_type <> 'hash' THEN
        RAISE EXCEPTION 'cannot distribute tables by method %', distribution_type
            USING ERRCODE = 'feature_not_supported', HINT = 'Use hash.';
    END IF;
    PERFORM create_distributed_table(table_name => create_distributed_table.table_name,
                                     distribution_column => create_distributed_table.distribution_column,
                                     shard_count => coalesce(create_distributed_table.shard_count, 32), replication_factor => 1,
                                     colocate_with => create_distributed_table.colocate_with);
END;
$$;

CREATE OR REPLACE FUNCTION :"pg_shard".undistribute_table(table_name regclass, cascade_via_foreign_keys boolean)
    RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF cascade_via_foreign_keys THEN
        RAISE EXCEPTION 'cannot undistribute tables along foreign keys'
            USING ERRCODE = 'feature_not_supported', HINT = 'Undistribute the tables that refer to it first.';
    END IF;
    PERFORM undistribute_table(table_name);
END;
$$;

CREATE OR REPLACE FUNCTION :"pg_shard".truncate_local_data_after_distributing_table(function_name regclass)
    RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT; END;
CREATE OR REPLACE FUNCTION :"pg_shard".create_distributed_function(
        function_name regprocedure, distribution_arg_name text DEFAULT NULL, colocate_with text DEFAULT 'default',
        force_delegation boolean DEFAULT NULL)
    RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT; END;
CREATE OR REPLACE FUNCTION :"pg_shard".replicate_reference_tables(shard_transfer_mode text DEFAULT 'auto')
    RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT; END;

CREATE OR REPLACE FUNCTION :"pg_shard".isolate_tenant_to_new_shard(
        table_name regclass, tenant_id anyelement, cascade_option text DEFAULT '', shard_transfer_mode text DEFAULT 'auto')
    RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT AS 'SELECT pgs_catalog.isolate_key($1, $2::text)';

/* Sizes. */

CREATE OR REPLACE FUNCTION :"pg_shard".citus_relation_size(table_name regclass) RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    SELECT (pgs_catalog.table_figures(table_name::oid))[2];
END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_table_size(table_name regclass) RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    SELECT (pgs_catalog.table_figures(table_name::oid))[2];
END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_total_relation_size(table_name regclass, fail_on_error boolean DEFAULT true) RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    SELECT pgs_catalog.table_size(table_name);
END;

/* Nodes. */

CREATE OR REPLACE FUNCTION :"pg_shard".citus_add_node(
        nodename text, nodeport integer, groupid integer DEFAULT -1, noderole text DEFAULT 'primary', nodecluster name DEFAULT 'default')
    RETURNS integer LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF noderole <> 'primary' THEN
        RAISE EXCEPTION 'cannot add a node with role %', noderole
            USING ERRCODE = 'feature_not_supported', HINT = 'Nodes have addresses: set_node_address names another server for a node.';
    END IF;
    RETURN pgs_catalog.add_node(nodename, nodeport);
END;
$$;
CREATE OR REPLACE FUNCTION :"pg_shard".master_add_node(
        nodename text, nodeport integer, groupid integer DEFAULT -1, noderole text DEFAULT 'primary', nodecluster name DEFAULT 'default')
    RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT citus_add_node(nodename, nodeport, groupid, noderole, nodecluster); END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_remove_node(nodename text, nodeport integer)
    RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT pgs_catalog.remove_node(nodename, nodeport); END;
CREATE OR REPLACE FUNCTION :"pg_shard".master_remove_node(nodename text, nodeport integer)
    RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT pgs_catalog.remove_node(nodename, nodeport); END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_activate_node(nodename text, nodeport integer) RETURNS integer LANGUAGE sql
BEGIN ATOMIC
    SELECT n.id FROM pgs_catalog.nodes AS n WHERE n.name = nodename AND n.port = nodeport;
END;
CREATE OR REPLACE FUNCTION :"pg_shard".master_activate_node(nodename text, nodeport integer)
    RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT citus_activate_node(nodename, nodeport); END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_set_coordinator_host(
        host text, port integer DEFAULT 5432, node_role text DEFAULT 'primary', node_cluster name DEFAULT 'default')
    RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT; END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_get_active_worker_nodes(OUT node_name text, OUT node_port bigint) RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
    SELECT n.name, n.port::bigint FROM pgs_catalog.nodes AS n WHERE n.state = 'up' ORDER BY 1, 2;
END;
CREATE OR REPLACE FUNCTION :"pg_shard".master_get_active_worker_nodes(OUT node_name text, OUT node_port bigint)
    RETURNS SETOF record LANGUAGE sql BEGIN ATOMIC SELECT * FROM citus_get_active_worker_nodes(); END;

/* Shards move. */

CREATE OR REPLACE FUNCTION :"pg_shard".citus_move_shard_placement(
        shard_id bigint, source_node_name text, source_node_port integer, target_node_name text, target_node_port integer,
        shard_transfer_mode text DEFAULT 'auto')
    RETURNS void LANGUAGE sql
BEGIN ATOMIC
    SELECT pgs_catalog.move_shard(shard_id, source_node_name, source_node_port, target_node_name, target_node_port);
END;
CREATE OR REPLACE FUNCTION :"pg_shard".master_move_shard_placement(
        shard_id bigint, source_node_name text, source_node_port integer, target_node_name text, target_node_port integer,
        shard_transfer_mode text DEFAULT 'auto')
    RETURNS void LANGUAGE sql
BEGIN ATOMIC
    SELECT citus_move_shard_placement(shard_id, source_node_name, source_node_port, target_node_name, target_node_port, shard_transfer_mode);
END;
CREATE OR REPLACE FUNCTION :"pg_shard".citus_copy_shard_placement(
        shard_id bigint, source_node_name text, source_node_port integer, target_node_name text, target_node_port integer,
        transfer_mode text DEFAULT 'auto')
    RETURNS void LANGUAGE sql
BEGIN ATOMIC
    SELECT pgs_catalog.copy_shard(shard_id, source_node_name, source_node_port, target_node_name, target_node_port);
END;

/* Commands, for whoever may call pg_shard's own. */

CREATE OR REPLACE FUNCTION :"pg_shard".run_command_on_workers(
        command text, parallel boolean DEFAULT true,
        OUT nodename text, OUT nodeport integer, OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
    SELECT * FROM pgs_catalog.run_command_on_nodes(command);
END;
CREATE OR REPLACE FUNCTION :"pg_shard".run_command_on_shards(
        table_name regclass, command text, parallel boolean DEFAULT true, OUT shardid bigint, OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
    SELECT * FROM pgs_catalog.run_command_on_shards(table_name, command);
END;
CREATE OR REPLACE FUNCTION :"pg_shard".run_command_on_placements(
        table_name regclass, command text, parallel boolean DEFAULT true,
        OUT nodename text, OUT nodeport integer, OUT shardid bigint, OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
    SELECT node_name, node_port, shard_id, p.success, p.result FROM pgs_catalog.run_command_on_placements(table_name, command) AS p;
END;
CREATE OR REPLACE FUNCTION :"pg_shard".run_command_on_all_nodes(
        command text, parallel boolean DEFAULT true, give_warning_for_connection_errors boolean DEFAULT false,
        OUT nodeid integer, OUT success boolean, OUT result text)
    RETURNS SETOF record LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT n.id, r.success, r.result FROM pgs_catalog.run_command_on_nodes(command) AS r
                   JOIN pgs_catalog.nodes AS n ON n.name = r.node_name AND n.port = r.node_port;
    /* This server's own part runs in the transaction, and with its rights. */
    nodeid := 0;
    BEGIN
        EXECUTE command INTO result;
        success := true;
    EXCEPTION WHEN OTHERS THEN
        success := false;
        result := 'ERROR: ' || SQLERRM;
    END;
    RETURN NEXT;
END;
$$;

/* Metadata as tools read them. */

CREATE OR REPLACE VIEW :"pg_shard".pg_dist_node AS
    SELECT id AS nodeid, id AS groupid, name AS nodename, port AS nodeport, coalesce(rack, 'default') AS noderack, true AS hasmetadata,
           state <> 'down' AS isactive, 'primary'::text AS noderole, 'default'::name AS nodecluster, false AS metadatasynced,
           takes_shards AS shouldhaveshards
      FROM pgs_catalog.nodes;
CREATE OR REPLACE VIEW :"pg_shard".pg_dist_shard AS
    SELECT relation_id::regclass AS logicalrelid, id AS shardid, storage AS shardstorage, min_value AS shardminvalue, max_value AS shardmaxvalue
      FROM pgs_distribution_metadata.shard;
CREATE OR REPLACE VIEW :"pg_shard".pg_dist_placement AS
    SELECT p.id AS placementid, p.shard_id AS shardid, p.shard_state AS shardstate, 0::bigint AS shardlength, n.id AS groupid
      FROM pgs_distribution_metadata.shard_placement AS p LEFT JOIN pgs_catalog.node AS n ON n.name = p.node_name AND n.port = p.node_port;
CREATE OR REPLACE VIEW :"pg_shard".pg_dist_shard_placement AS
    SELECT shard_id AS shardid, shard_state AS shardstate, 0::bigint AS shardlength, node_name AS nodename, node_port AS nodeport, id AS placementid
      FROM pgs_distribution_metadata.shard_placement;
CREATE OR REPLACE VIEW :"pg_shard".pg_dist_partition AS
    WITH layout AS (
        SELECT q.relation_id, q.key, count(DISTINCT s.id) AS shards, count(p.id) AS placements,
               string_agg(s.min_value || '@' || p.node_name || ':' || p.node_port, ' '
                          ORDER BY s.min_value::integer, p.node_name, p.node_port) AS places
          FROM pgs_distribution_metadata.partition AS q
          LEFT JOIN pgs_distribution_metadata.shard AS s ON s.relation_id = q.relation_id
          LEFT JOIN pgs_distribution_metadata.shard_placement AS p ON p.shard_id = s.id
         GROUP BY 1, 2)
    SELECT relation_id::regclass AS logicalrelid,
           CASE WHEN is_reference THEN 'n' ELSE 'h' END::"char" AS partmethod,
           CASE WHEN NOT is_reference THEN column_name_to_column(relation_id, key) END AS partkey,
           dense_rank() OVER (ORDER BY places, family)::integer AS colocationid,
           CASE WHEN is_reference THEN 't' ELSE 's' END::"char" AS repmodel, shards
      FROM (SELECT *, pgs_catalog.hash_family(relation_id::regclass, key) AS family,
                   shards = 1 AND placements = (SELECT count(DISTINCT (node_name, node_port))
                                                     FROM pgs_distribution_metadata.shard_placement) AS is_reference
              FROM layout) AS l;
CREATE OR REPLACE VIEW :"pg_shard".pg_dist_colocation AS
    SELECT DISTINCT colocationid, shards::integer AS shardcount, 1 AS replicationfactor FROM pg_dist_partition;
CREATE OR REPLACE VIEW :"pg_shard".citus_tables AS
    SELECT p.logicalrelid AS table_name, CASE p.partmethod WHEN 'n' THEN 'reference' ELSE 'distributed' END AS citus_table_type,
           CASE p.partmethod WHEN 'n' THEN '<none>' ELSE q.key END AS distribution_column, p.colocationid AS colocation_id,
           pg_size_pretty(pgs_catalog.table_size(p.logicalrelid)) AS table_size, p.shards AS shard_count,
           pg_get_userbyid(c.relowner) AS table_owner, 'heap'::text AS access_method
      FROM pg_dist_partition AS p JOIN pg_class AS c ON c.oid = p.logicalrelid
      JOIN pgs_distribution_metadata.partition AS q ON q.relation_id = p.logicalrelid;
CREATE OR REPLACE VIEW :"pg_shard".citus_shards AS
    SELECT d.logicalrelid AS table_name, d.shardid,
           format('%I.%I', n.nspname, c.relname || '_' || d.shardid) AS shard_name,
           CASE p.partmethod WHEN 'n' THEN 'reference' ELSE 'distributed' END AS citus_table_type, p.colocationid AS colocation_id,
           l.nodename, l.nodeport
      FROM pg_dist_shard AS d JOIN pg_dist_partition AS p USING (logicalrelid) JOIN pg_dist_shard_placement AS l USING (shardid)
      JOIN pg_class AS c ON c.oid = d.logicalrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace;

/* A name that somebody else had made would stay theirs to change. */
DO $$
DECLARE
    taken text := (
        SELECT string_agg(name, ', ') FROM (
            SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.xmin = pg_current_xact_id()::xid AND p.proowner::regrole <> current_user::regrole
            UNION ALL
            SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relkind = 'v' AND c.xmin = pg_current_xact_id()::xid AND c.relowner::regrole <> current_user::regrole
        ) AS others(name));
BEGIN
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION 'another role has made %', taken USING ERRCODE = 'insufficient_privilege', HINT = 'Drop it, and run this again.';
    END IF;
END;
$$;

COMMIT;
