//! What a worker is asked for instead of an aggregate, so that PostgreSQL's own combine and final functions can finish it on
//! the coordinator.
//!
//! PostgreSQL finishes an aggregate from transition states. Where the state is the aggregate's result (count, sum, min, max) a
//! worker is asked for the aggregate itself; where it is an array of sums, for these; where it is internal, for what its
//! serialised form consists of. So workers need nothing but PostgreSQL. For a user's aggregate a worker needs the extension,
//! whose own aggregates yield the state.
//!
//! The states are those of `src/backend/utils/adt/numeric.c` and `float.c`.

/// How an aggregate's transition state is computed by a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// It is the result of the aggregate of this name.
    Itself(&'a str),
    /// `int8[]`: number and sum.
    CountAndSum,
    /// `float8[]`: number, sum, and sum of squared deviations from the mean.
    Moments,
    /// `float8[]`: of pairs, number, sum and sum of squared deviations of the second ones, the same of the first ones, and
    /// sum of the deviations' products.
    Pairs,
    /// `interval[]`: sum, and number as microseconds.
    IntervalSum,
    /// Internal: number and sum, and the sum of squares if it is asked for.
    Internal {
        /// The sum of squares.
        squares: bool,
    },
    /// That of a user's aggregate.
    OfUser(UserAggregate<'a>),
}

/// A user's aggregate. All texts are SQL literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserAggregate<'a> {
    /// What tells the node which aggregate is meant: its signature, the types of the arguments, its digest, and the schemas in
    /// which its functions look names up.
    pub identity: [&'a str; 4],
    /// Its state, if there are no rows.
    pub initial: Option<&'a str>,
    /// Its state is bytes that its serial function has made, and not a text.
    pub is_serial: bool,
}

/// The type of a column that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called as PostgreSQL calls them")]
pub enum ColumnType {
    /// That of the aggregate.
    Result,
    Int8,
    Numeric,
    Int8Array,
    Float8Array,
    IntervalArray,
    Bytea,
    Text,
}

/// A call of an aggregate, its expressions printed.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its arguments; none for `count(*)`.
    pub arguments: &'a [String],
    /// Its FILTER.
    pub filter: Option<&'a str>,
}

impl Call<'_> {
    fn filter(&self) -> String {
        self.filter.map_or_else(String::new, |name| format!(" FILTER (WHERE {name})"))
    }

    /// All arguments, or `none` where there are none.
    fn list(&self, none: &str) -> String {
        if self.arguments.is_empty() { none.to_owned() } else { self.arguments.join(", ") }
    }

    /// Its only argument.
    fn only(&self) -> &str {
        self.arguments.first().map_or("*", String::as_str)
    }

    /// An aggregate of this argument, under the same filter.
    fn of(&self, function: &str, argument: &str) -> String {
        format!("{function}({argument}){}", self.filter())
    }

    /// The sum of the first of these arguments where the second is not NULL either.
    fn sum_of_pairs(&self, summed: usize, other: usize) -> String {
        let (summed, other) = (&self.arguments[summed], &self.arguments[other]);
        let and = self.filter.map_or_else(String::new, |it| format!(" AND ({it})"));
        format!("sum({summed}) FILTER (WHERE ({other}) IS NOT NULL{and})")
    }
}

impl Form<'_> {
    /// The columns that a worker is asked for.
    pub fn columns(&self, call: Call<'_>) -> Vec<(String, ColumnType)> {
        let only = call.only();
        let one = |text, column_type| vec![(text, column_type)];
        match self {
            Self::OfUser(aggregate) => one(
                aggregate.sql(call),
                if aggregate.is_serial { ColumnType::Bytea } else { ColumnType::Text },
            ),
            Self::Itself(name) => {
                let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
                one(call.of(name, &call.list("*")), ColumnType::Result)
            }
            Self::CountAndSum => {
                let (count, sum) = (call.of("count", only), call.of("sum", only));
                one(format!("ARRAY[{count}, coalesce({sum}, 0)]"), ColumnType::Int8Array)
            }
            Self::Moments => {
                let count = call.of("count", only);
                let sum = call.of("sum", &format!("{only}::float8"));
                let variance = call.of("var_pop", &format!("{only}::float8"));
                // PostgreSQL adds to zero, which makes -0 of nothing but -0 positive.
                let text = format!(
                    "ARRAY[{count}::float8, coalesce({sum}, 0) + 0, coalesce({variance} * {count}, 0)]"
                );
                one(text, ColumnType::Float8Array)
            }
            Self::Pairs => {
                let of_both = |function: &str| call.of(function, &call.list("*"));
                let text = format!(
                    "ARRAY[{}::float8, coalesce({}, 0) + 0, coalesce({}, 0), coalesce({}, 0) + 0, coalesce({}, 0), coalesce({}, 0)]",
                    of_both("regr_count"),
                    call.sum_of_pairs(1, 0),
                    of_both("regr_sxx"),
                    call.sum_of_pairs(0, 1),
                    of_both("regr_syy"),
                    of_both("regr_sxy"),
                );
                one(text, ColumnType::Float8Array)
            }
            Self::IntervalSum => {
                let (count, sum) = (call.of("count", only), call.of("sum", only));
                let text = format!(
                    "ARRAY[coalesce({sum}, interval '0'), {count} * interval '1 microsecond']"
                );
                one(text, ColumnType::IntervalArray)
            }
            Self::Internal { squares } => {
                // A sum of int8 or numeric is numeric, one of smaller numbers int8.
                let sum = format!("({})::numeric", call.of("sum", only));
                let mut columns =
                    vec![(call.of("count", only), ColumnType::Int8), (sum, ColumnType::Numeric)];
                if *squares {
                    let square = format!("{only}::numeric * {only}::numeric");
                    columns.push((call.of("sum", &square), ColumnType::Numeric));
                }
                columns
            }
        }
    }
}

impl UserAggregate<'_> {
    fn sql(&self, call: Call<'_>) -> String {
        let name = if self.is_serial { "serial_state" } else { "partial_state" };
        let (identity, list) = (self.identity.join(", "), call.list("true"));
        let state = call.of(&format!("pgs_catalog.{name}"), &format!("{identity}, {list}"));
        // Of no rows our aggregate would not know whose state it is.
        self.initial.map_or_else(
            || state.clone(),
            |initial| {
                let count = call.of("count", "*");
                format!("CASE WHEN {count} > 0 THEN {state} ELSE {initial} END")
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns as `text: type; ...`.
    fn asked(form: Form<'_>, arguments: &[&str], filter: Option<&str>) -> String {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let columns = form.columns(Call { arguments: &arguments, filter });
        let columns = columns.into_iter().map(|(text, of)| format!("{text}: {of:?}"));
        columns.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_its_own_state_is_asked_for_by_its_name() {
        assert_eq!(asked(Form::Itself("pg_catalog.count"), &[], None), "count(*): Result");
        assert_eq!(asked(Form::Itself("pg_catalog.max"), &["c1"], None), "max(c1): Result");
        assert_eq!(asked(Form::Itself("other.max"), &["c1"], None), "other.max(c1): Result");
    }

    #[test]
    fn a_filter_goes_to_the_worker() {
        assert_eq!(
            asked(Form::Itself("pg_catalog.sum"), &["c1"], Some("c2")),
            "sum(c1) FILTER (WHERE c2): Result"
        );
    }

    #[test]
    fn the_average_of_small_numbers_is_a_count_and_a_sum() {
        assert_eq!(
            asked(Form::CountAndSum, &["c1"], None),
            "ARRAY[count(c1), coalesce(sum(c1), 0)]: Int8Array"
        );
    }

    #[test]
    fn each_part_of_an_average_has_the_filter() {
        assert_eq!(
            asked(Form::CountAndSum, &["c1"], Some("c2")),
            "ARRAY[count(c1) FILTER (WHERE c2), coalesce(sum(c1) FILTER (WHERE c2), 0)]: Int8Array"
        );
    }

    #[test]
    fn moments_are_computed_in_double_precision() {
        assert_eq!(
            asked(Form::Moments, &["c1"], None),
            "ARRAY[count(c1)::float8, coalesce(sum(c1::float8), 0) + 0, \
             coalesce(var_pop(c1::float8) * count(c1), 0)]: Float8Array"
        );
    }

    #[test]
    fn a_pair_counts_only_if_neither_is_null() {
        let asked = asked(Form::Pairs, &["y", "x"], None);
        assert!(asked.contains("coalesce(sum(x) FILTER (WHERE (y) IS NOT NULL), 0)"), "{asked}");
        assert!(asked.contains("coalesce(sum(y) FILTER (WHERE (x) IS NOT NULL), 0)"), "{asked}");
        assert!(asked.starts_with("ARRAY[regr_count(y, x)::float8, "), "{asked}");
    }

    #[test]
    fn a_filter_of_pairs_is_added_to_that_of_nulls() {
        let asked = asked(Form::Pairs, &["y", "x"], Some("c3"));
        assert!(asked.contains("sum(x) FILTER (WHERE (y) IS NOT NULL AND (c3))"), "{asked}");
        assert!(asked.contains("regr_sxy(y, x) FILTER (WHERE c3)"), "{asked}");
    }

    #[test]
    fn a_sum_of_intervals_counts_in_microseconds() {
        assert_eq!(
            asked(Form::IntervalSum, &["c1"], None),
            "ARRAY[coalesce(sum(c1), interval '0'), count(c1) * interval '1 microsecond']: IntervalArray"
        );
    }

    #[test]
    fn an_internal_state_is_asked_for_in_columns() {
        assert_eq!(
            asked(Form::Internal { squares: false }, &["c1"], None),
            "count(c1): Int8; (sum(c1))::numeric: Numeric"
        );
        assert_eq!(
            asked(Form::Internal { squares: true }, &["c1"], None),
            "count(c1): Int8; (sum(c1))::numeric: Numeric; \
             sum(c1::numeric * c1::numeric): Numeric"
        );
    }

    const OF_USER: UserAggregate<'_> = UserAggregate {
        identity: ["'s.f(integer)'", "'integer'", "'digest'", "''"],
        initial: None,
        is_serial: false,
    };

    #[test]
    fn a_users_aggregate_is_asked_for_by_ours() {
        assert_eq!(
            asked(Form::OfUser(OF_USER), &["c1", "c2"], None),
            "pgs_catalog.partial_state('s.f(integer)', 'integer', 'digest', '', c1, c2): Text"
        );
        let serial = UserAggregate { is_serial: true, ..OF_USER };
        assert_eq!(
            asked(Form::OfUser(serial), &[], None),
            "pgs_catalog.serial_state('s.f(integer)', 'integer', 'digest', '', true): Bytea"
        );
    }

    #[test]
    fn a_users_aggregate_of_no_rows_has_its_initial_state() {
        let with_initial = UserAggregate { initial: Some("'{0,0}'"), ..OF_USER };
        assert_eq!(
            asked(Form::OfUser(with_initial), &["c1"], Some("c2")),
            "CASE WHEN count(*) FILTER (WHERE c2) > 0 THEN \
             pgs_catalog.partial_state('s.f(integer)', 'integer', 'digest', '', c1) FILTER (WHERE c2) \
             ELSE '{0,0}' END: Text"
        );
    }
}
