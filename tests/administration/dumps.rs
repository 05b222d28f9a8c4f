//! Dumps of the coordinator: a restored table is distributed again, or says what to do.

use std::process::Output;

use testkit::{NodeName, TestCluster};

const COORDINATOR: NodeName = NodeName::Coordinator;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn dump(cluster: &TestCluster, arguments: &[&str]) -> String {
    let output = cluster.program("pg_dump", COORDINATOR, arguments, "");
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).expect("a dump is text")
}

/// Restores into a database, and tells what went wrong.
fn restore(cluster: &TestCluster, database: &str, dump: &str) -> String {
    told(&cluster.psql(COORDINATOR, &["-q", "-v", "ON_ERROR_STOP=0", "-d", database], dump))
}

/// Runs a script in a database, errors included; what it answers, without noise.
fn ask(cluster: &TestCluster, database: &str, script: &str) -> String {
    let arguments = ["-q", "-A", "-t", "-v", "ON_ERROR_STOP=0", "-d", database];
    let output = cluster.psql(COORDINATOR, &arguments, script);
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("{}{}", answers, told(&output)).trim_end().to_owned()
}

/// Two distributed tables, a reference table and a local one, and a database on all nodes whose shards are the same.
fn cluster_with_copy() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster
        .sql("CREATE TABLE a (k int PRIMARY KEY, v text); CREATE TABLE b (k text NOT NULL, n int)");
    cluster.sql("CREATE TABLE r (id int PRIMARY KEY); CREATE TABLE here (x int)");
    cluster.sql("INSERT INTO a SELECT i, 'a' || i FROM generate_series(1, 20) AS i");
    cluster.sql("INSERT INTO b SELECT 'b' || i, i FROM generate_series(1, 30) AS i");
    cluster.sql("INSERT INTO r VALUES (1); INSERT INTO here VALUES (7)");
    cluster.sql("SELECT create_distributed_table('a', 'k', 4, 2)");
    cluster.sql("SELECT create_distributed_table('b', 'k', 3)");
    cluster.sql("SELECT create_reference_table('r')");
    for worker in cluster.workers() {
        cluster.session_on(worker).sql("CREATE DATABASE copy TEMPLATE template0");
        let shards = cluster.program("pg_dump", worker, &[], "");
        let shards = String::from_utf8(shards.stdout).expect("a dump is text");
        // The worker's own extension is left out.
        cluster.psql(worker, &["-q", "-v", "ON_ERROR_STOP=0", "-d", "copy"], &shards);
    }
    cluster.sql("CREATE DATABASE copy TEMPLATE template0");
    cluster
}

const COUNTS: &str = "SELECT count(*), min(v) FROM a; SELECT count(*), sum(n) FROM b; SELECT count(*) FROM r; SELECT x FROM here";

#[test]
fn a_restored_table_refuses_to_be_used_until_it_has_its_shards_back() {
    // Metadata knew tables by OIDs, which a restore changes: restored tables were local and empty, or got the shards of
    // another. Tables now carry a label that is dumped by their names.
    let cluster = cluster_with_copy();
    assert_eq!(restore(&cluster, "copy", &dump(&cluster, &[])), "");
    for statement in
        ["SELECT * FROM a", "INSERT INTO b VALUES ('x', 1)", "DELETE FROM r", "TRUNCATE a"]
    {
        let answer = ask(&cluster, "copy", statement);
        assert!(answer.contains("has no metadata under its OID"), "{statement}: {answer}");
    }
    // The rows came along, and are on the nodes as well.
    let after = "SELECT t FROM pgs_catalog.after_restore() AS t ORDER BY t::text";
    let answer = ask(&cluster, "copy", after);
    assert!(answer.contains("restored tables hold rows"), "{answer}");
    assert!(answer.contains("after_restore(true)"), "{answer}");
    let dropping = after.replace("()", "(false)");
    assert_eq!(ask(&cluster, "copy", &dropping), "a\nb\nr");
    assert_eq!(ask(&cluster, "copy", COUNTS), "20|a1\n30|465\n1\n7");
    assert_eq!(ask(&cluster, "copy", after), "");
    assert_eq!(
        ask(&cluster, "copy", "INSERT INTO a VALUES (21, 'z'); SELECT v FROM a WHERE k = 21"),
        "z"
    );
    // The number of the next shard came along.
    let next = "CREATE TABLE c (k int); SELECT create_distributed_table('c', 'k', 1); \
                SELECT max(id) FROM pgs_distribution_metadata.shard";
    assert_eq!(ask(&cluster, "copy", next).trim(), "10008");
    assert_eq!(cluster.text("SELECT count(*) FROM a"), "20");

    // A second restore harms nothing.
    let errors = restore(&cluster, "copy", &dump(&cluster, &["--schema-only"]));
    assert!(errors.contains("table \"a\" is distributed already"), "{errors}");
    assert_eq!(ask(&cluster, "copy", "SELECT count(*) FROM a; SELECT count(*) FROM b"), "21\n30");
}

#[test]
fn an_oid_that_is_one_tables_in_the_dump_and_another_ones_here_is_moved_once() {
    // One UPDATE after another moved such an OID twice, and all shards belonged to one table.
    let cluster = cluster_with_copy();
    restore(
        &cluster,
        "copy",
        &dump(
            &cluster,
            &["--exclude-table-data=a", "--exclude-table-data=b", "--exclude-table-data=r"],
        ),
    );
    // As if the dump had known a, b and r under the OIDs that b, r and a have here.
    let exchange = "CREATE TEMP TABLE moves AS SELECT substring(label FROM '[0-9]+')::oid AS told, \
            CASE objoid::regclass::text WHEN 'a' THEN 'b'::regclass WHEN 'b' THEN 'r'::regclass ELSE 'a'::regclass END::oid AS now, objoid \
          FROM pg_seclabel WHERE provider = 'pg_shard';
        SET search_path = '';
        UPDATE pgs_distribution_metadata.shard SET relation_id = now FROM pg_temp.moves WHERE relation_id = told;
        UPDATE pgs_distribution_metadata.partition SET relation_id = now FROM pg_temp.moves WHERE relation_id = told;
        UPDATE pg_catalog.pg_seclabel AS l SET label = 'distributed table ' || now FROM pg_temp.moves AS m \
         WHERE m.objoid = l.objoid AND provider = 'pg_shard';";
    assert_eq!(ask(&cluster, "copy", exchange), "");
    let answer = ask(&cluster, "copy", "SELECT count(*) FROM a");
    assert!(answer.contains("has no metadata under its OID"), "{answer}");
    assert_eq!(ask(&cluster, "copy", "SELECT count(*) FROM pgs_catalog.after_restore()"), "3");
    assert_eq!(ask(&cluster, "copy", COUNTS), "20|a1\n30|465\n1\n7");
}

#[test]
fn rows_and_schema_are_restored_into_tables_that_are_distributed_anew() {
    let cluster = cluster_with_copy();
    for worker in cluster.workers() {
        let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
        cluster.psql(worker, &["-q", "-d", "copy"], empty);
    }
    let metadata = "--exclude-table-data=pgs_distribution_metadata.*";
    for section in ["--section=pre-data", "--section=post-data"] {
        assert_eq!(restore(&cluster, "copy", &dump(&cluster, &[metadata, section])), "");
    }
    let distribute = "SELECT create_distributed_table('a', 'k', 2); SELECT create_distributed_table('b', 'k', 3);
                      SELECT undistribute_table('r'); SELECT create_reference_table('r')";
    assert_eq!(ask(&cluster, "copy", distribute).trim(), "");
    assert_eq!(restore(&cluster, "copy", &dump(&cluster, &[metadata, "--section=data"])), "");
    assert_eq!(ask(&cluster, "copy", COUNTS), "20|a1\n30|465\n1\n7");
}

#[test]
fn a_single_table_of_a_dump_does_not_take_anothers_shards() {
    let cluster = cluster_with_copy();
    let of_a = dump(&cluster, &["-t", "a"]);
    let of_a = of_a
        .replace("public.a ", "public.second ")
        .replace("public.a\n", "public.second\n")
        .replace("a_pkey", "second_pkey");
    assert_eq!(restore(&cluster, "postgres", &of_a), "");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.after_restore()"), "0");
    assert_eq!(cluster.error("SELECT * FROM second").sqlstate, "55000");
    assert_eq!(cluster.text("SELECT count(*) FROM a"), "20");
    cluster.sql("SELECT undistribute_table('second')");
    cluster.sql("INSERT INTO second VALUES (21, 'local')");
    assert_eq!(cluster.text("SELECT count(*), max(v) FROM second"), "21|local");
    cluster.sql("DROP TABLE second");
    assert_eq!(cluster.text("SELECT count(*) FROM a"), "20");
}

#[test]
fn metadata_that_are_left_never_become_those_of_the_next_table_with_the_oid() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE t (k int); INSERT INTO t VALUES (1)");
    // Metadata of a table that is gone, as a restore leaves them.
    cluster.sql(
        "SET search_path = ''; INSERT INTO pgs_distribution_metadata.partition VALUES ('public.t'::regclass, 'h', 'k'); \
         INSERT INTO pgs_distribution_metadata.shard VALUES (99, 'public.t'::regclass, 't', '-2147483648', '2147483647'); \
         RESET search_path",
    );
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "1");
    let error = cluster.error("SELECT create_distributed_table('t', 'k')");
    assert_eq!(
        error.line(),
        "55000: cannot distribute table \"t\": its OID is that of another table's metadata"
    );
    cluster.sql("DROP TABLE t");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.partition"), "1");
}

#[test]
fn an_extension_that_goes_leaves_local_tables_that_work() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE t (k int, v text); SELECT create_distributed_table('t', 'k', 2)");
    cluster.sql("DROP EXTENSION pg_shard CASCADE");
    let mut session = cluster.new_session();
    session.sql("INSERT INTO t VALUES (1, repeat('x', 100000))");
    session.sql("VACUUM FULL t");
    assert_eq!(session.text("SELECT length(v) FROM t"), "100000");
    session.sql("CREATE EXTENSION pg_shard");
    assert_eq!(session.text("SELECT count(*) FROM t"), "1");
}

/// What the cluster holds that is dumped: tables of every kind, what they need, and what belongs to them.
const OF_EVERY_KIND: &str = "CREATE ROLE owner_1 LOGIN; CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT owner_1 TO reader;
    ALTER ROLE reader SET app.tenant = '7'; CREATE SCHEMA app AUTHORIZATION owner_1; GRANT USAGE ON SCHEMA app TO reader;
    CREATE TYPE app.mood AS ENUM ('sad', 'ok');
    CREATE FUNCTION app.f(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 0';
    CREATE TABLE app.zplans (id int PRIMARY KEY, name text);
    CREATE TABLE app.tenants (id bigint PRIMARY KEY, plan int REFERENCES app.zplans, m app.mood, CHECK (app.f(id::int)));
    CREATE TABLE app.orders (tenant bigint, id bigserial, note text, PRIMARY KEY (tenant, id),
                             FOREIGN KEY (tenant) REFERENCES app.tenants ON DELETE CASCADE);
    CREATE INDEX ON app.orders (note);
    CREATE TABLE app.events (tenant bigint, at date, what text, PRIMARY KEY (tenant, at)) PARTITION BY RANGE (at);
    CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE app.events_2 PARTITION OF app.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    CREATE TABLE app.noted (id int PRIMARY KEY, note text);
    CREATE TABLE app.named (name text COLLATE \"C\" PRIMARY KEY); CREATE TABLE app.numbered (n numeric PRIMARY KEY);
    CREATE TABLE app.here (id int, plan int REFERENCES app.zplans);
    CREATE FUNCTION app.upper_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := upper(NEW.note); RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON app.noted FOR EACH ROW EXECUTE FUNCTION app.upper_note();
    SELECT create_reference_table('app.zplans'); SELECT create_distributed_table('app.tenants', 'id', 3, 1);
    SELECT create_distributed_table('app.orders', 'tenant', colocate_with => 'app.tenants');
    SELECT create_distributed_table('app.events', 'tenant', 4, 1); SELECT create_distributed_table('app.noted', 'id', 2, 2);
    SELECT create_distributed_table('app.named', 'name', 3); SELECT create_distributed_table('app.numbered', 'n', 3);
    INSERT INTO app.named VALUES ('x'); INSERT INTO app.numbered VALUES (1.50);
    ALTER TABLE app.noted ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.noted TO reader USING (id < 5);
    ALTER TABLE app.orders OWNER TO owner_1;
    INSERT INTO app.zplans VALUES (1, 'a'), (2, 'b'); INSERT INTO app.here VALUES (1, 2);
    INSERT INTO app.tenants SELECT i, 1 + i % 2, 'ok' FROM generate_series(1, 50) AS i;
    INSERT INTO app.orders (tenant, note) SELECT 1 + i % 50, 'n' || i FROM generate_series(1, 200) AS i;
    INSERT INTO app.events SELECT i, date '2026-01-01' + i % 50, 'w' FROM generate_series(1, 100) AS i;
    INSERT INTO app.noted SELECT i, 'a' FROM generate_series(1, 10) AS i;
    CREATE VIEW app.v AS SELECT t.id, t.plan, count(*) FROM app.tenants AS t JOIN app.orders AS o ON o.tenant = t.id GROUP BY 1, 2;
    GRANT SELECT ON app.noted, app.v TO reader";

const OF_ALL: &str = "SELECT count(*), sum(id), min(note) FROM app.orders; SELECT count(*), sum(count), sum(plan) FROM app.v; \
    SELECT tableoid::regclass, count(*) FROM app.events GROUP BY 1 ORDER BY 1; SELECT * FROM app.here JOIN app.zplans ON zplans.id = plan; \
    SELECT count(*), min(note) FROM app.noted; \
    SELECT regclass(relation_id)::text, key, count(DISTINCT s.id), count(p.*) FROM pgs_distribution_metadata.partition \
      JOIN pgs_distribution_metadata.shard AS s USING (relation_id) JOIN pgs_distribution_metadata.shard_placement AS p ON p.shard_id = s.id \
      GROUP BY 1, 2 ORDER BY 1; \
    SET ROLE reader; SELECT count(*) FROM app.noted; SHOW app.tenant";

/// A dump of the coordinator came back with errors, and each table had to be distributed by hand before its rows could be loaded.
#[test]
fn a_cluster_goes_through_pg_dumpall_into_a_new_one() {
    let (old, new) = (TestCluster::up(2), TestCluster::up(2));
    old.sql(OF_EVERY_KIND);
    let dumped = old.program("pg_dumpall", COORDINATOR, &["-d", "dbname=postgres"], "");
    assert!(dumped.status.success(), "{}", told(&dumped));
    let dumped = String::from_utf8(dumped.stdout).expect("a dump is text");
    let errors = restore(&new, "postgres", &dumped);
    let expected = |line: &&str| {
        line.contains("role \"postgres\" already exists")
            || line.contains("schema \"public\" already exists")
    };
    assert_eq!(
        errors.lines().filter(|line| !expected(line)).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    let answer = ask(&new, "postgres", "SELECT * FROM app.orders");
    assert!(answer.contains("has no metadata under its OID"), "{answer}");
    assert_eq!(ask(&new, "postgres", "SELECT count(*) FROM pgs_catalog.after_restore(true)"), "7");
    assert_eq!(ask(&new, "postgres", OF_ALL), ask(&old, "postgres", OF_ALL));
    // The rows are on the nodes, beside each other, and what is checked there is checked.
    new.sql("DELETE FROM app.tenants WHERE id = 7");
    assert_eq!(new.text("SELECT count(*) FROM app.orders WHERE tenant = 7"), "0");
    assert_eq!(new.error("INSERT INTO app.orders VALUES (7, 1)").sqlstate, "23503");
    assert_eq!(new.error("INSERT INTO app.tenants VALUES (-1, 1)").sqlstate, "23514");
    assert_eq!(new.error("INSERT INTO app.here VALUES (1, 9)").sqlstate, "23503");
    new.sql("INSERT INTO app.noted VALUES (11, 'b'); INSERT INTO app.orders (tenant, note) VALUES (8, 'x')");
    assert_eq!(new.text("SELECT note FROM app.noted WHERE id = 11"), "B");
    assert_eq!(new.text("SELECT count(*) FROM app.orders WHERE tenant = 8 AND id = 201"), "1");
    let tables = |cluster: &TestCluster| cluster.tables_on(NodeName::Worker(1), "app.%").len();
    assert_eq!(tables(&new), tables(&old));
    assert_eq!(old.text("SELECT count(*) FROM app.orders"), "200");
}

/// The hash of an enum's value is that of a number in the catalogs, which a restored type has not: rows were in other shards than those in
/// which they were looked for, and an equality found none of them.
#[test]
fn shards_by_an_enum_are_found_again_after_a_restore() {
    let cluster = TestCluster::up(2);
    for node in cluster.nodes() {
        cluster.session_on(node).sql("CREATE DATABASE shop TEMPLATE template0");
    }
    let made = ask(
        &cluster,
        "shop",
        "CREATE EXTENSION pg_shard; CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
         CREATE DOMAIN humour AS mood;
         CREATE TABLE people (m mood, n int); CREATE TABLE beside (m mood, n int); CREATE TABLE lists (m humour[], n int);
         INSERT INTO people SELECT m, n FROM unnest(enum_range(NULL::mood)) AS m, generate_series(1, 3) AS n;
         INSERT INTO beside SELECT * FROM people; INSERT INTO lists SELECT ARRAY[m]::humour[], n FROM people;
         CREATE TABLE plain (k int, n int); INSERT INTO plain SELECT n, n FROM generate_series(1, 9) AS n;
         SELECT create_distributed_table('people', 'm', 8); SELECT create_distributed_table('beside', 'm', 8, colocate_with => 'people');
         SELECT create_distributed_table('lists', 'm', 8); SELECT create_distributed_table('plain', 'k', 4)",
    );
    assert!(!made.contains("ERROR"), "{made}");
    let dump = dump(&cluster, &["-d", "shop", "--exclude-table-data=public.*"]);
    cluster.sql("DROP DATABASE shop");
    cluster.sql("CREATE DATABASE shop TEMPLATE template0");
    assert_eq!(restore(&cluster, "shop", &dump), "");
    let restored =
        ask(&cluster, "shop", "SELECT * FROM pgs_catalog.after_restore() ORDER BY 1::text");
    for table in ["people", "lists"] {
        assert!(
            restored.contains(&format!("rows of table \"public.{table}\" are distributed anew")),
            "{restored}"
        );
    }
    assert!(
        !restored.contains("public.plain") && !restored.contains("public.beside"),
        "{restored}"
    );
    let found = ask(
        &cluster,
        "shop",
        "SELECT format('SELECT count(*), sum(p.n) FROM people AS p JOIN beside USING (m, n) JOIN lists AS l ON l.m = ARRAY[p.m]::humour[] AND l.n = p.n \
                        WHERE p.m = %L', m) FROM unnest(enum_range(NULL::mood)) AS m \\gexec\n\
         SELECT count(*) FROM plain WHERE k = 7",
    );
    assert_eq!(found, format!("{}1", "3|6\n".repeat(8)));
}
