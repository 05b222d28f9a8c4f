//! The CPU time that a server's client backends use, from `/proc`.
//!
//! A backend ends with its session, and the kernel then adds its time to the postmaster's account of reaped children
//! (`cutime`, `cstime`). That account and the time of the backends still alive are together exact, however short-lived
//! the backends are. The server's own processes (checkpointer, WAL writer, background workers) live on through a
//! measurement and are not in either part; parallel workers end with their query and are.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NodeName};

/// The kernel counts in hundredths of a second towards programs (`USER_HZ`), whatever its own clock.
const TICK: Duration = Duration::from_millis(10);

/// How long the backends of a finished run may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What client backends of some nodes have used so far.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    postmasters: Vec<i32>,
}

/// The parts of `/proc/PID/stat` that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProcessTimes {
    parent: i32,
    own: Duration,
    reaped_children: Duration,
}

impl CpuMeter {
    /// A meter for these nodes, all of which are up.
    pub(crate) fn of(cluster: &Cluster, nodes: &[NodeName]) -> Result<Self> {
        let pid = |node: &NodeName| {
            cluster.postmaster_pid(*node)?.with_context(|| format!("{node} does not run"))
        };
        Ok(Self { postmasters: nodes.iter().map(pid).collect::<Result<_>>()? })
    }

    /// The backends that clients have now.
    pub(crate) fn backends(&self) -> Result<Vec<i32>> {
        Ok(self.living_backends()?.into_iter().map(|(pid, _)| pid).collect())
    }

    /// Waits until all backends but those in `earlier` have ended.
    pub(crate) fn wait_for_the_others_to_end(&self, earlier: &[i32]) -> Result<()> {
        let started = Instant::now();
        loop {
            let late: Vec<i32> =
                self.backends()?.into_iter().filter(|pid| !earlier.contains(pid)).collect();
            if late.is_empty() {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "sessions of a run that is over do not end: backends {late:?} are still there"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The time used so far by client backends, living and gone.
    pub(crate) fn read(&self) -> Result<Duration> {
        let gone = self.postmasters.iter().map(|pid| {
            times_of(*pid)
                .map(|it| it.reaped_children)
                .with_context(|| format!("server process {pid} has gone"))
        });
        let gone: Duration = gone.sum::<Result<_>>()?;
        let living: Duration =
            self.living_backends()?.into_iter().map(|(_, times)| times.own).sum();
        Ok(gone + living)
    }

    /// The client backends among the postmasters' children. One that has just ended and is not reaped yet counts too.
    fn living_backends(&self) -> Result<Vec<(i32, ProcessTimes)>> {
        let entries = fs::read_dir("/proc").context("cannot read /proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids
            .filter_map(|pid| times_of(pid).map(|times| (pid, times)))
            .filter(|(_, times)| self.postmasters.contains(&times.parent))
            .filter(|(pid, _)| {
                fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|it| is_of_client(&it))
            })
            .collect())
    }
}

/// The times of a process, unless it has gone.
fn times_of(pid: i32) -> Option<ProcessTimes> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`: the program's name is in parentheses and may have spaces and parentheses in it; parent,
/// `utime`, `stime`, `cutime` and `cstime` are fields 4 and 14 to 17.
fn parse(stat: &str) -> Option<ProcessTimes> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let time = |number: usize| Some(TICK * fields.get(number - 3)?.parse::<u32>().ok()?);
    Some(ProcessTimes {
        parent: fields.get(4 - 3)?.parse().ok()?,
        own: time(14)? + time(15)?,
        reaped_children: time(16)? + time(17)?,
    })
}

/// Whether a server process works for a client, by its title: `postgres: user database 127.0.0.1(40312) idle`.
///
/// The title of a process that has ended but is not reaped is empty; it counts as one, so that we wait for it.
fn is_of_client(title: &str) -> bool {
    let title = title.trim_matches(['\0', ' ']);
    let is_address = |word: &str| word == "[local]" || (word.contains('(') && word.ends_with(')'));
    title.is_empty() || (title.starts_with("postgres: ") && title.split(' ').any(is_address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_past_a_name_with_parentheses() {
        let stat = "4711 (postgres: (x) y) S 4700 4711 4711 0 -1 4194560 9 8 7 6 120 30 400 50 20 0 1 0 99 1 1";
        assert_eq!(
            parse(stat),
            Some(ProcessTimes {
                parent: 4700,
                own: Duration::from_millis(1500),
                reaped_children: Duration::from_millis(4500),
            })
        );
    }

    #[test]
    fn our_own_process_can_be_read() {
        let us = i32::try_from(std::process::id()).unwrap();
        assert!(times_of(us).is_some_and(|times| times.parent > 0));
        assert_eq!(times_of(-1), None);
    }

    #[test]
    fn client_backends_are_told_from_the_servers_own_processes() {
        for title in [
            "postgres: postgres bench 127.0.0.1(40312) idle",
            "postgres: u d [local] SELECT\0\0",
            "postgres: u d ::1(5)",
        ] {
            assert!(is_of_client(title), "{title}");
        }
        for title in [
            "postgres: checkpointer ",
            "postgres: walwriter",
            "postgres: pg_shard maintenance",
            "/usr/lib/postgresql/15/bin/postgres",
        ] {
            assert!(!is_of_client(title), "{title}");
        }
    }
}
