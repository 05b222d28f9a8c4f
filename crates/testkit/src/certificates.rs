//! Nodes that speak TLS.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Command, Stdio};

use cluster::NodeName;

use crate::test_cluster::TestCluster;
use crate::wait::wait_until;

impl TestCluster {
    /// Gives a node a key and a certificate for `localhost` that signs itself: `server.key` and `server.crt` in its data directory.
    pub fn certify(&self, node: NodeName) {
        let dir = self.data_dir(node);
        let made = Command::new("openssl")
            .args(["req", "-new", "-x509", "-days", "30", "-nodes", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-keyout", "server.key", "-out", "server.crt"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .output()
            .expect("openssl can be started");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let owner = dir.metadata().expect("the data directory");
        for file in ["server.key", "server.crt"] {
            // openssl has made the key readable by its owner only, as the server demands.
            chown(dir.join(file), Some(owner.uid()), Some(owner.gid())).expect("the file is ours");
        }
    }

    /// The node has a certificate and speaks TLS from now on.
    pub fn encrypt(&self, node: NodeName) {
        self.certify(node);
        let mut session = self.session_on(node);
        session.sql("ALTER SYSTEM SET ssl = on");
        session.sql("SELECT pg_reload_conf()");
        wait_until("the server speaks TLS", || self.session_on(node).text("SHOW ssl") == "on");
    }
}
