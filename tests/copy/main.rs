//! COPY in and out, and INSERT of rows for many shards: all or nothing, and what comes out is what went in.

mod bad_input;
mod convert;
mod formats;
mod insert_select;
mod load_program;
mod many_rows;

use testkit::{NodeName, TestCluster};

const COORDINATOR: NodeName = NodeName::Coordinator;

fn psql(cluster: &TestCluster, input: &str) -> (String, String) {
    let output = cluster.psql(COORDINATOR, &["-qAtX"], input);
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn copy_moves_rows_in_every_format_and_a_bad_line_leaves_nothing() {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE t (k int, s text, d date DEFAULT '2020-01-01')",
        "t",
        "k",
        5,
        2,
    );
    let (_, errors) =
        psql(&cluster, "COPY t FROM STDIN;\n1\ta\\tb\\\\c\t2021-02-03\n2\t\\N\t\\N\n\\.\n");
    assert_eq!(errors, "");
    let (_, errors) = psql(
        &cluster,
        "COPY t (s, k) FROM STDIN (FORMAT csv, HEADER) WHERE k <> 4;\ns,k\n\"x,y\",3\nz,4\n\\.\n",
    );
    assert_eq!(errors, "");
    assert_eq!(
        cluster.text("SELECT * FROM t ORDER BY k"),
        cluster.text("SELECT * FROM (VALUES (1, E'a\\tb\\\\c', date '2021-02-03'), (2, NULL, NULL), (3, 'x,y', '2020-01-01')) v")
    );

    let bad = "COPY t FROM STDIN;\n10\tten\t2020-01-01\n11\televen\tnever\n\\.\n";
    let (_, errors) = psql(&cluster, bad);
    assert!(errors.contains("COPY t, line 2, column d"), "{errors}");
    let (_, errors) =
        psql(&cluster, "COPY t FROM STDIN;\n12\ttwelve\t2020-01-01\n\\N\tnull\t2020-01-01\n\\.\n");
    assert!(errors.contains("NULL value in partition column"), "{errors}");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "3");

    let file = cluster.data_dir(COORDINATOR).join("rows.binary");
    let file = file.display();
    cluster.sql(&format!("COPY t TO '{file}' (FORMAT binary)"));
    cluster.sql(&format!("COPY t FROM '{file}' (FORMAT binary)"));
    cluster.sql(&format!("COPY (SELECT k FROM t WHERE k = 1) TO '{file}'"));
    assert_eq!(cluster.text("SELECT count(*), count(DISTINCT k) FROM t"), "6|3");
    cluster.assert_placements_equal("t");
}

#[test]
fn pg_dump_takes_the_rows_along() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, s text)", "t", "k", 4, 2);
    cluster.sql("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 100) AS i");
    let dump = cluster.program("pg_dump", COORDINATOR, &["--data-only", "--table", "public.t"], "");
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert_eq!(text.lines().filter(|line| line.contains("\trow ")).count(), 100);
}

#[test]
fn inserts_of_rows_for_many_shards_answer_like_postgres() {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE t (k int PRIMARY KEY, v int, n serial)",
        "t",
        "k",
        6,
        2,
    );
    cluster.sql("CREATE TABLE l (k int PRIMARY KEY, v int, n serial)");
    for statement in [
        "INSERT INTO {} (k, v) SELECT i, i * 2 FROM generate_series(1, 20) AS i",
        "INSERT INTO {} (k, v) VALUES (21, 1), (22, 2), (23, 3) RETURNING k, v + 1, n",
        "INSERT INTO {} (k, v) VALUES (1, 0), (24, 4) ON CONFLICT (k) DO UPDATE SET v = {}.v + excluded.v + 100 RETURNING k, v",
        "INSERT INTO {} (k, v) SELECT k, v FROM {} WHERE k < 5 ON CONFLICT DO NOTHING",
        "INSERT INTO {} (k, v) SELECT k + 1000, (SELECT count(*) FROM {} x WHERE x.k <= y.k) FROM {} y WHERE k <= 20 RETURNING k, v",
        "UPDATE {} SET v = v + 1 WHERE k = 7 RETURNING *",
        "DELETE FROM {} WHERE k IN (7) RETURNING k",
        "SELECT k, v FROM {} ORDER BY k",
    ] {
        let mut answers = ["l", "t"].map(|table| cluster.sql(&statement.replace("{}", table)));
        answers.iter_mut().for_each(|rows| rows.sort());
        assert_eq!(answers[0], answers[1], "{statement}");
    }
    let error = cluster.error("INSERT INTO t (k, v) VALUES (500, 1), (501, 1), (1, 1)");
    assert_eq!((error.sqlstate.as_str(), error.constraint.as_str()), ("23505", "t_pkey"));
    assert_eq!(cluster.text("SELECT count(*) FROM t WHERE k IN (500, 501)"), "0");
    assert_eq!(cluster.unhealthy("t"), 0);
    cluster.assert_placements_equal("t");
}
