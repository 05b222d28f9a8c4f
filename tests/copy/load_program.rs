//! The program `copy_to_distributed_table`: the options of 1.2, its exit statuses, and all or nothing.

use crate::COORDINATOR;
use std::fs;
use std::process::Command;
use testkit::TestCluster;

/// What a run of the program leaves.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    output: String,
    errors: String,
}

/// Runs the program with the connection in its environment; `file` stands in the arguments for a file with `rows`.
fn load(cluster: &TestCluster, arguments: &[&str], rows: &[u8]) -> Run {
    let file = cluster.dir().join("it's a \"file\"");
    fs::write(&file, rows).expect("the cluster's directory is ours");
    let path = file.display().to_string();
    let output = Command::new(cluster.bin("copy_to_distributed_table"))
        .args(arguments.iter().map(|argument| if *argument == "file" { &path } else { *argument }))
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", cluster.port(COORDINATOR).to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .output()
        .expect("the installation has the program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { status: output.status.code(), output: text(output.stdout), errors: text(output.stderr) }
}

#[track_caller]
fn assert_loads(cluster: &TestCluster, arguments: &[&str], rows: &[u8], answer: &str) {
    let run = load(cluster, arguments, rows);
    assert_eq!(
        (run.status, run.output.as_str(), run.errors.as_str()),
        (Some(0), answer, ""),
        "{arguments:?}"
    );
}

#[test]
fn the_program_loads_files_of_every_format_and_prints_how_many_rows_there_were() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int, s text)", "t", "k", 4, 2);
    let all = "SELECT * FROM t ORDER BY k";
    let rows = |expected: &str| {
        assert_eq!(cluster.text(all), expected);
        cluster.sql("DELETE FROM t");
    };

    assert_loads(&cluster, &["file", "t"], b"1\tone\n2\t\\N\n3\ta\\tb\n", "3\n");
    rows("1|one\n2|NULL\n3|a\tb");
    assert_loads(&cluster, &["-d", "'", "-n", "\\-", "file", "t"], b"1'one\n2'\\-\n", "2\n");
    rows("1|one\n2|NULL");
    assert_loads(&cluster, &["-CH", "file", "t"], b"k,s\n1,\"a,\"\"b\"\n2,\n3,\"\"\n", "3\n");
    rows("1|a,\"b\n2|NULL\n3|");
    let csv = ["-B", "-T", "-C", "-H", "-d", ";", "-n", "none", "-q", "'", "-e", "\\", "file", "t"];
    assert_loads(&cluster, &csv, b"k;s\n1;'a;\\'b'\n2;none\n3;'none'\n", "3\n");
    rows("1|a;'b\n2|NULL\n3|none");
    assert_loads(&cluster, &["-c", "latin1", "file", "t"], b"1\tgr\xfcn\n", "1\n");
    rows("1|gr\u{fc}n");

    let binary = cluster.data_dir(COORDINATOR).join("rows.binary");
    cluster.sql(&format!(
        "COPY (SELECT i, 'row ' || i FROM generate_series(1, 1000) i) TO '{}' (FORMAT binary)",
        binary.display()
    ));
    let binary = fs::read(binary).expect("the server wrote it");
    assert_loads(&cluster, &["-B", "file", "t"], &binary, "1000\n");
    assert_eq!(cluster.text("SELECT count(*), sum(k), max(s) FROM t"), "1000|500500|row 999");
    cluster.assert_placements_equal("t");
}

#[test]
fn the_program_takes_names_as_they_are() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE SCHEMA \"Sch'e\"\"ma\"");
    let table = "\"Sch'e\"\"ma\".\"A \\Table\"";
    cluster.sql(&format!("CREATE TABLE {table} (k int)"));
    cluster.distribute(&table.replace('\'', "''"), "k", 4, 1);
    assert_loads(&cluster, &["-s", "Sch'e\"ma", "file", "A \\Table"], b"1\n2\n", "2\n");
    assert_eq!(cluster.text(&format!("SELECT count(*) FROM {table}")), "2");
}

#[test]
fn the_program_stores_nothing_of_a_file_with_a_bad_line_and_ends_with_an_error() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, s text)", "t", "k", 4, 2);
    let run = load(&cluster, &["-C", "file", "t"], b"1,one\n2,two\nthree,3\n");
    assert_eq!((run.status, run.output.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.errors.contains("invalid input syntax for type integer: \"three\""), "{run:?}");
    assert!(run.errors.contains("COPY t, line 3"), "{run:?}");

    let run = load(&cluster, &["file", "t"], b"1\tone\n2\ttwo\n1\tagain\n");
    assert_eq!((run.status, run.output.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.errors.contains("\"t_pkey\""), "{run:?}");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "0");
    assert_eq!(cluster.unhealthy("t"), 0);

    let run = load(&cluster, &["file", "nowhere"], b"1\n");
    assert_eq!((run.status, run.output.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.errors.contains("relation \"public.nowhere\" does not exist"), "{run:?}");
}

#[test]
fn the_program_ends_with_the_statuses_of_1_2_when_it_is_called_wrongly() {
    let cluster = TestCluster::up(1);
    let usage = "Usage: copy_to_distributed_table [-BCTHh]";
    let run = load(&cluster, &["-h"], b"");
    assert_eq!((run.status, run.errors.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.output.starts_with(usage) && run.output.contains("(\\N; in CSV"), "{run:?}");

    for (arguments, letter) in
        [(&["-x", "file", "t"] as &[&str], "x"), (&["-d"], "d"), (&["-C", "-n"], "n")]
    {
        let run = load(&cluster, arguments, b"");
        assert_eq!((run.status, run.output.as_str()), (Some(64), ""), "{run:?}");
        let message = format!("copy_to_distributed_table: illegal option -- {letter}\n{usage}");
        assert!(run.errors.starts_with(&message), "{run:?}");
    }
    for arguments in [&[] as &[&str], &["file"], &["file", "t", "u"]] {
        let run = load(&cluster, arguments, b"");
        assert_eq!((run.status, run.output.as_str()), (Some(64), ""), "{run:?}");
        assert!(run.errors.starts_with(usage), "{run:?}");
    }
    for (file, reason) in [("/", "Is a directory"), ("/no/such", "No such file")] {
        let run = load(&cluster, &[file, "t"], b"");
        let message = format!("copy_to_distributed_table: {file}: {reason}\n");
        assert_eq!((run.status, run.output, run.errors), (Some(66), String::new(), message));
    }
}
