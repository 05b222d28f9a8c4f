//! psql that is fed unit by unit, so that each unit's answer is known.
//!
//! After each unit psql echoes a mark to both of its outputs; what came before belongs to the unit. psql flushes after
//! each of its own commands.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cluster::{Cluster, NodeName};

use super::source::Source;
use crate::psql;

/// How long a unit may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the mark begins with.
const MARK: &str = "@@end of unit ";

/// What psql printed for a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Rows and command tags.
    pub(crate) output: Vec<String>,
    /// Errors, notices, and what stands below them.
    pub(crate) messages: Vec<String>,
    /// Whether psql came to the end.
    pub(crate) ending: Ending,
}

/// How a unit ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In good order.
    #[default]
    Complete,
    /// No answer came, and it was cancelled.
    Hanging,
    /// psql ended, as it does when the server closes the connection.
    Lost,
}

/// A running psql.
pub(crate) struct Terminal {
    child: Child,
    stdin: ChildStdin,
    output: Receiver<String>,
    messages: Receiver<String>,
    units: u64,
}

impl Terminal {
    /// psql on the coordinator, with the environment that PostgreSQL's tests expect.
    pub(crate) fn open(cluster: &Cluster, database: &str, source: &Source) -> Result<Self> {
        let mut command = Command::new(cluster.bin("psql"));
        for name in psql::postgres_variables() {
            command.env_remove(name);
        }
        let mut child = command
            .args(["--no-psqlrc", "--host=127.0.0.1", "--username=postgres", "--pset=pager=off"])
            .args(["--set=HIDE_TABLEAM=on", "--set=HIDE_TOAST_COMPRESSION=on"])
            .arg(format!("--port={}", cluster.port(NodeName::Coordinator)))
            .arg(format!("--dbname={database}"))
            .env("PG_ABS_SRCDIR", source.regress())
            .env("PG_LIBDIR", "/nonexistent")
            .env("PG_DLSUFFIX", ".so")
            .env("PGTZ", "America/Los_Angeles")
            .env("PGDATESTYLE", "Postgres, MDY")
            .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Self {
            stdin: stdin.context("psql has no standard input")?,
            output: lines_of(stdout.context("psql has no standard output")?),
            messages: lines_of(stderr.context("psql has no standard error")?),
            child,
            units: 0,
        })
    }

    /// Runs a unit. `cancel` is called when it seems to hang.
    pub(crate) fn run(&mut self, text: &str, cancel: impl FnOnce()) -> Answer {
        self.units += 1;
        let mark = format!("{MARK}{}", self.units);
        let script = format!(
            "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT never\n{text}\n\\echo '{mark}'\n\\warn '{mark}'\n"
        );
        let mut answer = Answer::default();
        if self.stdin.write_all(script.as_bytes()).and_then(|()| self.stdin.flush()).is_err() {
            answer.ending = Ending::Lost;
        }
        let mut deadline = Instant::now() + PATIENCE;
        answer.ending = match collect(&self.output, &mark, deadline, &mut answer.output) {
            Ending::Hanging => {
                cancel();
                deadline = Instant::now() + PATIENCE;
                match collect(&self.output, &mark, deadline, &mut answer.output) {
                    Ending::Complete => Ending::Hanging,
                    _ => Ending::Lost,
                }
            }
            ending => ending,
        };
        if collect(&self.messages, &mark, deadline, &mut answer.messages) != Ending::Complete {
            answer.ending = Ending::Lost;
        }
        answer
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing is left to say to it; that it may have ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, read by a thread of its own.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Takes lines up to the mark.
fn collect(from: &Receiver<String>, mark: &str, until: Instant, into: &mut Vec<String>) -> Ending {
    loop {
        match from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_suffix(mark) {
                Some("") => return Ending::Complete,
                Some(rest) => {
                    into.push(rest.to_owned());
                    return Ending::Complete;
                }
                None => into.push(line),
            },
            Err(RecvTimeoutError::Timeout) => return Ending::Hanging,
            Err(RecvTimeoutError::Disconnected) => return Ending::Lost,
        }
    }
}
