//! Many clients that differ in everything a session carries: none ever finds anything of another.

use super::{cluster, number};
use testkit::{NodeName, Session, TestCluster};

const CLIENTS: u64 = 24;
const TURNS: u64 = 25;

/// A small generator: each client has its own sequence, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the client's tenant, zone and role let it see; all of it is computed on the worker.
const SEEN: &str = "SELECT count(*) || ' ' || coalesce(min(owner), '-') || ' ' || coalesce(min(to_char(at, 'HH24')), '-') FROM notes WHERE k = 1";

struct Client {
    session: Session,
    tenant: String,
    hour: &'static str,
    dice: Dice,
}

impl Client {
    fn check(&mut self) {
        let expected = format!("1 {} {}", self.tenant, self.hour);
        assert_eq!(self.session.text(SEEN), expected);
    }

    fn turn(&mut self, cluster: &TestCluster) {
        match self.dice.roll(7) {
            0 => self.check(),
            1 => {
                assert_eq!(
                    self.session.error("SELECT 1 / (k - k) FROM t WHERE k = 5").sqlstate,
                    "22012"
                );
                self.check();
            }
            2 => {
                let key = self.dice.roll(100) + 1;
                self.session.sql("BEGIN");
                self.session.sql(&format!("UPDATE t SET v = v + 1 WHERE k = {key}"));
                self.check();
                self.session.sql("ROLLBACK");
            }
            3 => {
                // A setting of one transaction, which ends with an error.
                self.session.sql("BEGIN; SET LOCAL app.tenant = 'nobody'");
                assert_eq!(self.session.text("SELECT count(*) FROM notes WHERE k = 1"), "0");
                assert_eq!(
                    self.session.error("SELECT 1 / (k - k) FROM t WHERE k = 5").sqlstate,
                    "22012"
                );
                self.session.sql("ROLLBACK");
                self.check();
            }
            4 => {
                // Cancelled at whatever moment: it has the row, or the error of a cancel.
                let pid = self.session.text("SELECT pg_backend_pid()");
                let canceller = &mut cluster.new_session();
                std::thread::scope(|scope| {
                    let cancel = format!("SELECT pg_cancel_backend({pid})");
                    let cancelled = scope.spawn(move || canceller.sql(&cancel));
                    match self.session.try_sql("SELECT k FROM t WHERE k = 5 FOR UPDATE") {
                        Ok(rows) => assert_eq!(rows, [["5"]]),
                        Err(error) => assert_eq!(error.sqlstate, "57014"),
                    }
                    cancelled.join().expect("no error");
                });
                // One that came late may strike the next statement.
                let _ = self.session.try_sql("SELECT 1");
                self.check();
            }
            5 => {
                self.session.sql("SET ROLE clerk");
                assert_eq!(self.session.text("SELECT v FROM files WHERE k = 1"), "1");
                self.session.sql("RESET ROLE");
                assert_eq!(self.session.error("SELECT v FROM files WHERE k = 1").sqlstate, "42501");
            }
            _ => {
                self.session.sql("PREPARE mine (int) AS SELECT k FROM t WHERE k = $1");
                for key in 1..4 {
                    assert_eq!(
                        self.session.text(&format!("EXECUTE mine ({key})")),
                        key.to_string()
                    );
                }
                self.session.sql("DEALLOCATE mine");
            }
        }
    }
}

#[test]
fn clients_that_differ_in_everything_share_sessions_and_nothing_else() {
    let cluster = cluster(&[
        ("pg_shard.max_sessions_per_node", "6"),
        ("pg_shard.session_wait_timeout", "5min"),
    ]);
    cluster.on_all_nodes("CREATE ROLE clerk; ALTER ROLE alice NOINHERIT; ALTER ROLE bob NOINHERIT; GRANT clerk TO alice, bob");
    cluster.sql("CREATE TABLE files (k int, v int); GRANT SELECT ON files TO clerk");
    cluster.distribute("files", "k", 2, 1);
    cluster.sql("INSERT INTO files VALUES (1, 1)");
    cluster.sql("CREATE TABLE notes (k int, owner text, at timestamptz); GRANT SELECT ON notes TO alice, bob, clerk");
    cluster.distribute("notes", "k", 1, 1);
    cluster.sql("ALTER TABLE notes ENABLE ROW LEVEL SECURITY");
    cluster.sql("CREATE POLICY own ON notes USING (owner = current_setting('app.tenant', true))");
    for number in 0..CLIENTS {
        cluster
            .sql(&format!("INSERT INTO notes VALUES (1, 'tenant{number}', '2020-07-01 12:00+00')"));
    }
    let zones =
        [("UTC", "12"), ("Asia/Tokyo", "21"), ("America/New_York", "08"), ("Asia/Kolkata", "17")];
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.session_as(if number % 2 == 0 { "alice" } else { "bob" });
                let (zone, hour) = zones[number as usize % zones.len()];
                let tenant = format!("tenant{number}");
                session.sql(&format!("SET TimeZone = '{zone}'"));
                session.sql(&format!("SET app.tenant = '{tenant}'"));
                let mut client = Client { session, tenant, hour, dice: Dice(number) };
                client.check();
                for _ in 0..TURNS {
                    client.turn(cluster);
                }
                client.check();
            });
        }
    });
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('alice', 'bob') AND application_name LIKE 'pg_shard%'";
    assert!(number(&mut worker, open) <= 6);
    assert_eq!(cluster.text("SELECT sum(v - k) FROM t"), "0");
}
