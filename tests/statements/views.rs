//! Reading and writing through views.

use testkit::TestCluster;

#[test]
fn a_view_writes_by_key_like_its_table() {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE row_changes (number int PRIMARY KEY, weight int, place text DEFAULT 'depot')",
        "row_changes",
        "number",
        6,
        2,
    );
    cluster.create_distributed(
        "CREATE TABLE stops (number int, town text)",
        "stops",
        "number",
        6,
        2,
    );
    cluster.sql(
        "INSERT INTO row_changes SELECT i, i FROM generate_series(1, 20) AS i; INSERT INTO stops VALUES (3, 'Bonn'), (4, 'Kiel');
         CREATE VIEW light AS SELECT number AS id, place, weight AS grams FROM row_changes WHERE weight < 15;
         CREATE VIEW very_light AS SELECT id, grams, place FROM light WHERE grams < 5;
         CREATE VIEW plain AS SELECT * FROM row_changes",
    );
    let mut session = cluster.new_session();
    for (statement, rows) in [
        ("UPDATE light SET grams = grams + 1 WHERE id = 3 RETURNING *", "3|depot|4"),
        ("UPDATE light SET place = 'x' WHERE id = 16 RETURNING *", ""),
        (
            "UPDATE very_light AS v SET place = 'shelf' WHERE v.id = 2 RETURNING v.place, grams",
            "shelf|2",
        ),
        (
            "UPDATE light SET place = town FROM stops WHERE id = 3 AND stops.number = 3 RETURNING id, light.place",
            "3|Bonn",
        ),
        ("UPDATE light SET place = DEFAULT WHERE id = 3 RETURNING place", "NULL"),
        ("DELETE FROM light USING stops WHERE id = 4 AND stops.number = id RETURNING town", "Kiel"),
        ("DELETE FROM very_light WHERE id = 1 RETURNING *", "1|1|depot"),
        ("DELETE FROM light WHERE id = 17 RETURNING *", ""),
        ("INSERT INTO light VALUES (30, 'new', 1) RETURNING *", "30|new|1"),
        (
            "INSERT INTO very_light (id, grams) VALUES (31, 1), (32, 2), (33, 3) RETURNING id, place",
            "31|depot\n32|depot\n33|depot",
        ),
        (
            "INSERT INTO plain VALUES (30, 5) ON CONFLICT (number) DO UPDATE SET weight = excluded.weight + 1 RETURNING weight",
            "6",
        ),
        (
            "INSERT INTO plain VALUES (30, 7), (31, 8) ON CONFLICT (number) DO UPDATE SET weight = excluded.weight + 1 RETURNING weight",
            "8\n9",
        ),
        ("WITH gone AS (DELETE FROM light WHERE id = 5 RETURNING *) SELECT id FROM gone", "5"),
        ("SELECT count(*), sum(weight) FROM row_changes", "21|223"),
    ] {
        assert_eq!(session.text(statement), rows, "{statement}");
    }
    session.sql("PREPARE weigh (int) AS UPDATE light SET grams = 2 WHERE id = $1");
    for _ in 0..7 {
        assert_eq!(session.count("EXECUTE weigh (7)"), 1);
    }
    let light = session.text("SELECT count(*) FROM light");
    session.sql("BEGIN");
    assert_eq!(session.count("UPDATE light SET grams = 0").to_string(), light);
    session.sql("ROLLBACK");
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.assert_placements_equal("row_changes"), 21);
}

#[test]
fn a_view_checks_the_rows_that_are_written_through_it() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE row_changes (number int PRIMARY KEY, weight int)",
        "row_changes",
        "number",
        4,
        2,
    );
    cluster.sql(
        "INSERT INTO row_changes VALUES (1, 1), (2, 2), (3, 30);
         CREATE VIEW checked AS SELECT * FROM row_changes WHERE weight < 15 WITH CHECK OPTION;
         CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM row_changes WHERE weight < 15",
    );
    for statement in [
        "INSERT INTO checked VALUES (4, 100)",
        "INSERT INTO checked VALUES (4, 1), (5, 100)",
        "UPDATE checked SET weight = 100 WHERE number = 1",
        "UPDATE checked SET weight = weight + 13",
        "WITH made AS (INSERT INTO checked VALUES (4, 100) RETURNING 1) SELECT * FROM made",
        "INSERT INTO checked VALUES (1, 1) ON CONFLICT (number) DO UPDATE SET weight = 100",
    ] {
        assert_eq!(
            cluster.error(statement).line(),
            "44000: new row violates check option for view \"checked\"",
            "{statement}"
        );
    }
    assert_eq!(cluster.text("SELECT * FROM row_changes ORDER BY 1"), "1|1\n2|2\n3|30");
    for (statement, rows) in [
        ("INSERT INTO checked VALUES (4, 4), (5, 5) RETURNING number", "4\n5"),
        ("UPDATE checked SET weight = weight + 1 RETURNING number, weight", "1|2\n2|3\n4|5\n5|6"),
        ("UPDATE barrier SET weight = 100 WHERE number = 1 RETURNING *", "1|100"),
        ("UPDATE barrier SET weight = 100 WHERE number = 3 RETURNING *", ""),
        ("DELETE FROM barrier WHERE number >= 4 RETURNING *", "4|5\n5|6"),
        ("DELETE FROM checked WHERE number = 2 RETURNING *", "2|3"),
    ] {
        let mut found = cluster.sql(statement);
        found.sort();
        let lines: Vec<String> = found.iter().map(|row| row.join("|")).collect();
        assert_eq!(lines.join("\n"), rows, "{statement}");
    }
    cluster.sql("INSERT INTO barrier VALUES (5, 5)");
    assert_eq!(cluster.text("SELECT * FROM row_changes ORDER BY 1"), "1|100\n3|30\n5|5");
    assert_eq!(cluster.assert_placements_equal("row_changes"), 3);
}

#[test]
fn a_view_lends_its_owners_rights_on_the_workers_too() {
    // Sessions to the workers carried the name of the current role, who has no rights on the shards.
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE keeper LOGIN; CREATE ROLE visitor LOGIN; GRANT CREATE ON SCHEMA public TO keeper, visitor");
    let mut keeper = cluster.session_as("keeper");
    keeper.sql(
        "CREATE TABLE paintings (number int PRIMARY KEY, title text, price int);
         SELECT master_create_distributed_table('paintings', 'number'); SELECT master_create_worker_shards('paintings', 4, 2);
         INSERT INTO paintings SELECT i, 'p' || i, i * 100 FROM generate_series(1, 20) AS i;
         CREATE VIEW shown AS SELECT number, title FROM paintings; GRANT SELECT, INSERT, UPDATE, DELETE ON shown TO visitor",
    );
    let mut visitor = cluster.session_as("visitor");
    visitor.sql(
        "CREATE TABLE liked (number int, who text); SELECT master_create_distributed_table('liked', 'number');
         SELECT master_create_worker_shards('liked', 4, 2); INSERT INTO liked VALUES (3, 'me')",
    );
    for (statement, rows) in [
        ("SELECT title, current_user FROM shown WHERE number = 3", "p3|visitor"),
        ("SELECT count(*) FROM shown", "20"),
        ("SELECT title, who FROM shown JOIN liked USING (number)", "p3|me"),
        ("SELECT title, who FROM shown JOIN liked USING (number) WHERE number = 3", "p3|me"),
        ("UPDATE shown SET title = current_user WHERE number = 4 RETURNING title", "visitor"),
        ("DELETE FROM shown WHERE number = 5 RETURNING number", "5"),
        ("INSERT INTO shown VALUES (50, 'new') RETURNING title", "new"),
        ("INSERT INTO shown VALUES (51, 'a'), (52, 'b') RETURNING number", "51\n52"),
        ("INSERT INTO shown SELECT i FROM generate_series(60, 69) AS i", ""),
        (
            "WITH gone AS (DELETE FROM shown WHERE number = 60 RETURNING *) SELECT number FROM gone",
            "60",
        ),
        ("SELECT title FROM shown WHERE number = 4 FOR UPDATE", "visitor"),
    ] {
        assert_eq!(visitor.text(statement), rows, "{statement}");
    }
    let denied = "42501: permission denied for table paintings";
    assert_eq!(visitor.error("SELECT * FROM paintings").line(), denied);
    assert_eq!(visitor.error("SELECT * FROM paintings WHERE number = 1").line(), denied);
    assert_eq!(visitor.error("UPDATE shown SET title = 'x' FROM paintings p WHERE shown.number = 1 AND p.number = 1").line(), denied);
    // A function of the visitor's own must not run with the owner's rights.
    cluster.on_all_nodes("SET ROLE visitor; CREATE FUNCTION spy(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT current_user::text'");
    for statement in [
        "UPDATE shown SET title = spy(title) WHERE number = 4 RETURNING title",
        "INSERT INTO shown VALUES (90, 'x') RETURNING spy(title)",
        "WITH gone AS (DELETE FROM shown WHERE number = 90 RETURNING spy(title)) SELECT * FROM gone",
    ] {
        assert_eq!(visitor.text(statement), "visitor", "{statement}");
    }
    assert_eq!(visitor.text("SELECT spy(title) FROM shown WHERE number = 4"), "visitor");
    // Afterwards everybody is who he was.
    visitor.sql("UPDATE liked SET who = current_user WHERE number = 3");
    assert_eq!(visitor.error("DELETE FROM paintings WHERE number = 1").line(), denied);
    assert_eq!(keeper.text("SELECT count(*) FROM shown"), "31");
    assert_eq!(cluster.assert_placements_equal("paintings"), 31);
}
