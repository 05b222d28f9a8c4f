//! COPY FROM of whatever bytes: the rows of a distributed table are those of a plain one, and so is the error.

use crate::COORDINATOR;
use std::fs;
use testkit::TestCluster;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

/// Options, and what data are made of under them.
const KINDS: [(&str, &[&str]); 8] = [
    ("", &["a", "b\t", "\t", "\\N", "\\\\", "\\t", "\\n", "\\x41", "\\101", "ä", "\n", "\n", "1"]),
    ("DELIMITER '|', NULL 'x'", &["a", "|", "x", "\\|", "\\x", "\\", "\n", "\n", "\t", "€"]),
    ("", &["a", "\t", "b", "\r\n", "\r\n", "\\r", "\\.", "\\\n"]),
    ("FORMAT csv", &["a", ",", "\"", "\"\"", "\"b\"", ",", "\n", "\n", "\\", "\\.", "é"]),
    ("FORMAT csv, HEADER", &["a", ",", "\"x\ny\"", "\"x\r\ny\"", "\n", "\n", "b"]),
    (
        "FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER ';', NULL 'n', FORCE_NULL (k, v)",
        &["a", ";", "'", "\\'", "\\\\", "'n'", "n", "\n", "\n", "''"],
    ),
    ("FORMAT csv, FORCE_NOT_NULL (k, v)", &["a", ",", "\"\"", "\"", "\n", "\n", ",b"]),
    ("ENCODING 'latin1'", &["a", "\t", "\u{e4}", "\\344", "\\303\\244", "\n", "\n"]),
];

#[test]
fn whatever_is_in_the_data_a_distributed_table_takes_it_as_a_plain_one() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE plain (k text, v text)");
    cluster.create_distributed("CREATE TABLE sharded (k text, v text)", "sharded", "k", 4, 1);
    let mut dice = Dice(7);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..400 {
        let (options, parts) = KINDS[round % KINDS.len()];
        let mut data = String::new();
        if round % 2 == 0 {
            // Mostly good lines of two columns, so that not all of them are refused.
            let delimiter = if options.contains("'|'") {
                "|"
            } else if options.contains("';'") {
                ";"
            } else if options.contains("csv") {
                ","
            } else {
                "\t"
            };
            let end = if round % KINDS.len() == 2 { "\r\n" } else { "\n" };
            for line in 0..1 + dice.roll(6) {
                let mut odd = String::new();
                for _ in 0..dice.roll(3) {
                    let part = dice.pick(parts);
                    if !part.contains(delimiter) && !part.contains('\n') {
                        odd.push_str(part);
                    }
                }
                data.push_str(&format!("k{line}{odd}{delimiter}{odd}v{end}"));
            }
        } else {
            for _ in 0..dice.roll(12) {
                data.push_str(dice.pick(parts));
            }
        }
        let file = cluster.data_dir(COORDINATOR).join("data.copy");
        let bytes: Vec<u8> = if options.contains("latin1") {
            data.chars().map(|letter| u8::try_from(u32::from(letter)).expect("latin 1")).collect()
        } else {
            data.clone().into_bytes()
        };
        fs::write(&file, bytes).expect("the coordinator's directory can be written");
        let copy = |table: &str| {
            let with =
                if options.is_empty() { String::new() } else { format!(" WITH ({options})") };
            let text = format!("COPY {table} FROM '{}'{with}", file.display());
            let outcome = cluster.session().try_sql(&text);
            let rows = cluster.sql(&format!("SELECT k, v FROM {table} ORDER BY 1, 2"));
            cluster.sql(&format!("TRUNCATE {table}"));
            (outcome, rows)
        };
        let (plain, plain_rows) = copy("plain");
        let (sharded, sharded_rows) = copy("sharded");
        let has_null_key = plain_rows.iter().any(|row| row[0] == "NULL");
        match (plain, sharded) {
            (Ok(_), Err(error)) if has_null_key => {
                assert_eq!(error.sqlstate, "22004", "{options}: {data:?}: {error}");
                refused += 1;
            }
            (Ok(_), Ok(_)) => {
                assert_eq!(plain_rows, sharded_rows, "{options}: {data:?}");
                taken += 1;
            }
            (Err(_), Err(error)) => {
                assert!(sharded_rows.is_empty(), "{options}: {data:?}");
                assert!(error.context.contains("COPY sharded, line "), "{data:?}: {error}");
                refused += 1;
            }
            (plain, sharded) => panic!("{options}: {data:?}: {plain:?}, but {sharded:?}"),
        }
    }
    assert!(taken > 100 && refused > 50, "{taken} taken, {refused} refused");
}

/// PostgreSQL 18 takes `\.` in CSV for data, and refuses it behind data of a text line; we ended the data there, and dropped the
/// rest.
#[test]
fn the_end_of_copy_marker_is_what_it_is_for_a_plain_table() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE plain (k text, n int)");
    cluster.create_distributed("CREATE TABLE sharded (k text, n int)", "sharded", "k", 3, 1);
    // Before 18 PostgreSQL reads on in a file behind a marker that ends a line of data.
    let behind_data = (!cluster.is_older_than(18)).then_some(("(FORMAT text)", "a\t1\\.\nb\t2\n"));
    for (options, data) in [
        ("(FORMAT text)", "a\t1\n\\.\nb\t2\n"),
        ("(FORMAT text)", "a\t1\r\n\\.\r\nb\t2\r\n"),
        ("(FORMAT csv, FORCE_NULL (n))", "a,1\n\\.\nb,2\n"),
        ("(FORMAT csv)", "a,1\n\\.,2\nb\\.,3\n"),
    ]
    .into_iter()
    .chain(behind_data)
    {
        let file = cluster.data_dir(COORDINATOR).join("marker.copy");
        fs::write(&file, data).expect("the coordinator's directory can be written");
        let copy = |table: &str| {
            let text = format!("COPY {table} FROM '{}' WITH {options}", file.display());
            let outcome = cluster.session().try_sql(&text).map_err(|error| error.line());
            let rows = cluster.sql(&format!("SELECT k, n FROM {table} ORDER BY 1, 2"));
            cluster.sql(&format!("TRUNCATE {table}"));
            (outcome, rows)
        };
        assert_eq!(copy("sharded"), copy("plain"), "{options} {data:?}");
    }
}

#[test]
fn an_error_in_the_data_is_told_as_of_a_plain_table() {
    let cluster = TestCluster::up(2);
    let columns = "(k int, n int CHECK (n < 100), d date, PRIMARY KEY (k))";
    cluster.sql(&format!("CREATE TABLE plain {columns}"));
    cluster.create_distributed(&format!("CREATE TABLE sharded {columns}"), "sharded", "k", 3, 1);
    let good = "1\t1\t2020-01-01\n2\t\\N\t\\N\n";
    for (options, data) in [
        ("", format!("{good}x\t1\t2020-01-01\n")),
        ("", format!("{good}3\tmany\t2020-01-01\n")),
        ("", format!("{good}3\t1\t2020-02-30\n")),
        ("", format!("{good}3\t1\n")),
        ("", format!("{good}\n")),
        ("", format!("{good}3\t1\t\\N\t4\n")),
        ("", format!("{good}3\t100\t\\N\n")),
        ("", format!("{good}3\t7\t\\N\r4\t7\t\\N\n")),
        ("", format!("{good}3\t7\t\\N\\.x\n")),
        ("", format!("{good}2\t7\t\\N\n")),
        ("", format!("{good}3\t\\377\t\\N\n")),
        ("FORMAT csv", "1,\"1\n\",\n\n".to_owned()),
        ("FORMAT csv, HEADER", "k,n,d\n1,1,\n\"2\",\"2\",\"\n\n\"\n".to_owned()),
        ("FORMAT csv", "1,1,\n2,\"2,\n3,3,\n".to_owned()),
        ("FORMAT csv, HEADER match", "k,n,e\n1,1,\n".to_owned()),
    ] {
        let file = cluster.data_dir(COORDINATOR).join("bad.copy");
        fs::write(&file, &data).expect("the coordinator's directory can be written");
        let error = |table: &str| {
            let with =
                if options.is_empty() { String::new() } else { format!(" WITH ({options})") };
            let error = cluster.error(&format!("COPY {table} FROM '{}'{with}", file.display()));
            let told = [error.line(), error.detail, error.hint, error.constraint, error.context];
            told.map(|text| text.replace(table, "t"))
        };
        let (plain, mut sharded) = (error("plain"), error("sharded"));
        // Where a worker has found it, that is told too.
        let (context, node) =
            sharded[4].split_once("\nwhile executing on node ").unwrap_or((&sharded[4], ""));
        assert!(node.is_empty() || node.contains("localhost"), "{data:?}: {node}");
        sharded[4] = context.to_owned();
        assert_eq!(sharded, plain, "{options}: {data:?}");
    }
    assert_eq!(cluster.text("SELECT count(*) FROM sharded"), "0");
}

#[test]
fn a_session_s_settings_decide_what_the_data_mean() {
    let cluster = TestCluster::up(2);
    let columns = "(k int, d date, t timestamptz, i interval, a int[])";
    cluster.sql(&format!("CREATE TABLE plain {columns}"));
    cluster.create_distributed(&format!("CREATE TABLE sharded {columns}"), "sharded", "k", 3, 2);
    let file = cluster.data_dir(COORDINATOR).join("settings.copy");
    fs::write(
        &file,
        "1\t01/02/2020\t01/02/2020 10:00\t-1 02:03:04\t{1,NULL}\n2\ttoday\tnow\t1 day\t{}\n3\t\\x74oday\tNow\t\\N\t{2}\n",
    )
    .expect("the coordinator's directory can be written");
    for settings in [
        "SET DateStyle = 'ISO, DMY'",
        "SET DateStyle = 'SQL, MDY'; SET TimeZone = 'Asia/Tokyo'",
        "SET IntervalStyle = 'sql_standard'",
        "SET TimeZone = 'America/New_York'; SET IntervalStyle = 'postgres'",
    ] {
        // Settings are changed in the middle of a transaction that has written already.
        cluster.sql("BEGIN; INSERT INTO sharded VALUES (0), (1), (2), (3)");
        cluster.sql(settings);
        for table in ["plain", "sharded"] {
            cluster.sql(&format!("COPY {table} FROM '{}'", file.display()));
        }
        cluster.sql("DELETE FROM sharded WHERE d IS NULL; COMMIT");
        let rows = |table: &str| cluster.sql(&format!("SELECT * FROM {table} ORDER BY k"));
        assert_eq!(rows("plain"), rows("sharded"), "{settings}");
        cluster.assert_placements_equal("sharded");
        cluster.sql("TRUNCATE plain; TRUNCATE sharded");
    }
    assert_eq!(cluster.unhealthy("sharded"), 0);
}
