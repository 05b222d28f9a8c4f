//! `pg_worker_list.conf` in the data directory: the workers that get the placements of new shards.
//!
//! One worker a line, host and port. What follows the port is ignored, as in pg_shard 1.2; a third field that is no
//! remark earns a warning, since whoever wrote it expects something of it. The file is read afresh each time and its
//! order means nothing: workers are sorted by name and port.

use pg::catalog::table;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;

/// Reads the list, sorted, with the number of each node's line.
fn read_with_lines() -> Result<Vec<(NodeAddress, u32)>, PgError> {
    let path = format!("{}/pg_worker_list.conf", table::data_directory());
    let text = std::fs::read(&path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => *b"58P01",
            std::io::ErrorKind::PermissionDenied => *b"42501",
            _ => *b"58030",
        };
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "No such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "Permission denied".to_owned(),
            _ => error.to_string(),
        };
        PgError::new(
            SqlState(code),
            format!("could not open worker list file \"{path}\": {reason}"),
        )
        .hint("Write one line with host and port for each worker.")
    })?;
    let mut workers: Vec<(NodeAddress, u32)> = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        if line.len() >= 1023 {
            return Err(PgError::new(
                SqlState::CONFIG_FILE_ERROR,
                "worker node list file line exceeds the maximum length of 1024",
            ));
        }
        let line = String::from_utf8_lossy(line);
        if let Some((node, rest)) = parse(&line)? {
            if let Some((_, before)) = workers.iter().find(|(known, _)| *known == node) {
                return Err(same_server(&node, &node).detail(format!(
                    "It stands in lines {before} and {number} of the worker list file."
                )));
            }
            warn_of_third_field(number, rest);
            workers.push((node, number));
        }
    }
    workers.sort();
    Ok(workers)
}

/// The list, sorted.
pub(crate) fn read() -> Result<Vec<NodeAddress>, PgError> {
    Ok(read_with_lines()?.into_iter().map(|(node, _)| node).collect())
}

/// The error for two addresses of one server: it would wait for itself, and a shard's placements would be one.
pub(crate) fn same_server(one: &NodeAddress, other: &NodeAddress) -> PgError {
    let message = format!("workers \"{one}\" and \"{other}\" are the same server");
    PgError::new(SqlState::CONFIG_FILE_ERROR, message).hint("Name each worker once.")
}

/// The same with the lines in which the list names them, if it does.
pub(super) fn same_server_in_list(one: &NodeAddress, other: &NodeAddress) -> PgError {
    let error = same_server(one, other);
    let listed = read_with_lines().unwrap_or_default();
    let line = |node: &NodeAddress| {
        listed.iter().find(|(known, _)| known == node).map(|(_, number)| *number)
    };
    match (line(one), line(other)) {
        (Some(one), Some(other)) => error.detail(format!(
            "They stand in lines {} and {} of the worker list file.",
            one.min(other),
            one.max(other)
        )),
        _ => error,
    }
}

/// Warns of a field behind host and port that does not look like a remark.
fn warn_of_third_field(line: u32, rest: &str) {
    if rest.is_empty() || rest.starts_with('#') {
        return;
    }
    pg::sys::error::warning(
        PgError::new(
            SqlState::WARNING,
            format!("ignoring \"{rest}\" in line {line} of the worker list file"),
        )
        .detail("A line has two fields, host and port.")
        .hint("Begin a remark with #."),
    );
}

/// The node that a line names, and what follows its port.
fn parse(line: &str) -> Result<Option<(NodeAddress, &str)>, PgError> {
    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let bad = || {
        PgError::new(SqlState::CONFIG_FILE_ERROR, format!("could not parse worker node line: {line}")).hint(
            "Lines in the worker node file consist of a node name and port separated by whitespace. \
             Lines that start with a '#' character are skipped.",
        )
    };
    let (host, rest) = text.split_once([' ', '\t']).ok_or_else(bad)?;
    let rest = rest.trim_start();
    let (digits, rest) =
        rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    if host.len() > 255 {
        return Err(bad());
    }
    let port: u16 = digits.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    Ok(Some((NodeAddress { host: host.into(), port: port.into() }, rest.trim_start())))
}
