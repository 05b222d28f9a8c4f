//! `postgresql.conf`, `pg_hba.conf` and `pg_worker_list.conf` of a node.

use std::fmt::Write as _;
use std::path::Path;

use crate::spec::{ClusterSpec, DEFAULT_SETTINGS};

/// Who may connect: everyone on this machine, as anyone. The servers listen nowhere else.
pub(crate) const HBA: &str = "\
# Everyone on this machine is trusted; the servers listen on no other address.
local  all          all                trust
host   all          all  127.0.0.1/32  trust
host   all          all  ::1/128       trust
local  replication  all                trust
host   replication  all  127.0.0.1/32  trust
host   replication  all  ::1/128       trust
";

/// The lines that make a fresh `postgresql.conf` that of a node. The last line of a name counts.
pub(crate) fn server_settings(
    spec: &ClusterSpec,
    port: u16,
    socket_dir: &Path,
    listen_addresses: &str,
) -> String {
    let port = port.to_string();
    let socket_dir = socket_dir.to_string_lossy();
    let ours = DEFAULT_SETTINGS
        .iter()
        .copied()
        .filter(|(name, _)| spec.extension || *name != "shared_preload_libraries");
    let of_cluster = [
        ("port", &*port),
        ("listen_addresses", listen_addresses),
        ("unix_socket_directories", &*socket_dir),
    ];
    let of_user = spec.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));

    let mut text = "\n# Set by pgshard.\n".to_owned();
    for (name, value) in ours.chain(of_cluster).chain(of_user) {
        writeln!(text, "{name} = {}", quote(value)).expect("a String takes what is written to it");
    }
    text
}

/// The workers, one a line: host and port.
pub(crate) fn worker_list(spec: &ClusterSpec) -> String {
    let mut text = "# host port, one worker a line. Written by pgshard.\n".to_owned();
    for number in 1..=spec.workers {
        writeln!(text, "{} {}", spec.worker_host, spec.port + number)
            .expect("a String takes what is written to it");
    }
    text
}

/// A value as `postgresql.conf` reads it: in single quotes, in which quotes and backslashes are doubled.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_settings_come_last_so_that_they_count() {
        let spec = ClusterSpec::new("/tmp/c", 2, 6000).set("max_connections", "50");
        let text = server_settings(&spec, 6001, Path::new("/tmp/c"), "127.0.0.1");
        let (before, _) = text.split_once("max_connections = '50'").unwrap();
        assert!(before.contains("max_connections = '200'"));
        assert!(before.contains(
            "port = '6001'\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '/tmp/c'"
        ));
    }

    #[test]
    fn nothing_is_preloaded_without_the_extension() {
        let spec = ClusterSpec::new("/tmp/c", 2, 6000);
        let preloads = |spec: &ClusterSpec| {
            server_settings(spec, 6000, Path::new("/tmp/c"), "127.0.0.1")
                .contains("shared_preload_libraries")
        };
        assert!(preloads(&spec));
        assert!(!preloads(&spec.without_extension()));
    }

    #[test]
    fn the_worker_list_names_a_host_and_a_port_a_line() {
        let spec = ClusterSpec::new("/tmp/c", 2, 6000).worker_host("127.0.0.1");
        assert!(worker_list(&spec).ends_with("\n127.0.0.1 6001\n127.0.0.1 6002\n"));
    }

    #[test]
    fn quotes_and_backslashes_in_a_value_are_doubled() {
        assert_eq!(quote(r"cp %p 'C:\wal'"), r"'cp %p ''C:\\wal'''");
    }
}
