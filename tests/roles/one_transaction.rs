//! What a transaction has written is seen by whoever reads in it, also with the rights of another owner, or the read is refused.

use crate::with_roles;

/// A view of another owner is read in a session of its owner's, which did not see what the reader's transaction had written: the
/// answer was wrong. Such a read is refused.
#[test]
fn nothing_that_a_transaction_has_written_is_missed_through_a_view() {
    let cluster = with_roles(2);
    cluster.on_all_nodes("ALTER ROLE owner_of_views LOGIN");
    cluster.sql(
        "CREATE VIEW items AS SELECT k, v FROM sharded; ALTER VIEW items OWNER TO owner_of_views; \
         GRANT ALL ON items TO web_user",
    );
    let mut session = cluster.session_as("authenticator");
    session.sql("SET ROLE web_user");
    assert_eq!(session.text("SELECT count(*) FROM items"), "20");
    session.sql("BEGIN");
    assert_eq!(session.text("SELECT count(*) FROM items"), "20");
    session.sql("INSERT INTO sharded SELECT i, 'a', i FROM generate_series(101, 110) AS i");
    let error = session.error("SELECT count(*) FROM items");
    assert_eq!(error.sqlstate, "0A000", "{error:?}");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*) FROM items"), "20");
}
