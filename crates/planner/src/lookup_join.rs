//! The SQL of a lookup join: the right side of a node's shards, `b2`, is looked through for rows that have been sent, `b1`, whose last
//! column is their number.
//!
//! A worker knows how many rows an array has, and nothing of their values: it takes each for one of two hundred, and what is
//! joined with them for a multitude. So it is asked for a comparison that always holds, of which it thinks that one in two hundred
//! rows passes. Then it looks the rows up by an index, if it can, or puts them in a hash table. The latter is better if they
//! are more than a few: then the union of the shards stands behind a fence (OFFSET 0), which no look-up passes.

use crate::enclosing::names;

/// What the statement of a node says around the union of its shards.
#[derive(Clone, Copy, Debug)]
pub struct LookupJoin<'a> {
    /// What is selected, of `b1` and `b2`; the number first.
    pub list: &'a [String],
    /// How many columns a shard's SELECT yields.
    pub inner: usize,
    /// How many columns the rows that are sent have.
    pub arrays: usize,
    /// `unnest(...) b1(...)`.
    pub rows: &'a str,
    /// What a match is.
    pub on: &'a str,
    /// Filters of the right side that stand here and not in the SELECTs of its shards.
    pub filters: &'a str,
    /// So many rows may look theirs up one by one, by an index of each shard.
    pub few: Option<i64>,
    /// Each match comes, sorted by number, and not only the numbers of rows that have one.
    pub all: bool,
}

/// The conditions behind `opening`, if there are any.
fn behind(opening: &str, conditions: &str) -> String {
    if conditions.is_empty() { String::new() } else { format!("{opening}{conditions}") }
}

impl LookupJoin<'_> {
    /// What stands before and behind the union.
    pub fn around(&self) -> (String, String) {
        let Self { arrays, rows, .. } = self;
        let (list, names) = (self.list.join(", "), names(self.inner, 'c').join(", "));
        let holds = format!("b1.c{arrays} + 0 = b1.c{arrays}{}", behind(" AND ", self.on));
        let (distinct, order) = if self.all { ("", " ORDER BY 1") } else { ("DISTINCT ", "") };
        let Some(few) = self.few else {
            return (
                format!("SELECT {distinct}{list} FROM ("),
                format!(" OFFSET 0) b2({names}), {rows} WHERE {holds}{order}"),
            );
        };
        let count = format!("cardinality(${arrays})");
        let filtered = behind(" WHERE ", self.filters);
        let looked_up = self.looked_up(&format!("{count} <= {few}"), &holds);
        (
            format!("WITH b2({names}) AS NOT MATERIALIZED ("),
            format!(
                ") SELECT {list} FROM {looked_up} UNION ALL SELECT {distinct}{list} FROM \
                 (SELECT * FROM b2{filtered} OFFSET 0) b2, {rows} WHERE {count} > {few} AND {holds}{order}"
            ),
        )
    }

    /// FROM and WHERE of the part in which rows look theirs up.
    fn looked_up(&self, are_few: &str, holds: &str) -> String {
        let Self { arrays, rows, on, filters, .. } = self;
        if self.all {
            let filtered = behind(" AND ", filters);
            return format!("b2, {rows} WHERE {are_few} AND {holds}{filtered}");
        }
        let both = format!("{on}{}", behind(if on.is_empty() { "" } else { " AND " }, filters));
        let always = format!("b1.c{arrays} + 0 = b1.c{arrays}");
        let found = behind(" WHERE ", &both);
        format!("{rows} WHERE {are_few} AND {always} AND EXISTS (SELECT FROM b2{found})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(all: bool, few: Option<i64>, filters: &str) -> String {
        let list = if all {
            vec!["b1.c2".to_owned(), "b2.c1".to_owned()]
        } else {
            vec!["b1.c2".to_owned()]
        };
        let join = LookupJoin {
            list: &list,
            inner: 1,
            arrays: 2,
            rows: "unnest($1::int4[], $2::int4[]) b1(c1, c2)",
            on: "(b2.c1 = b1.c1)",
            filters,
            few,
            all,
        };
        let (opening, closing) = join.around();
        format!("{opening}...{closing}")
    }

    #[test]
    fn rows_of_a_left_join_come_with_their_numbers_in_order() {
        assert_eq!(
            sql(true, None, ""),
            "SELECT b1.c2, b2.c1 FROM (... OFFSET 0) b2(c1), unnest($1::int4[], $2::int4[]) b1(c1, c2) \
             WHERE b1.c2 + 0 = b1.c2 AND (b2.c1 = b1.c1) ORDER BY 1"
        );
    }

    #[test]
    fn a_semi_join_asks_for_each_number_once() {
        assert_eq!(
            sql(false, None, ""),
            "SELECT DISTINCT b1.c2 FROM (... OFFSET 0) b2(c1), unnest($1::int4[], $2::int4[]) b1(c1, c2) \
             WHERE b1.c2 + 0 = b1.c2 AND (b2.c1 = b1.c1)"
        );
    }

    #[test]
    fn a_few_rows_look_theirs_up_and_more_read_the_table() {
        assert_eq!(
            sql(true, Some(25), "(b2.c1 > 3)"),
            "WITH b2(c1) AS NOT MATERIALIZED (...) SELECT b1.c2, b2.c1 FROM b2, \
             unnest($1::int4[], $2::int4[]) b1(c1, c2) WHERE cardinality($2) <= 25 \
             AND b1.c2 + 0 = b1.c2 AND (b2.c1 = b1.c1) AND (b2.c1 > 3) \
             UNION ALL SELECT b1.c2, b2.c1 FROM (SELECT * FROM b2 WHERE (b2.c1 > 3) OFFSET 0) b2, \
             unnest($1::int4[], $2::int4[]) b1(c1, c2) WHERE cardinality($2) > 25 \
             AND b1.c2 + 0 = b1.c2 AND (b2.c1 = b1.c1) ORDER BY 1"
        );
    }

    #[test]
    fn a_few_rows_of_a_semi_join_are_found_or_not() {
        let sql = sql(false, Some(25), "(b2.c1 > 3)");
        assert!(
            sql.contains(
                "WHERE cardinality($2) <= 25 AND b1.c2 + 0 = b1.c2 \
                 AND EXISTS (SELECT FROM b2 WHERE (b2.c1 = b1.c1) AND (b2.c1 > 3)) UNION ALL"
            ),
            "{sql}"
        );
    }

    #[test]
    fn a_join_without_filters_has_no_where_for_them() {
        assert!(sql(true, Some(1), "").contains("(SELECT * FROM b2 OFFSET 0) b2"));
    }
}
