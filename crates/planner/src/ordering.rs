//! Sorting, as SQL.

/// How rows are sorted by one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

impl Direction {
    /// What stands behind the key. Where NULLs go is said if it is not what goes without saying.
    pub fn sql(self) -> &'static str {
        match (self.descending, self.nulls_first) {
            (false, false) => "",
            (false, true) => " NULLS FIRST",
            (true, false) => " DESC NULLS LAST",
            (true, true) => " DESC",
        }
    }
}

/// ` ORDER BY ... LIMIT ...`, as far as they are asked for.
pub fn order_and_limit(order: &[String], limit: Option<i64>) -> String {
    let mut sql = String::new();
    if !order.is_empty() {
        sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
    }
    if let Some(limit) = limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_mentioned_only_where_postgresql_would_put_them_elsewhere() {
        let sql = |descending, nulls_first| Direction { descending, nulls_first }.sql();
        assert_eq!([sql(false, false), sql(true, true)], ["", " DESC"]);
        assert_eq!([sql(false, true), sql(true, false)], [" NULLS FIRST", " DESC NULLS LAST"]);
    }

    #[test]
    fn what_is_not_asked_for_is_not_printed() {
        let keys = ["c1".to_owned(), "c2 DESC".to_owned()];
        assert_eq!(order_and_limit(&[], None), "");
        assert_eq!(order_and_limit(&[], Some(0)), " LIMIT 0");
        assert_eq!(order_and_limit(&keys, Some(7)), " ORDER BY c1, c2 DESC LIMIT 7");
    }
}
