//! Reading and writing through views.

use testkit::TestCluster;

#[test]
fn a_view_writes_by_key_like_its_table() {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE parcels (number int PRIMARY KEY, weight int, place text DEFAULT 'depot')",
        "parcels",
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
        "INSERT INTO parcels SELECT i, i FROM generate_series(1, 20) AS i; INSERT INTO stops VALUES (3, 'Bonn'), (4, 'Kiel');
         CREATE VIEW light AS SELECT number AS id, place, weight AS grams FROM parcels WHERE weight < 15;
         CREATE VIEW very_light AS SELECT id, grams, place FROM light WHERE grams < 5;
         CREATE VIEW plain AS SELECT * FROM parcels",
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
        ("SELECT count(*), sum(weight) FROM parcels", "21|223"),
    ] {
        assert_eq!(session.text(statement), rows, "{statement}");
    }
    session.sql("PREPARE weigh (int) AS UPDATE light SET grams = 2 WHERE id = $1");
    for _ in 0..7 {
        assert_eq!(session.count("EXECUTE weigh (7)"), 1);
    }
    assert_eq!(
        session.error("UPDATE light SET grams = 0").line(),
        "0A000: cannot modify multiple shards during a single query"
    );
    assert_eq!(
        session.error("UPDATE light SET id = 1 WHERE id = 2").line(),
        "0A000: modifying the partition value of rows is not allowed"
    );
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.assert_placements_equal("parcels"), 21);
}

#[test]
fn a_view_that_checks_rows_refuses_to_write() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE parcels (number int PRIMARY KEY, weight int)",
        "parcels",
        "number",
        4,
        2,
    );
    cluster.sql(
        "INSERT INTO parcels VALUES (1, 1), (2, 2);
         CREATE VIEW checked AS SELECT * FROM parcels WHERE weight < 15 WITH CHECK OPTION;
         CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM parcels WHERE weight < 15",
    );
    for statement in [
        "INSERT INTO checked VALUES (3, 100)",
        "INSERT INTO checked VALUES (3, 1), (4, 1)",
        "UPDATE checked SET weight = 100 WHERE number = 1",
        "UPDATE barrier SET weight = 100 WHERE number = 1",
        "DELETE FROM barrier WHERE number = 1",
        "WITH made AS (INSERT INTO checked VALUES (3, 100) RETURNING 1) SELECT * FROM made",
    ] {
        let error = cluster.error(statement);
        assert_eq!(
            error.line(),
            "0A000: cannot write distributed table \"parcels\" through this view",
            "{statement}"
        );
        assert!(error.detail.contains("WITH CHECK OPTION") && !error.hint.is_empty(), "{error}");
    }
    // What needs no check works.
    cluster.sql("DELETE FROM checked WHERE number = 1; INSERT INTO barrier VALUES (5, 5)");
    assert_eq!(cluster.text("SELECT * FROM barrier ORDER BY 1"), "2|2\n5|5");
    assert_eq!(cluster.assert_placements_equal("parcels"), 2);
}
