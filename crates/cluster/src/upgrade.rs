//! A node's data directory taken to a later version of PostgreSQL by `pg_upgrade`.

use std::fs;

use crate::cluster::Cluster;
use crate::error::ClusterError;
use crate::installation::Installation;
use crate::node_name::NodeName;
use crate::tree;

/// The line of `postgresql.conf` behind which our own settings stand; see [`crate::configuration`].
const OUR_SETTINGS: &str = "# Set by pgshard.";

/// Files of a data directory that `pg_upgrade` leaves to the administrator.
const OTHER_FILES: [&str; 2] = ["pg_hba.conf", "pg_worker_list.conf"];

impl Cluster {
    /// Runs `pg_upgrade` on a node that is down. The node keeps its name, port and settings; start it afterwards.
    ///
    /// If the checks of `pg_upgrade` refuse, the node is as it was.
    pub fn upgrade(
        &mut self,
        node: NodeName,
        installation: &Installation,
    ) -> Result<(), ClusterError> {
        let data_dir = self.data_dir(node);
        let new_dir = self.node_dir(node).join("upgraded");
        tree::remove(&new_dir)?;
        // Checksums are the default since 18, and pg_upgrade does not introduce them.
        let options: &[&str] =
            if installation.major_version() < 18 { &[] } else { &["--no-data-checksums"] };
        installation.initialize(&new_dir, self.account(), options)?;
        self.take_settings(node)?;

        let programs = |of: &Installation| of.bin("pg_upgrade").with_file_name("");
        let socket_dir = self.node_dir(node).join("sockets");
        tree::remove(&socket_dir)?;
        self.account().create_dir(&socket_dir, 0o700)?;
        self.account().run_in(
            Some(&socket_dir),
            installation.bin("pg_upgrade"),
            &[
                &"--old-bindir",
                &programs(self.installation(node)),
                &"--new-bindir",
                &programs(installation),
                &"--old-datadir",
                &data_dir,
                &"--new-datadir",
                &new_dir,
                &"--socketdir",
                &socket_dir,
                &"--username=postgres",
                &"--link",
                &"--no-sync",
            ],
        )?;
        // The old one goes last: at each moment one of the two has the rows.
        let old_dir = self.node_dir(node).join("before-upgrade");
        tree::remove(&old_dir)?;
        fs::rename(&data_dir, &old_dir).map_err(ClusterError::file("rename", &data_dir))?;
        fs::rename(&new_dir, &data_dir).map_err(ClusterError::file("rename", &new_dir))?;
        tree::remove(&old_dir)?;
        self.set_installation(node, installation)
    }

    /// Gives the new data directory the node's own settings and the other files that an administrator brings along.
    fn take_settings(&self, node: NodeName) -> Result<(), ClusterError> {
        let (old, new) = (self.data_dir(node), self.node_dir(node).join("upgraded"));
        let read = |path: &std::path::Path| {
            fs::read_to_string(path).map_err(ClusterError::file("read", path))
        };
        let ours = read(&old.join("postgresql.conf"))?;
        let ours = ours.split_once(OUR_SETTINGS).map_or("", |(_, ours)| ours);
        let sample = read(&new.join("postgresql.conf"))?;
        let text = format!("{sample}\n{OUR_SETTINGS}{ours}");
        self.account().write(&new.join("postgresql.conf"), &text)?;
        for name in OTHER_FILES.iter().filter(|name| old.join(name).exists()) {
            self.account().write(&new.join(name), &read(&old.join(name))?)?;
        }
        Ok(())
    }
}
