//! Placements that are moved while statements are prepared.

use testkit::{NodeName, Session, TestCluster};

use crate::{create_kv, nodes_of, shard_of};

/// Moves a placement by hand: its table is copied to another worker, then the metadata are edited.
fn relocate(cluster: &TestCluster, table: &str, shard: i64, from: NodeName, to: NodeName) {
    let name = cluster.shard_name(table, shard);
    let dump = cluster.program("pg_dump", from, &["--table", &name], "");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let copied = cluster.psql(to, &["-q"], &String::from_utf8_lossy(&dump.stdout));
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET node_port = {} WHERE shard_id = {shard} AND node_port = {}",
        cluster.port(to),
        cluster.port(from)
    ));
}

/// The same, and the table that was left behind is dropped: whoever still goes there fails.
fn relocate_and_drop(cluster: &TestCluster, table: &str, shard: i64, from: NodeName, to: NodeName) {
    relocate(cluster, table, shard, from, to);
    cluster.session_on(from).sql(&format!("DROP TABLE {}", cluster.shard_name(table, shard)));
}

/// The worker without a placement of a shard.
fn free_node(cluster: &TestCluster, table: &str, shard: i64) -> NodeName {
    let taken = nodes_of(cluster, table, shard);
    cluster.workers().into_iter().find(|node| !taken.contains(node)).expect("one more worker")
}

const FUNCTIONS: &str = "
    CREATE FUNCTION bump(key int) RETURNS int LANGUAGE plpgsql AS $$
    DECLARE found_v int;
    BEGIN
        UPDATE kv SET v = v + 1 WHERE k = key;
        SELECT v INTO STRICT found_v FROM kv WHERE k = key;
        RETURN found_v;
    END $$";

/// Adds one to a row in every way that a session can, the ways in turn; `first` goes first.
fn add_one_in_every_way(
    session: &mut Session,
    prepared: &[testkit::postgres::Statement; 2],
    key: i32,
    expected: &mut i32,
    first: usize,
) {
    for way in (0..6).map(|number| (number + first) % 6) {
        *expected += 1;
        let found = match way {
            0 => {
                session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
                session.text(&format!("SELECT v FROM kv WHERE k = {key}"))
            }
            1 => {
                session.sql(&format!("EXECUTE raise({key})"));
                session.text(&format!("EXECUTE get({key})"))
            }
            2 => session.text(&format!("SELECT bump({key})")),
            3 => {
                let [update, select] = prepared;
                let client = session.client();
                assert_eq!(client.execute(update, &[&key]).expect("an UPDATE"), 1);
                client.query_one(select, &[&key]).expect("a row").get::<_, i32>(0).to_string()
            }
            4 => session.text(&format!("UPDATE kv SET v = v + 1 WHERE k = {key} RETURNING v")),
            _ => session.text(&format!(
                "INSERT INTO kv VALUES ({key}) ON CONFLICT (k) DO UPDATE SET v = kv.v + 1 RETURNING v"
            )),
        };
        assert_eq!(found, expected.to_string(), "way {way}");
    }
}

fn follows_the_metadata(replicas: u32) {
    let cluster = TestCluster::up(3);
    create_kv(&cluster, replicas);
    let key = 7;
    let shard = shard_of(&cluster, "kv", key);
    let name = cluster.shard_name("kv", shard);
    let mut session = cluster.new_session();
    session.sql(FUNCTIONS);
    session.sql("PREPARE raise(int) AS UPDATE kv SET v = v + 1 WHERE k = $1; PREPARE get(int) AS SELECT v FROM kv WHERE k = $1");
    let prepared = ["UPDATE kv SET v = v + 1 WHERE k = $1", "SELECT v FROM kv WHERE k = $1"]
        .map(|sql| session.client().prepare(sql).expect("a statement by key"));
    let mut expected = 0;
    // More often than PostgreSQL tries custom plans.
    for _ in 0..7 {
        add_one_in_every_way(&mut session, &prepared, key, &mut expected, 0);
    }
    for turn in 0..6 {
        // By turns the leader and the follower.
        let from = nodes_of(&cluster, "kv", shard)[turn % replicas as usize];
        let to = free_node(&cluster, "kv", shard);
        relocate_and_drop(&cluster, "kv", shard, from, to);
        add_one_in_every_way(&mut session, &prepared, key, &mut expected, turn);
        for node in nodes_of(&cluster, "kv", shard) {
            let stored =
                cluster.session_on(node).text(&format!("SELECT v FROM {name} WHERE k = {key}"));
            assert_eq!(stored, expected.to_string(), "on {node}");
        }
    }
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("kv"), 0);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

#[test]
fn a_moved_placement_is_used_from_the_next_statement_on() {
    follows_the_metadata(1);
}

#[test]
fn of_a_pair_either_placement_may_be_moved_between_two_statements() {
    follows_the_metadata(2);
}

#[test]
fn a_placement_that_was_left_behind_is_neither_read_nor_written() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 1);
    let key = 11;
    let shard = shard_of(&cluster, "kv", key);
    let name = cluster.shard_name("kv", shard);
    let mut session = cluster.new_session();
    session.sql("SET plan_cache_mode = force_generic_plan; PREPARE raise(int) AS UPDATE kv SET v = v + 1 WHERE k = $1");
    session.sql(&format!("EXECUTE raise({key}); SELECT v FROM kv WHERE k = {key}"));
    let from = nodes_of(&cluster, "kv", shard)[0];
    let to = free_node(&cluster, "kv", shard);
    relocate(&cluster, "kv", shard, from, to);
    session.sql(&format!("EXECUTE raise({key})"));
    assert_eq!(session.text(&format!("SELECT v FROM kv WHERE k = {key}")), "2");
    // And in a transaction that has begun before it is moved back.
    session.sql("BEGIN; SELECT v FROM kv WHERE k = 1");
    cluster.session_on(from).sql(&format!("UPDATE {name} SET v = 10 WHERE k = {key}"));
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET node_port = {} WHERE shard_id = {shard}",
        cluster.port(from)
    ));
    session.sql(&format!("EXECUTE raise({key})"));
    assert_eq!(session.text(&format!("SELECT v FROM kv WHERE k = {key}")), "11");
    session.sql("COMMIT");
    let stored =
        |node| cluster.session_on(node).text(&format!("SELECT v FROM {name} WHERE k = {key}"));
    assert_eq!((stored(from), stored(to)), ("11".to_owned(), "2".to_owned()));
}

#[test]
fn tables_that_are_joined_by_key_move_together() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 1);
    cluster.create_distributed("CREATE TABLE notes (k int, note text)", "notes", "k", 8, 1);
    cluster.sql("INSERT INTO notes SELECT k, 'note ' || k FROM kv");
    let mut session = cluster.new_session();
    let join = "SELECT v, note FROM kv JOIN notes USING (k) WHERE k = ";
    session.sql(&format!(
        "SET plan_cache_mode = force_generic_plan; PREPARE joined(int) AS {join} $1"
    ));
    let mut shards = (0, 0);
    for turn in 0..4 {
        let key = 5;
        assert_eq!(session.text(&format!("EXECUTE joined({key})")), format!("{turn}|note 5"));
        assert_eq!(session.text(&format!("{join} {key}")), format!("{turn}|note 5"));
        shards = (shard_of(&cluster, "kv", key), shard_of(&cluster, "notes", key));
        let from = nodes_of(&cluster, "kv", shards.0)[0];
        let to = free_node(&cluster, "kv", shards.0);
        relocate_and_drop(&cluster, "kv", shards.0, from, to);
        relocate_and_drop(&cluster, "notes", shards.1, from, to);
        session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
    }
    // The other table's shard is another one now, under the same template and the same first shard.
    let copy = 4_000_000_i64;
    let node = nodes_of(&cluster, "notes", shards.1)[0];
    cluster.session_on(node).sql(&format!(
        "CREATE TABLE public.notes_{copy} AS SELECT k, 'copied ' || k AS note FROM {}",
        cluster.shard_name("notes", shards.1)
    ));
    cluster.sql(&format!(
        "BEGIN; INSERT INTO pgs_distribution_metadata.shard SELECT {copy}, relation_id, storage, min_value, max_value \
           FROM pgs_distribution_metadata.shard WHERE id = {old}; \
         UPDATE pgs_distribution_metadata.shard_placement SET shard_id = {copy} WHERE shard_id = {old}; \
         DELETE FROM pgs_distribution_metadata.shard WHERE id = {old}; COMMIT",
        old = shards.1
    ));
    assert_eq!(session.text("EXECUTE joined(5)"), "4|copied 5");
    assert_eq!(session.text(&format!("{join} 5")), "4|copied 5");
}

#[test]
fn a_table_of_the_same_name_is_another_table() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    for (turn, (columns, row, read)) in [
        ("k int, v int", "1, 10", "10"),
        ("k int, v text", "1, 'text'", "text"),
        ("v numeric, k int", "1.50, 1", "1.50"),
        ("k bigint, v int", "1, 7", "7"),
    ]
    .into_iter()
    .enumerate()
    {
        // Also to and fro between a table of ours and a plain one.
        if turn > 0 {
            session.sql("DROP TABLE again; CREATE TABLE again (k int, v int); INSERT INTO again VALUES (1, -1)");
            assert_eq!(session.text("SELECT v FROM again WHERE k = 1"), "-1");
            session.sql("DROP TABLE again");
        }
        cluster.create_distributed(&format!("CREATE TABLE again ({columns})"), "again", "k", 4, 2);
        if turn == 0 {
            session.sql("PREPARE get AS SELECT v FROM again WHERE k = $1");
        }
        session.sql(&format!("INSERT INTO again VALUES ({row})"));
        for _ in 0..2 {
            assert_eq!(session.text("SELECT v FROM again WHERE k = 1"), read);
        }
        let again = session.try_sql("EXECUTE get(1)");
        match turn {
            0 => assert_eq!(again.expect("it was just prepared"), [["10"]]),
            // PostgreSQL's own rule: a prepared statement keeps its result type.
            1 | 2 => assert_eq!(
                again.expect_err("another type").message,
                "cached plan must not change result type"
            ),
            _ => assert_eq!(again.expect("the same type again"), [["7"]]),
        }
    }
}
