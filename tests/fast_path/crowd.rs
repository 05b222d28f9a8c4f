//! Many clients at once, and workers without a place for one more.

use std::sync::Barrier;
use std::thread;

use testkit::{Session, TestCluster, wait_until};

use crate::{WORKER_1, create_kv, key_led_by};

#[test]
fn two_hundred_clients_that_come_at_once_are_all_served() {
    let cluster = TestCluster::up_with(2, &[("max_connections", "450")]);
    create_kv(&cluster, 2);
    let together = Barrier::new(200);
    thread::scope(|scope| {
        for client in 0..200 {
            let (cluster, together) = (&cluster, &together);
            scope.spawn(move || {
                together.wait();
                let mut session = cluster.new_session();
                let key = client % 100 + 1;
                session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
                assert_eq!(
                    session.text(&format!("SELECT s FROM kv WHERE k = {key}")),
                    format!("s{key}")
                );
                assert_eq!(session.warnings(), []);
            });
        }
    });
    assert_eq!(cluster.text("SELECT count(*), sum(v), min(v), max(v) FROM kv"), "100|200|2|2");
    assert_eq!(cluster.unhealthy("kv"), 0);
    cluster.assert_placements_equal("kv");
}

#[test]
fn a_worker_without_a_free_connection_slot_is_named_and_not_marked() {
    for replicas in [1, 2] {
        let cluster = TestCluster::up(2);
        create_kv(&cluster, replicas);
        let key = key_led_by(&cluster, "kv", WORKER_1);
        cluster.session_on(WORKER_1).sql("ALTER SYSTEM SET max_connections = 8");
        cluster.stop(WORKER_1).expect("worker 1 is up");
        cluster.start(WORKER_1).expect("worker 1 is down");
        let mut config = testkit::postgres::Config::new();
        config.host("127.0.0.1").port(cluster.port(WORKER_1)).user("postgres").dbname("postgres");
        let mut taken = Vec::new();
        while let Ok(session) = Session::try_open(&config) {
            taken.push(session);
        }
        let mut session = cluster.new_session();
        session.sql("PREPARE put(int) AS UPDATE kv SET v = v + 1 WHERE k = $1");
        let statements = [
            format!("SELECT * FROM kv WHERE k = {key}"),
            format!("UPDATE kv SET v = v + 1 WHERE k = {key}"),
            format!("EXECUTE put({key})"),
            format!("INSERT INTO kv VALUES ({key}) ON CONFLICT (k) DO UPDATE SET v = 1"),
            format!("BEGIN; UPDATE kv SET v = v + 1 WHERE k = {key}; COMMIT"),
            "SELECT count(*) FROM kv".to_owned(),
            "COPY kv (k) FROM PROGRAM 'seq 1000 1100'".to_owned(),
        ];
        for statement in &statements {
            let error = session.error(statement);
            if statement.starts_with("BEGIN") {
                session.sql("ROLLBACK");
            }
            let worker = format!("localhost:{}", cluster.port(WORKER_1));
            assert_eq!(
                error.line(),
                format!("53300: worker \"{worker}\" has no connection slot left"),
                "{statement}"
            );
            assert!(error.hint.contains("max_connections"), "{statement}: {error}");
            assert_eq!(session.warnings(), [], "{statement}");
        }
        assert_eq!(cluster.unhealthy("kv"), 0);
        drop(taken);
        wait_until("the slots are free", || session.try_sql(&statements[0]).is_ok());
        for statement in &statements {
            session.sql(statement);
        }
        assert_eq!(cluster.unhealthy("kv"), 0);
        assert_eq!(cluster.assert_placements_equal("kv"), 201);
    }
}
