//! What is printed: the only place that writes to standard output.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this module is for"
)]

use std::path::Path;

use cluster::{
    Cluster, ClusterError, Doing, NodeName, Overview, PlacementCounts, Report, Severity, Shards,
    Status, Step,
};
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// An error, for a person.
pub(crate) fn error(error: &ClusterError) {
    eprintln!("pgshard: {error}");
}

/// One line a node, and how to get in.
pub(crate) fn cluster_is_up(cluster: &Cluster) {
    for node in cluster.nodes() {
        println!(
            "{node:<12} 127.0.0.1:{}  log {}",
            cluster.port(node),
            cluster.log_path(node).display()
        );
    }
    println!("{}", cluster.psql_line(NodeName::Coordinator));
}

/// What became of a node.
pub(crate) fn node_is_now(node: NodeName, now: &str) {
    println!("{node} {now}");
}

/// That there is nothing left.
pub(crate) fn cluster_is_down(dir: &Path) {
    println!("cluster in {} removed", dir.display());
}

/// The whole status, for a person or for a program.
pub(crate) fn status(status: &Status, json: bool) {
    if json {
        as_json(status);
    } else {
        print!("{}", status_as_text(status));
    }
}

fn as_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value);
    println!("{}", text.expect("names, numbers and paths that came from text"));
}

/// How a cluster is that was set up by hand.
pub(crate) fn overview(overview: &Overview, json: bool) {
    if json {
        as_json(overview);
        return;
    }
    let mut nodes = table(&["node", "state", "health", "placements", "inactive"]);
    for node in &overview.nodes {
        let (placements, inactive) = (node.placements.to_string(), node.inactive.to_string());
        nodes.add_row([&node.node, &node.state, &node.health, &placements, &inactive]);
    }
    align_numbers(&mut nodes, 3);
    println!("{nodes}");
    let mut tables = table(&["table", "distributed by", "shards", "placements", "MB"]);
    for entry in &overview.tables {
        tables.add_row([
            entry.table.clone(),
            entry.distribution_column.clone(),
            entry.shards.to_string(),
            entry.placements.to_string(),
            megabytes(entry.bytes),
        ]);
    }
    align_numbers(&mut tables, 2);
    println!("\n{tables}");
    if overview.in_doubt > 0 {
        println!("\n{} transactions are in doubt: see pgs_catalog.in_doubt", overview.in_doubt);
    }
    if !overview.relocations.is_empty() {
        println!();
        activity(&overview.relocations, false);
    }
}

fn megabytes(bytes: Option<i64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
}

/// What sessions have under way.
pub(crate) fn activity(doing: &[Doing], json: bool) {
    if json {
        as_json(&doing);
        return;
    }
    let mut all = table(&["pid", "user", "what", "waits for", "MB", "seconds", "statement"]);
    for one in doing {
        all.add_row([
            one.pid.to_string(),
            one.user.clone(),
            one.what.clone(),
            one.waiting_for.join(", "),
            megabytes(Some(one.bytes)),
            one.seconds.to_string(),
            one.statement.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect(),
        ]);
    }
    println!("{all}");
}

/// Repairs or moves: what has been done, or would be.
pub(crate) fn steps(steps: &[Step], is_plan: bool, json: bool) {
    if json {
        as_json(&steps);
        return;
    }
    if steps.is_empty() {
        println!("nothing to do");
        return;
    }
    let mut all = table(&["shard", "table", "from", "to", "MB"]);
    for step in steps {
        all.add_row([
            step.shard.to_string(),
            step.table.clone(),
            step.source.clone(),
            step.target.clone(),
            megabytes(step.bytes),
        ]);
    }
    println!("{all}\n\n{} {}", steps.len(), if is_plan { "to do" } else { "done" });
}

/// How far steps are, on standard error if that is a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of these steps nothing is done.
    pub(crate) fn of(steps: &[Step]) -> Self {
        let bar = ProgressBar::new(steps.len() as u64);
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} ({eta} left)");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// One more is done.
    pub(crate) fn is_done(&self, step: &Step) {
        self.0.set_message(format!("shard {} of table {}", step.shard, step.table));
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What was found in a cluster, for a person or for a program.
pub(crate) fn report(report: &Report, json: bool) {
    if json {
        as_json(report);
        return;
    }
    let mut nodes = table(&["node", "state", "version", "MB", "placements", "inactive"]);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for node in &report.nodes {
        nodes.add_row([
            node.node.clone(),
            node.state.clone(),
            or_none(node.version.clone()),
            or_none(node.bytes.map(|bytes| (bytes / 1_000_000).to_string())),
            node.placements.to_string(),
            node.inactive.to_string(),
        ]);
    }
    println!("{nodes}");
    for finding in &report.findings {
        let word = if finding.severity == Severity::Error { "error" } else { "warning" };
        println!("\n{word}: {}: {}\n    {}", finding.node, finding.what, finding.mend);
    }
    if report.findings.is_empty() {
        println!("\nnothing is wrong");
    }
}

fn status_as_text(status: &Status) -> String {
    let mut text = format!("{}\n", node_table(status));
    match &status.shards {
        Shards::Unknown { reason } => text.push_str(&format!("\nshards unknown: {reason}\n")),
        Shards::Known(counts) => {
            if !counts.tables.is_empty() {
                let mut table = table(&["table", "shards", "healthy", "inactive", "other"]);
                for entry in &counts.tables {
                    let mut row = vec![entry.table.clone(), entry.shards.to_string()];
                    row.extend(placement_cells(Some(&entry.placements)));
                    table.add_row(row);
                }
                align_numbers(&mut table, 1);
                text.push_str(&format!("\n{table}\n"));
            }
            text.push_str(&format!(
                "\n{} shards ({} degraded, {} unreadable), {} placements\n",
                counts.shards,
                counts.degraded_shards,
                counts.unreadable_shards,
                counts.placements.total(),
            ));
            if counts.elsewhere.total() > 0 {
                text.push_str(&format!(
                    "{} placements are on nodes of other clusters\n",
                    counts.elsewhere.total()
                ));
            }
        }
    }
    text
}

fn node_table(status: &Status) -> Table {
    let mut table = table(&["node", "address", "state", "process", "healthy", "inactive", "other"]);
    for node in &status.nodes {
        let mut row = vec![
            node.node.to_string(),
            format!("{}:{}", node.host, node.port),
            node.state.to_string(),
            node.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ];
        row.extend(placement_cells(node.placements.as_ref()));
        table.add_row(row);
    }
    align_numbers(&mut table, 3);
    table
}

/// Healthy, inactive and other; nothing where nothing is known.
fn placement_cells(placements: Option<&PlacementCounts>) -> [String; 3] {
    let cell = |count: fn(&PlacementCounts) -> i64| {
        placements.map(|counts| count(counts).to_string()).unwrap_or_default()
    };
    [cell(|counts| counts.healthy), cell(|counts| counts.inactive), cell(|counts| counts.other)]
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_NO_BORDERS)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections)
        .set_style(TableComponent::HeaderLines, '-')
        .set_style(TableComponent::MiddleHeaderIntersections, '+')
        .set_header(header);
    table
}

/// Aligns the columns from `first` on to the right.
fn align_numbers(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::{NodeState, NodeStatus, ShardCounts, TableStatus};

    fn status_with(shards: Shards, placements: Option<PlacementCounts>) -> Status {
        Status {
            dir: "/tmp/shop".into(),
            nodes: vec![
                NodeStatus {
                    node: NodeName::Coordinator,
                    host: "127.0.0.1".to_owned(),
                    port: 6000,
                    state: NodeState::Down,
                    pid: None,
                    placements: None,
                },
                NodeStatus {
                    node: NodeName::Worker(1),
                    host: "localhost".to_owned(),
                    port: 6001,
                    state: NodeState::Paused,
                    pid: Some(4711),
                    placements,
                },
            ],
            shards,
        }
    }

    #[test]
    fn a_table_shows_the_nodes_and_says_why_the_shards_are_unknown() {
        let status =
            status_with(Shards::Unknown { reason: "the coordinator is down".to_owned() }, None);
        let text = status_as_text(&status);
        assert!(text.contains("localhost:6001 | paused |    4711"), "{text}");
        assert!(text.ends_with("\nshards unknown: the coordinator is down\n"), "{text}");
    }

    #[test]
    fn a_table_shows_placements_by_node_and_by_table() {
        let placements = PlacementCounts { healthy: 13, inactive: 3, other: 0 };
        let counts = ShardCounts {
            shards: 16,
            degraded_shards: 3,
            placements,
            tables: vec![TableStatus { table: "orders".to_owned(), shards: 16, placements }],
            ..ShardCounts::default()
        };
        let text = status_as_text(&status_with(Shards::Known(counts), Some(placements)));
        assert!(text.contains("4711 |      13 |        3 |     0"), "{text}");
        assert!(text.contains("orders |     16 |      13 |        3 |     0"), "{text}");
        assert!(
            text.ends_with("\n16 shards (3 degraded, 0 unreadable), 16 placements\n"),
            "{text}"
        );
    }

    #[test]
    fn a_program_finds_the_state_of_a_node_by_its_name() {
        let status =
            status_with(Shards::Unknown { reason: "the coordinator is down".to_owned() }, None);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["nodes"][1]["node"], "worker1");
        assert_eq!(json["nodes"][1]["state"], "paused");
        assert_eq!(json["shards"]["unknown"]["reason"], "the coordinator is down");
    }
}
