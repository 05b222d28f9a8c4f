//! pgbouncer in front of the coordinator, in transaction mode: many clients over few backends, which share their sessions to workers.

use super::cluster;
use std::process::{Child, Command};
use testkit::{NodeName, Script, TestCluster, wait_until};

/// A pgbouncer before a cluster; it ends with its owner.
struct Bouncer {
    child: Child,
    port: u16,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Backends that all clients together have.
const BACKENDS: u32 = 4;

fn pgbouncer(cluster: &TestCluster) -> Bouncer {
    let port = ::cluster::free_ports(0).expect("a machine that runs tests has free ports");
    let settings = format!(
        "[databases]\npostgres = user=postgres host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {BACKENDS}\n\
         ignore_startup_parameters = extra_float_digits\n",
        cluster.port(NodeName::Coordinator)
    );
    let file = cluster.dir().join("pgbouncer.ini");
    std::fs::write(&file, settings).expect("the cluster's directory is ours");
    let mut command = Command::new("/usr/sbin/pgbouncer");
    // It refuses to run as root.
    command.args(["-q", "-u", "postgres"]).arg(&file);
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let bouncer = Bouncer { child, port };
    wait_until("pgbouncer takes connections", || {
        std::net::TcpStream::connect(("127.0.0.1", bouncer.port)).is_ok()
    });
    bouncer
}

const TRANSFER: &str = "\\set a random(1, 100)\n\\set b random(1, 100)\nBEGIN;\nSET LOCAL TimeZone = 'Asia/Tokyo';\n\
    UPDATE t SET v = v - 1 WHERE k = :a;\nUPDATE t SET v = v + 1 WHERE k = :b;\nCOMMIT;\n";
const SUM: &str = "SELECT 1 / (sum(v) = 5050)::int AS whole, 1 / (current_setting('TimeZone') <> 'Asia/Tokyo')::int AS own FROM t;\n";
const BY_KEY: &str = "\\set k random(1, 100)\nSELECT 1 / (k = :k)::int FROM t WHERE k = :k;\n";

/// A wrong answer divides by zero, which ends the client.
#[test]
fn twenty_clients_of_pgbouncer_read_and_write_over_four_backends() {
    let cluster = cluster(&[]);
    let bouncer = pgbouncer(&cluster);
    let port = bouncer.port.to_string();
    for mode in ["simple", "extended"] {
        let scripts = [TRANSFER, SUM, BY_KEY].map(|text| Script { weight: 1, text });
        let more = ["-c", "20", "-t", "40", "--max-tries=100", "-p", &port];
        let report = cluster.pgbench(mode, &scripts, &more).finish();
        assert!(report.succeeded, "{}", report.errors);
        assert_eq!(report.transactions, 20 * 40, "{}", report.errors);
        let backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench' OR query LIKE '%FROM t WHERE k%' AND pid <> pg_backend_pid()";
        let backends: u32 = cluster.text(backends).parse().expect("a number");
        assert!(backends <= BACKENDS, "{backends} backends");
    }
    assert_eq!(cluster.text("SELECT sum(v) FROM t"), "5050");
}
