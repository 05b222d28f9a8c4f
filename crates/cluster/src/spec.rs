//! What a cluster should be like: where, how many nodes, on which ports, with which settings.

use std::path::PathBuf;

use crate::error::ClusterError;
use crate::node_name::NodeName;

/// Settings of every node unless the spec says otherwise.
///
/// `shared_preload_libraries` is left out of a cluster without the extension.
pub const DEFAULT_SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_shard"),
    ("max_connections", "200"),
    ("max_worker_processes", "32"),
    ("shared_buffers", "128MB"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// Settings that follow from the cluster's directory and ports.
const RESERVED_SETTINGS: &[&str] =
    &["port", "listen_addresses", "unix_socket_directories", "data_directory", "hba_file"];

/// What a cluster should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// The directory that will hold all of it: absent or empty.
    pub dir: PathBuf,
    /// How many workers.
    pub workers: u16,
    /// The coordinator's port; worker i listens on `port + i`.
    pub port: u16,
    /// The workers' host name in `pg_worker_list.conf`.
    pub worker_host: String,
    /// Whether our library is preloaded everywhere and the extension created on the coordinator.
    pub extension: bool,
    /// Settings of every node, on top of [`DEFAULT_SETTINGS`]; the last one of a name counts.
    pub settings: Vec<(String, String)>,
}

impl ClusterSpec {
    /// A cluster with the extension and default settings, whose workers are called `localhost`.
    pub fn new(dir: impl Into<PathBuf>, workers: u16, port: u16) -> Self {
        Self {
            dir: dir.into(),
            workers,
            port,
            worker_host: "localhost".to_owned(),
            extension: true,
            settings: Vec::new(),
        }
    }

    /// The same with a setting of PostgreSQL, for every node.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// The same without our library: plain PostgreSQL servers.
    #[must_use]
    pub fn without_extension(mut self) -> Self {
        self.extension = false;
        self
    }

    /// The same with another host name for the workers in `pg_worker_list.conf`.
    #[must_use]
    pub fn worker_host(mut self, host: impl Into<String>) -> Self {
        self.worker_host = host.into();
        self
    }

    /// All nodes, the coordinator first.
    pub fn nodes(&self) -> impl Iterator<Item = NodeName> + use<> {
        std::iter::once(NodeName::Coordinator).chain((1..=self.workers).map(NodeName::Worker))
    }

    /// Refuses a cluster without workers, ports that do not exist and settings that cannot be.
    pub(crate) fn validate(&self) -> Result<(), ClusterError> {
        if self.workers == 0 && self.extension {
            return Err(ClusterError::NoWorkers);
        }
        if self.port == 0 || self.port.checked_add(self.workers).is_none() {
            return Err(ClusterError::PortsOutOfRange { port: self.port, workers: self.workers });
        }
        for (name, value) in &self.settings {
            if !is_setting_name(name) || value.contains(['\n', '\0']) {
                return Err(ClusterError::NotASetting { text: format!("{name}={value}") });
            }
            if RESERVED_SETTINGS.contains(&name.as_str()) {
                return Err(ClusterError::ReservedSetting { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// Reads `name=value`; the value may be empty and may contain `=`.
pub fn parse_setting(text: &str) -> Result<(String, String), ClusterError> {
    text.split_once('=')
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, _)| is_setting_name(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| ClusterError::NotASetting { text: text.to_owned() })
}

/// Whether `name` can be a setting's name, with or without an extension's prefix.
fn is_setting_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_split_at_the_first_equals_sign() {
        let setting = parse_setting("pg_shard.log = a=b").unwrap();
        assert_eq!(setting, ("pg_shard.log".to_owned(), "a=b".to_owned()));
        assert_eq!(parse_setting("archive_command=").unwrap().1, "");
    }

    #[test]
    fn text_without_a_name_is_not_a_setting() {
        for text in ["fsync", "=off", "two words=1", "1st=2", "fsync;x=off"] {
            assert!(matches!(parse_setting(text), Err(ClusterError::NotASetting { .. })), "{text}");
        }
    }

    #[test]
    fn settings_that_follow_from_the_ports_are_refused() {
        let spec = ClusterSpec::new("/tmp/c", 2, 6000).set("port", "5432");
        assert!(
            matches!(spec.validate(), Err(ClusterError::ReservedSetting { name }) if name == "port")
        );
    }

    #[test]
    fn a_cluster_with_the_extension_needs_a_worker() {
        let error = ClusterSpec::new("/tmp/c", 0, 6000).validate().unwrap_err().to_string();
        assert!(error.contains("--workers 1 or more"), "{error}");
    }

    #[test]
    fn the_last_worker_needs_a_port_that_exists() {
        assert!(ClusterSpec::new("/tmp/c", 2, 65533).validate().is_ok());
        assert!(matches!(
            ClusterSpec::new("/tmp/c", 2, 65534).validate(),
            Err(ClusterError::PortsOutOfRange { port: 65534, workers: 2 })
        ));
    }

    #[test]
    fn nodes_are_the_coordinator_and_then_the_workers() {
        let names: Vec<String> =
            ClusterSpec::new("/tmp/c", 2, 6000).nodes().map(|node| node.to_string()).collect();
        assert_eq!(names, ["coordinator", "worker1", "worker2"]);
    }
}
