//! Simple and extended protocol, PREPARE, PL/pgSQL, cursors.

use testkit::postgres::fallible_iterator::FallibleIterator;
use testkit::{Session, TestCluster};

/// A table of 50 accounts and one of their 200 movements, cut alike.
fn cluster_with_accounts() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE accounts (owner int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, name varchar(30))",
        "accounts", "owner", 6, 2,
    );
    cluster.create_distributed(
        "CREATE TABLE movements (owner int, amount int, at timestamptz DEFAULT now())",
        "movements",
        "owner",
        6,
        2,
    );
    cluster.sql(
        "INSERT INTO accounts SELECT i, i * 100, 'owner ' || i FROM generate_series(1, 50) AS i",
    );
    cluster.sql("INSERT INTO movements SELECT i % 50 + 1, i FROM generate_series(0, 199) AS i");
    cluster
}

#[test]
fn the_extended_protocol_runs_statements_with_parameters_as_often_as_you_like() {
    let cluster = cluster_with_accounts();
    let mut session = cluster.new_session();
    let client = session.client();
    let select = client
        .prepare("SELECT name, balance FROM accounts WHERE owner = $1")
        .expect("a SELECT by key");
    let update = client
        .prepare("UPDATE accounts SET balance = balance + $2 WHERE owner = $1 RETURNING balance")
        .expect("an UPDATE by key");
    let insert =
        client.prepare("INSERT INTO movements (amount, owner) VALUES ($2, $1)").expect("an INSERT");
    let join = client.prepare("SELECT sum(m.amount) FROM accounts a JOIN movements m USING (owner) WHERE a.owner = $1").expect("a join");
    let many = client
        .prepare("SELECT count(*) FROM accounts WHERE balance > $1 AND name LIKE $2")
        .expect("a scan");
    let delete =
        client.prepare("DELETE FROM movements WHERE owner = $1 AND amount < $2").expect("a DELETE");
    // More often than the five custom plans, so that the generic ones are used too.
    for owner in 1..=20_i32 {
        let row = client.query_one(&select, &[&owner]).expect("one row");
        assert_eq!(
            (row.get::<_, String>(0), row.get::<_, i64>(1)),
            (format!("owner {owner}"), i64::from(owner) * 100)
        );
        assert_eq!(
            client.query_one(&update, &[&owner, &1_i64]).expect("one row").get::<_, i64>(0),
            i64::from(owner) * 100 + 1
        );
        assert_eq!(client.execute(&insert, &[&owner, &(-owner)]).expect("an INSERT"), 1);
        let expected = (0..200).filter(|i| i % 50 + 1 == owner).sum::<i32>() - owner;
        assert_eq!(
            client.query_one(&join, &[&owner]).expect("one row").get::<_, i64>(0),
            i64::from(expected)
        );
        assert_eq!(
            client
                .query_one(&many, &[&(i64::from(owner) * 100), &"owner%"])
                .expect("one row")
                .get::<_, i64>(0),
            51 - i64::from(owner)
        );
        assert_eq!(client.execute(&delete, &[&owner, &0]).expect("a DELETE"), 1);
    }
    assert!(client.query(&select, &[&None::<i32>]).expect("no row").is_empty());
    assert!(client.query(&select, &[&5000]).expect("no row").is_empty());
    let null = client.execute(&insert, &[&None::<i32>, &1]).expect_err("the key is NULL");
    assert_eq!(null.code().map(|code| code.code()), Some("22004"));

    // Portals that are read in parts, two at a time in one transaction.
    let mut transaction = client.transaction().expect("a transaction");
    let one = transaction.bind("SELECT owner FROM accounts ORDER BY owner", &[]).expect("a portal");
    let other = transaction
        .bind("SELECT amount FROM movements WHERE owner = $1 ORDER BY 1", &[&7])
        .expect("a portal");
    let first: Vec<i32> =
        transaction.query_portal(&one, 3).expect("rows").iter().map(|row| row.get(0)).collect();
    let amounts: Vec<i32> =
        transaction.query_portal(&other, 2).expect("rows").iter().map(|row| row.get(0)).collect();
    let second: Vec<i32> =
        transaction.query_portal(&one, 0).expect("rows").iter().map(|row| row.get(0)).collect();
    assert_eq!((first, amounts, second.len()), (vec![1, 2, 3], vec![6, 56], 47));
    transaction.commit().expect("a COMMIT");
    let streamed =
        client.query_raw("SELECT * FROM movements", Vec::<i32>::new()).expect("rows").count();
    assert_eq!(streamed.expect("rows"), 200);
    assert_eq!(cluster.assert_placements_equal("accounts"), 50);
}

#[test]
fn prepared_statements_keep_their_plans_and_still_find_the_shard() {
    let cluster = cluster_with_accounts();
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        let mut session = cluster.new_session();
        session.sql(&format!("SET plan_cache_mode = {mode}"));
        session.sql("PREPARE get (int) AS SELECT balance FROM accounts WHERE owner = $1");
        session
            .sql("PREPARE put (bigint, int) AS UPDATE accounts SET balance = $1 WHERE owner = $2");
        session
            .sql("PREPARE add (int, int) AS INSERT INTO movements VALUES ($1, $2), ($1, $2 + 1)");
        session.sql("PREPARE remove (int) AS DELETE FROM movements WHERE owner = $1 AND amount >= 1000 RETURNING amount");
        session.sql("PREPARE list (int, int) AS SELECT owner FROM accounts WHERE owner IN ($1, $2) ORDER BY owner");
        session.sql("PREPARE array_of (int[]) AS SELECT owner FROM accounts WHERE owner = ANY ($1) ORDER BY owner");
        session.sql("PREPARE untyped AS SELECT name FROM accounts WHERE owner = $1");
        session.sql("PREPARE sub (int) AS SELECT (SELECT count(*) FROM movements m WHERE m.owner = $1), name FROM accounts WHERE owner = $1");
        for owner in 1..=9 {
            assert_eq!(
                session.text(&format!("EXECUTE get ({owner})")),
                (owner * 100).to_string(),
                "{mode}"
            );
            assert_eq!(
                session.count(&format!("EXECUTE put ({}, {owner})", owner * 100)),
                1,
                "{mode}"
            );
            assert_eq!(session.count(&format!("EXECUTE add ({owner}, 1000)")), 2, "{mode}");
            assert_eq!(
                session.text(&format!("EXECUTE sub ({owner})")),
                format!("6|owner {owner}"),
                "{mode}"
            );
            assert_eq!(session.sql(&format!("EXECUTE remove ({owner})")).len(), 2, "{mode}");
            assert_eq!(
                session.text(&format!("EXECUTE list ({owner}, 50)")),
                format!("{owner}\n50"),
                "{mode}"
            );
            assert_eq!(
                session.text(&format!("EXECUTE array_of ('{{{owner},49}}')")),
                format!("{owner}\n49"),
                "{mode}"
            );
            assert_eq!(
                session.text(&format!("EXECUTE untyped ({owner})")),
                format!("owner {owner}"),
                "{mode}"
            );
        }
        assert_eq!(session.text("EXECUTE get (NULL)"), "", "{mode}");
        assert_eq!(session.warnings(), []);
    }
    let mut session = cluster.new_session();
    session.sql("SET plan_cache_mode = force_generic_plan; PREPARE get (int) AS SELECT balance FROM accounts WHERE owner = $1");
    let plan = session.text("EXPLAIN (COSTS OFF) EXECUTE get (3)");
    assert!(plan.contains("Shards: 1 of 6") && plan.contains("$1"), "{plan}");
    session.sql("EXECUTE get (3)");
    assert_eq!(
        session.text("SELECT generic_plans >= 1, custom_plans FROM pg_prepared_statements"),
        "t|0"
    );
}

const FUNCTIONS: &str = "
    CREATE FUNCTION transfer(sender int, receiver int, amount bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE rest bigint;
    BEGIN
        UPDATE accounts SET balance = balance - amount WHERE owner = sender RETURNING balance INTO STRICT rest;
        UPDATE accounts SET balance = balance + amount WHERE owner = receiver;
        IF NOT FOUND THEN RAISE EXCEPTION 'no account %', receiver; END IF;
        INSERT INTO movements (owner, amount) VALUES (sender, -amount), (receiver, amount);
        RETURN rest;
    END $$;

    CREATE FUNCTION sum_by_loop(first int, last int) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE total bigint := 0; account record; inner_sum bigint;
    BEGIN
        FOR account IN SELECT * FROM accounts WHERE owner BETWEEN first AND last ORDER BY owner LOOP
            SELECT coalesce(sum(amount), 0) INTO inner_sum FROM movements WHERE owner = account.owner;
            total := total + account.balance + inner_sum;
            PERFORM 1 FROM accounts WHERE owner = account.owner;
        END LOOP;
        FOR account IN EXECUTE 'SELECT balance FROM accounts WHERE owner = $1' USING first LOOP
            total := total + account.balance;
        END LOOP;
        RETURN total;
    END $$;

    CREATE FUNCTION by_cursor(wanted int) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE listed CURSOR (who int) FOR SELECT amount FROM movements WHERE owner = who ORDER BY amount; amount int; list text := '';
    BEGIN
        OPEN listed (wanted);
        LOOP
            FETCH listed INTO amount;
            EXIT WHEN NOT FOUND;
            list := list || amount || ' ';
        END LOOP;
        CLOSE listed;
        RETURN list;
    END $$;

    CREATE FUNCTION insert_or_say(who int) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO accounts VALUES (who, 1, 'twice');
        RETURN 'stored';
    EXCEPTION WHEN unique_violation THEN
        RETURN 'exists: ' || SQLERRM;
    END $$;

    CREATE FUNCTION balance_of(int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT balance FROM accounts WHERE owner = $1';
    CREATE FUNCTION accounts_above(bigint) RETURNS SETOF accounts LANGUAGE sql STABLE AS 'SELECT * FROM accounts WHERE balance > $1';
";

#[test]
fn functions_use_distributed_tables_as_they_use_local_ones() {
    let cluster = cluster_with_accounts();
    let mut session = cluster.new_session();
    session.sql(FUNCTIONS);
    for round in 1..=8_i64 {
        assert_eq!(session.text("SELECT transfer(30, 31, 10)"), (3000 - round * 10).to_string());
    }
    let error = session.error("SELECT transfer(30, 4711, 10)");
    assert_eq!(error.line(), "P0001: no account 4711");
    assert_eq!(session.error("SELECT transfer(4711, 30, 10)").sqlstate, "P0002");
    assert_eq!(
        session.text("SELECT owner, balance FROM accounts WHERE owner IN (30, 31) ORDER BY 1"),
        "30|2920\n31|3180"
    );
    let plain = session.text(
        "SELECT (SELECT sum(balance) FROM accounts WHERE owner BETWEEN 5 AND 25) + (SELECT sum(amount) FROM movements WHERE owner BETWEEN 5 AND 25) \
         + (SELECT balance FROM accounts WHERE owner = 5)",
    );
    for _ in 0..7 {
        assert_eq!(session.text("SELECT sum_by_loop(5, 25)"), plain);
        assert_eq!(session.text("SELECT by_cursor(7)"), "6 56 106 156 ");
    }
    let exists = "exists: duplicate key value violates unique constraint \"accounts_pkey\"";
    assert_eq!(
        session.text("SELECT insert_or_say(60), insert_or_say(60), insert_or_say(61)"),
        format!("stored|{exists}|stored")
    );
    assert_eq!(session.text("SELECT count(*) FROM accounts WHERE name = 'twice'"), "2");
    assert_eq!(
        session.text("SELECT balance_of(12), balance_of(13), balance_of(4711)"),
        "1200|1300|NULL"
    );
    assert_eq!(session.text("SELECT count(*) FROM accounts_above(4000)"), "10");
    assert_eq!(session.text("SELECT sum(balance_of(owner)) = sum(balance) FROM accounts"), "t");
    session.sql("DO $$ DECLARE i int; BEGIN FOR i IN 1..10 LOOP INSERT INTO movements VALUES (i, 9999); END LOOP;
                 DELETE FROM movements WHERE owner = 3 AND amount = 9999; END $$");
    assert_eq!(session.text("SELECT count(*) FROM movements WHERE amount = 9999"), "9");
    session.sql("CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO accounts VALUES (70); COMMIT; INSERT INTO accounts VALUES (71); ROLLBACK; INSERT INTO accounts VALUES (72); END $$");
    session.sql("CALL in_steps()");
    assert_eq!(session.text("SELECT owner FROM accounts WHERE owner >= 70 ORDER BY 1"), "70\n72");
    assert_eq!(session.warnings(), []);
    cluster.assert_placements_equal("accounts");
    cluster.assert_placements_equal("movements");
}

#[track_caller]
fn steps(session: &mut Session, steps: &[(&str, &str)]) {
    for (statement, rows) in steps {
        assert_eq!(session.text(statement).replace('\n', " "), *rows, "{statement}");
    }
}

#[test]
fn cursors_move_as_they_do_on_local_tables() {
    let cluster = cluster_with_accounts();
    let mut session = cluster.new_session();
    for query in [
        "SELECT owner FROM accounts WHERE owner <= 9 ORDER BY owner",
        "SELECT amount / 50 * 2 + 1 FROM movements WHERE owner = 1 UNION ALL SELECT 9 ORDER BY 1",
    ] {
        let expected = session.text(query).replace('\n', " ");
        let rows: Vec<&str> = expected.split(' ').collect();
        let last = rows[rows.len() - 1];
        steps(
            &mut session,
            &[
                ("BEGIN", ""),
                (&format!("DECLARE c SCROLL CURSOR FOR {query}"), ""),
                ("FETCH 2 FROM c", &rows[..2].join(" ")),
                ("FETCH NEXT FROM c", rows[2]),
                ("FETCH PRIOR FROM c", rows[1]),
                ("FETCH FIRST FROM c", rows[0]),
                ("FETCH LAST FROM c", last),
                ("FETCH ABSOLUTE 4 FROM c", rows[3]),
                ("FETCH RELATIVE -2 FROM c", rows[1]),
                ("FETCH BACKWARD ALL FROM c", rows[0]),
                ("MOVE 3 IN c", ""),
                ("FETCH FORWARD ALL FROM c", &rows[3..].join(" ")),
                ("FETCH NEXT FROM c", ""),
                ("CLOSE c", ""),
                ("COMMIT", ""),
            ],
        );
        // WITH HOLD outlives its transaction, and does not see what happens later.
        steps(
            &mut session,
            &[
                ("BEGIN", ""),
                (&format!("DECLARE kept CURSOR WITH HOLD FOR {query}"), ""),
                ("FETCH 1 FROM kept", rows[0]),
                ("COMMIT", ""),
                (
                    "BEGIN; DELETE FROM movements WHERE owner = 1; DELETE FROM accounts WHERE owner = 2",
                    "",
                ),
                ("FETCH ALL FROM kept", &rows[1..].join(" ")),
                ("ROLLBACK", ""),
                ("CLOSE kept", ""),
            ],
        );
    }
    // Two cursors and other statements by turns; a cursor that nobody reads to its end.
    steps(
        &mut session,
        &[
            ("BEGIN", ""),
            ("DECLARE a CURSOR FOR SELECT owner FROM accounts ORDER BY owner", ""),
            (
                "DECLARE b CURSOR FOR SELECT amount FROM movements WHERE owner = 7 ORDER BY amount",
                "",
            ),
            ("FETCH 2 FROM a", "1 2"),
            ("FETCH 1 FROM b", "6"),
            ("UPDATE accounts SET balance = 0 WHERE owner = 7", ""),
            ("SELECT count(*) FROM movements", "200"),
            ("FETCH 2 FROM a", "3 4"),
            ("FETCH ALL FROM b", "56 106 156"),
            ("SAVEPOINT s; FETCH 1 FROM a", "5"),
            ("SELECT balance FROM accounts WHERE owner = 7", "0"),
            ("COMMIT", ""),
        ],
    );
    assert_eq!(session.error("FETCH 1 FROM a").sqlstate, "34000");
    let error = session.error(
        "BEGIN; DECLARE d CURSOR FOR SELECT 1 / (owner - 25) FROM accounts; FETCH ALL FROM d",
    );
    assert_eq!(error.sqlstate, "22012");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*) FROM accounts"), "50");
    assert_eq!(cluster.unhealthy("accounts") + cluster.unhealthy("movements"), 0);
}

#[test]
fn casts_through_text_are_computed_before_the_filter_is_sent() {
    // JDBC binds text to an enum's parameter: `state = ?::mood`. PostgreSQL's planner leaves a cstring below the cast, and
    // the workers got `('sad'::cstring)::mood`, which is no SQL. Casts that are not immutable are now computed here.
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE TYPE mood AS ENUM ('sad', 'happy')");
    cluster.create_distributed("CREATE TABLE t (k int, m mood, d date, a int[])", "t", "k", 4, 1);
    let mut session = cluster.new_session();
    session.sql(
        "INSERT INTO t VALUES (1, 'sad', '2024-01-01', '{1}'), (2, 'happy', '2024-01-02', '{2}')",
    );
    for (filter, key) in [
        ("m = 'sad'::text::mood", "1"),
        ("m = 'happy'::varchar::mood AND k = 2", "2"),
        ("d = '2024-01-02'::text::date", "2"),
        ("d < 'now'::text::date AND a = '{1}'::text::int[]", "1"),
        ("m::text = 'sad'", "1"),
    ] {
        assert_eq!(session.text(&format!("SELECT k FROM t WHERE {filter}")), key, "{filter}");
        session.sql(&format!("UPDATE t SET a = a WHERE {filter}"));
    }
    session.sql("PREPARE by_mood (varchar) AS SELECT k FROM t WHERE m = $1::mood");
    for _ in 0..7 {
        assert_eq!(session.text("EXECUTE by_mood('happy')"), "2");
    }
}

#[test]
fn a_statement_may_have_as_many_parameters_as_the_protocol_allows() {
    // Each parameter was compared with all before it, so the time grew with the square of their number. Equal ones are
    // now found at once.
    use testkit::postgres::types::ToSql;
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 2);
    let mut session = cluster.new_session();
    let numbers: Vec<i32> = (0..30_000).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> =
        numbers.iter().map(|number| number as &(dyn ToSql + Sync)).collect();
    let rows: Vec<String> =
        (1..=15_000).map(|row| format!("(${}, ${})", row * 2 - 1, row * 2)).collect();
    let values = rows.join(", ");
    let upsert = format!(
        "INSERT INTO t VALUES {values} ON CONFLICT (k) DO UPDATE SET v = -excluded.v RETURNING v"
    );
    for sum in [225_000_000, -225_000_000] {
        let returned = session.client().query(upsert.as_str(), &parameters).expect("it can be run");
        let total: i64 = returned.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum();
        assert_eq!((returned.len(), total), (15_000, sum));
    }
    assert_eq!(cluster.assert_placements_equal("t"), 15_000);
}
