//! The SQL by which the keys of rows that change are noted while the rows are copied elsewhere.
//!
//! A trigger of the table puts each key into a table of *changes*. Who catches up takes the keys from there into a table of
//! *keys*, each once, and sees to the rows of these. It is plain SQL, so the server needs no library, and no `wal_level`.

use crate::definition::objects::literal;
use crate::definition::roles::quoted;

/// The qualified, quoted names of what notes the changes of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeCapture {
    /// The table of keys that are seen to.
    pub keys: String,
    changes: String,
    function: String,
}

impl ChangeCapture {
    /// The names in a schema; `suffix` says whose they are.
    pub fn named(schema: &str, suffix: &str) -> Self {
        let name =
            |what: &str| format!("{}.{}", quoted(schema), quoted(&format!("pgs_{what}_{suffix}")));
        Self { keys: name("keys"), changes: name("changes"), function: name("capture") }
    }

    /// Statements that begin to note changes of a table, by these quoted columns of its, for its owner.
    ///
    /// None of them has a query of the table planned, which would evaluate expressions of its owner: whoever runs them may be a
    /// superuser.
    pub fn begin(&self, table: &str, key: &[String], owner: &str) -> Vec<String> {
        let Self { keys, changes, function } = self;
        let columns = key.join(", ");
        let of = |row: &str| {
            let values: Vec<String> = key.iter().map(|column| format!("{row}.{column}")).collect();
            values.join(", ")
        };
        let body = format!(
            "BEGIN IF TG_OP <> 'INSERT' THEN INSERT INTO {changes} VALUES ({}); END IF; \
             IF TG_OP <> 'DELETE' THEN INSERT INTO {changes} VALUES ({}); END IF; RETURN NULL; END",
            of("OLD"),
            of("NEW")
        );
        let mut statements = self.end();
        for noted in [changes, keys] {
            statements.push(format!(
                "CREATE UNLOGGED TABLE {noted} AS SELECT {columns} FROM ONLY {table} WITH NO DATA"
            ));
            statements.push(format!("ALTER TABLE {noted} OWNER TO {owner}"));
        }
        statements.extend([
            format!(
                "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
                 SET search_path = pg_catalog, pg_temp AS {}",
                literal(&body)
            ),
            format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
            format!("ALTER FUNCTION {function}() OWNER TO {owner}"),
            format!(
                "CREATE TRIGGER pgs_capture AFTER INSERT OR UPDATE OR DELETE ON {table} \
                 FOR EACH ROW EXECUTE FUNCTION {function}()"
            ),
            // Also for writes that do as replication does.
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER pgs_capture"),
        ]);
        statements
    }

    /// Statements that end it. The trigger goes with its function.
    pub fn end(&self) -> Vec<String> {
        vec![
            format!("DROP FUNCTION IF EXISTS {}() CASCADE", self.function),
            format!("DROP TABLE IF EXISTS {}, {}", self.changes, self.keys),
        ]
    }

    /// Statements that take the keys noted since the last time; the second one's count is theirs.
    pub fn take(&self, key: &[String]) -> [String; 2] {
        let (Self { keys, changes, .. }, columns) = (self, key.join(", "));
        [
            format!("DELETE FROM {keys}"),
            format!(
                "WITH taken AS (DELETE FROM {changes} RETURNING {columns}) INSERT INTO {keys} SELECT DISTINCT {columns} FROM taken"
            ),
        ]
    }
}

/// The row has the key that stands in `pgs_key`. Columns of keys are of PostgreSQL's own types.
pub fn has_key(key: &[String], row: &str) -> String {
    let each: Vec<String> = key
        .iter()
        .map(|column| format!("pgs_key.{column} OPERATOR(pg_catalog.=) {row}.{column}"))
        .collect();
    each.join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_begins_a_capture_queries_the_table() {
        let capture = ChangeCapture::named("it's", "10000");
        let statements = capture.begin("s.t_10000", &["a".to_owned(), "\"B\"".to_owned()], "o");
        let reads: Vec<&String> = statements.iter().filter(|it| it.contains("SELECT")).collect();
        assert_eq!(reads.len(), 2);
        assert!(
            reads.iter().all(|it| it.ends_with("FROM ONLY s.t_10000 WITH NO DATA")),
            "{reads:?}"
        );
        let body = statements.iter().find(|it| it.starts_with("CREATE FUNCTION")).unwrap();
        assert!(
            body.contains(r#"INSERT INTO "it''s"."pgs_changes_10000" VALUES (OLD.a, OLD."B")"#),
            "{body}"
        );
    }

    #[test]
    fn a_key_is_compared_by_the_operators_of_the_server() {
        let key = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            has_key(&key, "r"),
            "pgs_key.a OPERATOR(pg_catalog.=) r.a AND pgs_key.b OPERATOR(pg_catalog.=) r.b"
        );
    }
}
