//! The tutorials of the book, played as they are written.
//!
//! A block of SQL goes through psql. The block of output behind it, if there is one, has to come: its lines are looked
//! for in psql's, with any number of blanks and with this cluster's ports for 6001 to 6004. So have a number or a command tag
//! in a comment behind a statement (`-- 26`), and an error that a comment tells (`-- ERROR:  ...`). Of shell
//! blocks those lines count that kill and start workers and run pgbench.

use testkit::{NodeName, Script, TestCluster, wait_until};

/// What `-f` names in the shell blocks, as the tutorial writes it there.
const PGBENCH_SCRIPT: &str =
    "\\set id random(1, 1000000)\ninsert into customer_reviews values (:id);\n";

/// A fenced block: its language and its text.
struct Block<'a> {
    language: &'a str,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .map(|(language, text)| Block { language: language.trim(), text })
        .collect()
}

/// Words of a line with one blank between them.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `text` with the ports that the cluster's workers really have.
fn with_ports(cluster: &TestCluster, text: &str) -> String {
    // In two steps: a port of this cluster may look like one of the page.
    let marked = (1..=4).fold(text.to_owned(), |text, worker| {
        text.replace(&format!("600{worker}"), &format!("<{worker}>"))
    });
    (1..=4).fold(marked, |text, worker| {
        let port = cluster.port(NodeName::Worker(worker)).to_string();
        text.replace(&format!("<{worker}>"), &port)
    })
}

/// What comments behind statements say: numbers, command tags, errors.
fn promised(sql: &str) -> Vec<String> {
    let comments =
        sql.lines().filter_map(|line| line.split_once("-- ")).map(|(_, comment)| comment);
    comments
        .map(|comment| comment.split(',').next().unwrap_or_default())
        .filter(|comment| {
            comment.starts_with(|first: char| first.is_ascii_digit())
                || comment.starts_with("UPDATE ")
                || comment.starts_with("ERROR: ")
        })
        .map(words)
        .collect()
}

fn play_sql(cluster: &TestCluster, sql: &str, output: Option<&str>) {
    // A statement that fails does not end the block: whether it may fail is told in the block.
    let arguments = ["-v", "ON_ERROR_STOP=0"];
    let answer = cluster.psql(NodeName::Coordinator, &arguments, sql);
    let printed = String::from_utf8_lossy(&answer.stdout).into_owned();
    let errors = String::from_utf8_lossy(&answer.stderr).into_owned();
    let lines: Vec<String> = printed.lines().map(words).collect();
    for error in errors.lines().filter_map(|line| line.find("ERROR: ").map(|at| &line[at..])) {
        assert!(promised(sql).contains(&words(error)), "{sql}\n{errors}");
    }
    for told in promised(sql) {
        let is_error = errors.lines().any(|line| words(line).ends_with(&told));
        assert!(
            lines.contains(&told) || is_error,
            "{told} is promised:\n{sql}\n{printed}\n{errors}"
        );
    }
    for line in output.unwrap_or_default().lines().map(words) {
        let is_ruler = line.trim_matches(['-', '+']).is_empty();
        let line = with_ports(cluster, &line);
        assert!(
            is_ruler || lines.contains(&line),
            "{line} is promised:\n{sql}\n{printed}\n{errors}"
        );
    }
}

fn play_shell(cluster: &TestCluster, line: &str) {
    let worker = |name: &str| {
        let number = name.strip_prefix("worker").and_then(|number| number.parse().ok());
        NodeName::Worker(number.expect("tutorials kill and start workers"))
    };
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["target/release/pgshard", "kill", node, ..] => {
            cluster.kill(worker(node)).expect("it is up")
        }
        ["target/release/pgshard", "start", node, ..] => {
            cluster.start(worker(node)).expect("it is down");
        }
        ["pgbench", ..] => {
            let mode = if line.contains("-M prepared") { "prepared" } else { "simple" };
            let script = Script { weight: 1, text: PGBENCH_SCRIPT };
            let report = cluster.pgbench(mode, &[script], &["-c", "8", "-t", "100"]).finish();
            assert!(report.succeeded, "{report:#?}");
        }
        _ => {}
    }
}

fn play(page: &str) {
    let file = format!("{}/../../docs/tutorial/{page}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(file).expect("the book has this page");
    let cluster = TestCluster::up_with(4, &[("pg_shard.repair_naptime", "1s")]);
    let blocks = blocks(&page);
    for (number, block) in blocks.iter().enumerate() {
        let output = blocks.get(number + 1).filter(|next| next.language.is_empty());
        match block.language {
            "sql" => play_sql(&cluster, block.text, output.map(|block| block.text)),
            "sh" => block.text.lines().for_each(|line| play_shell(&cluster, line)),
            _ => {}
        }
    }
    wait_until("all placements are healthy", || {
        cluster.text(
            "SELECT count(*) FROM pgs_distribution_metadata.shard_placement WHERE shard_state <> 1",
        ) == "0"
    });
}

#[test]
fn the_first_tables_tutorial_is_true() {
    play("first-table.md");
}

#[test]
fn the_session_of_2016_is_true() {
    play("the-2016-session.md");
}
