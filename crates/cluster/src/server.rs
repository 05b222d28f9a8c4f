//! One node's server: started, stopped, killed, paused.
//!
//! What runs is read from `postmaster.pid` and `/proc` every time; we keep no state of our own.
//!
//! A kill takes away the whole server at once, as a power cut would: the postmaster is frozen first, so that it can
//! neither fork nor tell its children, then all of its processes get SIGKILL, and we wait until they are gone. The shared
//! memory they leave is removed. What stays is the data directory with its `postmaster.pid`, which the next start removes
//! once it has made sure that nothing of the old server lives: PostgreSQL itself would be put off by a zombie or by
//! another process with the old number.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::account::ServerAccount;
use crate::error::ClusterError;
use crate::installation::Installation;
use crate::node_name::NodeName;
use crate::process::{self, Process};
use crate::tree;

/// How long `pg_ctl` waits, in seconds.
const PG_CTL_PATIENCE: &str = "60";

/// How often we look whether processes have gone, and for how many times.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS: u32 = 2000;

/// What a node's server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its postmaster runs.
    Up,
    /// Its postmaster does not run.
    Down,
    /// Its postmaster is stopped by SIGSTOP: connections are accepted by the kernel and answered by nobody.
    Paused,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Paused => "paused",
        })
    }
}

/// One node's server.
pub(crate) struct Server<'cluster> {
    pub(crate) node: NodeName,
    pub(crate) port: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) installation: &'cluster Installation,
    pub(crate) account: &'cluster ServerAccount,
}

impl Server<'_> {
    /// The process that all others of this server descend from, if it lives.
    pub(crate) fn postmaster(&self) -> Option<Process> {
        let text = fs::read_to_string(self.data_dir.join("postmaster.pid")).ok()?;
        // A stand-alone backend writes its number negated.
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        Process::find(pid.abs()).filter(|process| process.serves(&self.data_dir))
    }

    /// Whether the server is up, down or paused.
    pub(crate) fn state(&self) -> NodeState {
        match self.postmaster() {
            None => NodeState::Down,
            Some(postmaster) if postmaster.is_stopped() => NodeState::Paused,
            Some(_) => NodeState::Up,
        }
    }

    /// Starts the server and waits until it accepts connections.
    pub(crate) fn start(&self) -> Result<(), ClusterError> {
        match self.state() {
            NodeState::Up => return Err(ClusterError::NodeIsUp { node: self.node }),
            NodeState::Paused => return Err(ClusterError::NodeIsPaused { node: self.node }),
            NodeState::Down => {}
        }
        // Backends that lost their postmaster end by themselves; the data directory is theirs until then.
        self.wait_until_gone(&process::server_processes(None, &self.data_dir))?;
        self.remove_stale_locks()?;
        let started = self.account.run(
            self.installation.bin("pg_ctl"),
            &[
                &"start",
                &"--silent",
                &"--wait",
                &"--timeout",
                &PG_CTL_PATIENCE,
                &"--pgdata",
                &self.data_dir,
                &"--log",
                &self.log,
            ],
        );
        started.map_err(|error| match error {
            ClusterError::ProgramFailed { .. } => ClusterError::StartFailed {
                node: self.node,
                log: self.log.clone(),
                tail: self.log_tail(),
            },
            error => error,
        })
    }

    /// Shuts the server down in good order, ending its sessions. A paused server is resumed for that.
    pub(crate) fn stop(&self) -> Result<(), ClusterError> {
        match self.state() {
            NodeState::Down => return Err(ClusterError::NodeIsDown { node: self.node }),
            NodeState::Paused => self.resume()?,
            NodeState::Up => {}
        }
        self.pg_ctl_stop("fast")
    }

    /// Ends the server the quickest way that leaves nothing behind in the system; it may be down already.
    pub(crate) fn end(&self) -> Result<(), ClusterError> {
        let state = self.state();
        if state == NodeState::Up && self.pg_ctl_stop("immediate").is_ok() {
            return Ok(());
        }
        match self.kill() {
            Ok(()) | Err(ClusterError::NodeIsDown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// SIGKILL for all of the server's processes; returns when they are gone.
    pub(crate) fn kill(&self) -> Result<(), ClusterError> {
        let postmaster = self.postmaster();
        if let Some(postmaster) = &postmaster {
            self.freeze(postmaster)?;
        }
        let victims = process::server_processes(postmaster, &self.data_dir);
        if victims.is_empty() {
            return Err(ClusterError::NodeIsDown { node: self.node });
        }
        let leftovers: Vec<PathBuf> =
            victims.iter().flat_map(Process::shared_memory_files).collect();
        for victim in &victims {
            self.signal(victim, Signal::SIGKILL)?;
        }
        self.wait_until_gone(&victims)?;
        for file in leftovers {
            // Removed by somebody else just as well.
            let _ = fs::remove_file(file);
        }
        self.remove_interlock_segment();
        Ok(())
    }

    /// SIGSTOP for all of the server's processes.
    pub(crate) fn pause(&self) -> Result<(), ClusterError> {
        let Some(postmaster) = self.postmaster() else {
            return Err(ClusterError::NodeIsDown { node: self.node });
        };
        // Once it is stopped no child can appear.
        self.freeze(&postmaster)?;
        process::server_processes(Some(postmaster), &self.data_dir)
            .iter()
            .try_for_each(|process| self.freeze(process))
    }

    /// SIGCONT for all of the server's processes.
    pub(crate) fn resume(&self) -> Result<(), ClusterError> {
        let Some(postmaster) = self.postmaster() else {
            return Err(ClusterError::NodeIsDown { node: self.node });
        };
        // The postmaster last: it should find its children as they were.
        for process in process::server_processes(Some(postmaster), &self.data_dir).iter().rev() {
            self.signal(process, Signal::SIGCONT)?;
        }
        Ok(())
    }

    fn pg_ctl_stop(&self, mode: &str) -> Result<(), ClusterError> {
        self.account.run(
            self.installation.bin("pg_ctl"),
            &[
                &"stop",
                &"--silent",
                &"--wait",
                &"--timeout",
                &PG_CTL_PATIENCE,
                &"--mode",
                &mode,
                &"--pgdata",
                &self.data_dir,
            ],
        )
    }

    /// Sends a signal; a process that has gone needs none.
    fn signal(&self, process: &Process, signal: Signal) -> Result<(), ClusterError> {
        if !process.lives() {
            return Ok(());
        }
        match kill(Pid::from_raw(process.pid), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(ClusterError::Signal {
                node: self.node,
                pid: process.pid,
                source: error.into(),
            }),
        }
    }

    fn wait_until_gone(&self, processes: &[Process]) -> Result<(), ClusterError> {
        for _ in 0..LOOKS {
            if !processes.iter().any(Process::lives) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let pids =
            processes.iter().filter(|process| process.lives()).map(|process| process.pid).collect();
        Err(ClusterError::StillRunning { node: self.node, pids })
    }

    /// Sends SIGSTOP and waits until it has taken effect.
    fn freeze(&self, process: &Process) -> Result<(), ClusterError> {
        self.signal(process, Signal::SIGSTOP)?;
        for _ in 0..LOOKS {
            if Process::find(process.pid).is_none_or(|process| process.is_stopped()) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(ClusterError::StillRunning { node: self.node, pids: vec![process.pid] })
    }

    /// Removes what a killed server leaves in its directories; the caller has made sure that it is dead.
    fn remove_stale_locks(&self) -> Result<(), ClusterError> {
        let socket = format!(".s.PGSQL.{}", self.port);
        tree::remove(&self.data_dir.join("postmaster.pid"))?;
        tree::remove(&self.socket_dir.join(format!("{socket}.lock")))?;
        tree::remove(&self.socket_dir.join(socket))
    }

    /// Removes the small System V segment by which PostgreSQL knows that a data directory is in use.
    ///
    /// The kernel keeps it after a kill -9, and would for ever if the data directory were removed next. A next start
    /// would do without this, so a failure does not matter.
    fn remove_interlock_segment(&self) {
        let lock_file =
            fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        if let Some(segment) = interlock_segment_in(&lock_file) {
            let _ = Command::new("ipcrm")
                .args(["--shmem-id", segment])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }

    /// The last lines of the log, for a message.
    fn log_tail(&self) -> String {
        const LINES: usize = 15;
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// The identifier of the System V segment: the second number of line 7 of `postmaster.pid`.
fn interlock_segment_in(lock_file: &str) -> Option<&str> {
    lock_file
        .lines()
        .nth(6)?
        .split_whitespace()
        .nth(1)
        .filter(|id| id.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interlock_segment_is_on_line_seven_of_the_lock_file() {
        let lock_file = "4711\n/tmp/c/worker1/data\n1700000000\n6001\n/tmp/c\n127.0.0.1\n   917519     65538\nready   \n";
        assert_eq!(interlock_segment_in(lock_file), Some("65538"));
        assert_eq!(interlock_segment_in("4711\n/tmp/c/worker1/data\n"), None);
    }
}
