//! pgbench and psql of the private installation.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use cluster::NodeName;

use crate::test_cluster::TestCluster;

/// A pgbench script and its weight among others.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// How often it is chosen, compared with the others.
    pub weight: u32,
    /// What it does.
    pub text: &'a str,
}

/// A pgbench that runs.
pub struct Pgbench {
    child: Child,
    dir: PathBuf,
}

/// What pgbench reported at its end.
#[derive(Debug)]
pub struct PgbenchReport {
    /// Whether it ended well, with no client aborted.
    pub succeeded: bool,
    /// Transactions that were acknowledged, of all scripts.
    pub transactions: u64,
    /// Transactions of each script, in the scripts' order.
    pub of_script: Vec<u64>,
    /// Everything it printed to standard output.
    pub output: String,
    /// Everything it printed to standard error: progress, warnings, errors.
    pub errors: String,
}

impl TestCluster {
    /// Starts pgbench on the coordinator; `mode` is simple, extended or prepared, `more` are further arguments.
    pub fn pgbench(&self, mode: &str, scripts: &[Script<'_>], more: &[&str]) -> Pgbench {
        let dir = self.dir().join(format!("pgbench-{mode}-{}", unique()));
        fs::create_dir(&dir).expect("the cluster's directory is ours");
        let mut command = Command::new(self.bin("pgbench"));
        command.args(["-n", "-r", "-h", "127.0.0.1", "-U", "postgres", "-M", mode]);
        command.args(["-p", &self.port(NodeName::Coordinator).to_string()]).args(more);
        for (number, script) in scripts.iter().enumerate() {
            let file = dir.join(format!("{number}.sql"));
            fs::write(&file, script.text).expect("the directory was just made");
            command.arg("-f").arg(format!("{}@{}", file.display(), script.weight));
        }
        let output =
            |name: &str| fs::File::create(dir.join(name)).expect("the directory was just made");
        command
            .stdin(Stdio::null())
            .stdout(output("output"))
            .stderr(output("errors"))
            .arg("postgres");
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Pgbench { child, dir }
    }

    /// A client program of the private installation, or that of the system if it does not run: psql of one wheel of PostgreSQL 17
    /// crashes at once.
    fn client(&self, name: &str) -> PathBuf {
        let own = self.bin(name);
        let runs = Command::new(&own).arg("--version").output();
        if runs.is_ok_and(|output| output.status.success()) { own } else { name.into() }
    }

    /// Runs psql on a node with `input` as its standard input.
    pub fn psql(&self, node: NodeName, arguments: &[&str], input: &str) -> Output {
        self.program("psql", node, &[&["-X", "-v", "ON_ERROR_STOP=1"], arguments].concat(), input)
    }

    /// Runs a client program of the private installation on a node.
    pub fn program(&self, name: &str, node: NodeName, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(self.client(name));
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port(node).to_string(),
            "-U",
            "postgres",
            "-d",
            "postgres",
        ]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("it was piped");
        let input = input.to_owned();
        // A program that gave up does not read on; its exit status says so.
        let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().expect("a child can be waited for");
        writer.join().expect("the writer does not panic");
        output
    }
}

impl Pgbench {
    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Ends it before its time.
    pub fn stop(mut self) -> PgbenchReport {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> PgbenchReport {
        let status = self.child.wait().expect("a child can be waited for");
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let output = read("output");
        PgbenchReport {
            succeeded: status.success(),
            transactions: numbers_after(&output, "number of transactions actually processed: ")
                .iter()
                .sum(),
            of_script: numbers_after(&output, " - "),
            errors: read("errors"),
            output,
        }
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        // A test that failed leaves no pgbench behind; one that has ended is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers that follow `label` at the start of lines; of script lines only those that count transactions.
fn numbers_after(output: &str, label: &str) -> Vec<u64> {
    let lines = output.lines().filter_map(|line| line.strip_prefix(label));
    let counts = lines.filter(|rest| label != " - " || rest.contains(" transactions ("));
    counts
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

/// A number that no other call in this process gets.
fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_read_from_the_total_and_from_each_script() {
        let output = "number of transactions actually processed: 30/40\nSQL script 1: 0.sql\n - weight: 1\n - 10 transactions (33.3% of total, tps = 1.0)\nSQL script 2: 1.sql\n - 20 transactions (66.7% of total, tps = 2.0)\n - latency average = 3.8 ms\n";
        assert_eq!(numbers_after(output, "number of transactions actually processed: "), [30]);
        assert_eq!(numbers_after(output, " - "), [10, 20]);
    }
}
