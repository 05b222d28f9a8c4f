//! Processes, as `/proc` shows them.
//!
//! A process is known by its number and the time it started, so that another one that got the same number later is not
//! taken for it. A zombie counts as gone: it holds no memory, no file and no port.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A process at the time we looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    /// The letter of its state: `S` sleeping, `T` stopped, `Z` zombie ...
    state: char,
    /// When it started, in clock ticks since the machine did.
    started: u64,
}

impl Process {
    /// The living process with this number.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&stat).filter(|process| !matches!(process.state, 'Z' | 'X'))
    }

    /// All living processes.
    pub(crate) fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| Self::find(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    /// Reads `/proc/PID/stat`. The program's name is in parentheses and may itself contain some, and spaces.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        let (_, rest) = rest.rsplit_once(") ")?;
        // `rest` starts at field 3 of proc(5); the start time is field 22.
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            pid: pid.parse().ok()?,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether this very process still lives.
    pub(crate) fn lives(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.started == self.started)
    }

    /// Whether SIGSTOP has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Its working directory, if we may know it.
    fn working_dir(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    /// The name of its program.
    fn program(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default().trim().to_owned()
    }

    /// Whether it is a server process that works in `data_dir`: all of PostgreSQL's do.
    ///
    /// Where we may not see the directory, the program's name has to do.
    pub(crate) fn serves(&self, data_dir: &Path) -> bool {
        self.program().starts_with("postgres")
            && self.working_dir().is_none_or(|dir| dir == data_dir)
    }

    /// Whether it certainly works in `data_dir`.
    fn certainly_serves(&self, data_dir: &Path) -> bool {
        self.program().starts_with("postgres")
            && self.working_dir().is_some_and(|dir| dir == data_dir)
    }

    /// The segments of dynamic shared memory it has mapped: files that outlive a kill -9.
    pub(crate) fn shared_memory_files(&self) -> BTreeSet<PathBuf> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap_or_default();
        shared_memory_in(&maps)
    }
}

/// The server processes of `data_dir`: its postmaster's descendants, and those that lost their postmaster.
pub(crate) fn server_processes(postmaster: Option<Process>, data_dir: &Path) -> Vec<Process> {
    let all = Process::all();
    let mut found: Vec<Process> = postmaster
        .into_iter()
        .chain(all.iter().copied().filter(|process| process.certainly_serves(data_dir)))
        .collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].pid;
        let children: Vec<Process> =
            all.iter().copied().filter(|process| process.parent == parent).collect();
        for child in children {
            if !found.iter().any(|process| process.pid == child.pid) {
                found.push(child);
            }
        }
        next += 1;
    }
    let mut seen = BTreeSet::new();
    found.retain(|process| seen.insert(process.pid));
    found
}

/// PostgreSQL's files in `/dev/shm`, from the text of `/proc/PID/maps`.
fn shared_memory_in(maps: &str) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| line.find("/dev/shm/PostgreSQL.").map(|at| &line[at..]))
        .filter(|path| !path.ends_with("(deleted)"))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_parentheses_and_spaces_in_its_name() {
        let stat = "42 (odd) (name) T 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998877 1 2";
        let process = Process::parse(stat).unwrap();
        assert_eq!((process.pid, process.parent, process.started), (42, 7, 998_877));
        assert!(process.is_stopped());
    }

    #[test]
    fn this_process_lives_and_one_with_its_number_and_another_start_does_not() {
        let me = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.lives());
        assert!(!Process { started: me.started + 1, ..me }.lives());
    }

    #[test]
    fn dynamic_shared_memory_is_found_in_the_map() {
        let maps = "\
7f2c8d7f0000-7f2c8d7f7000 rw-s 00000000 00:19 8 /dev/shm/PostgreSQL.1234
7f2c8d7f8000-7f2c8d7f9000 rw-s 00000000 00:19 9 /dev/shm/PostgreSQL.99 (deleted)
7f2c8d800000-7f2c8d801000 r--p 00000000 08:01 1 /usr/lib/x86_64-linux-gnu/libc.so.6
";
        assert_eq!(shared_memory_in(maps), [PathBuf::from("/dev/shm/PostgreSQL.1234")].into());
    }
}
