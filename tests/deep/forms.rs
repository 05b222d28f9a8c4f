//! Expressions that are deep or wide, of any size.

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yields {
    /// A condition.
    Condition,
    /// An integer.
    Number,
}

/// A way of making an expression over the columns `k` and `v` large.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) yields: Yields,
    /// The expression of this size.
    pub(crate) make: fn(usize) -> String,
    /// A size that has to work as with a local table.
    pub(crate) fits: usize,
    /// A size at which a server may say that its stack, or its parser's, is not enough.
    pub(crate) beyond: usize,
}

fn nested(open: &str, inner: &str, close: &str, size: usize) -> String {
    format!("{}{inner}{}", open.repeat(size), close.repeat(size))
}

fn list(size: usize, separator: &str, each: impl Fn(usize) -> String) -> String {
    (0..size).map(each).collect::<Vec<_>>().join(separator)
}

const fn number(name: &'static str, make: fn(usize) -> String, fits: usize, beyond: usize) -> Form {
    Form { name, yields: Yields::Number, make, fits, beyond }
}

const fn condition(
    name: &'static str,
    make: fn(usize) -> String,
    fits: usize,
    beyond: usize,
) -> Form {
    Form { name, yields: Yields::Condition, make, fits, beyond }
}

/// All of them.
pub(crate) const FORMS: [Form; 16] = [
    condition(
        "rows in a list",
        |n| format!("(k, v) IN ({})", list(n, ", ", |i| format!("({i}, {})", i * 10))),
        1_300,
        6_200,
    ),
    condition(
        "values in a list",
        |n| format!("v IN ({})", list(n, ", ", |i| (i * 7).to_string())),
        5_000,
        20_000,
    ),
    condition(
        "branches of OR",
        |n| list(n, " OR ", |i| format!("k = {i} AND v <> {i}")),
        1_300,
        5_000,
    ),
    condition(
        "OR and AND in turn",
        |n| nested("(v > 0 OR k = 1 AND ", "v < 100", ")", n),
        600,
        3_000,
    ),
    condition("NOT", |n| nested("NOT (v = 10 OR ", "k = 2", ")", n), 200, 3_000),
    condition(
        "CASE of conditions",
        |n| nested("CASE WHEN k = 1 THEN ", "v > 0", " ELSE v < 90 END", n),
        400,
        1_500,
    ),
    condition(
        "rows in rows",
        |n| format!("{} IS NOT NULL", nested("ROW(", "v", ")", n)),
        200,
        3_000,
    ),
    number("operators", |n| list(n, " + ", |_| "v".to_owned()), 1_300, 5_000),
    number("operators in parentheses", |n| nested("(1 + ", "v", ")", n), 1_300, 4_500),
    number("calls", |n| nested("abs(", "v", ")", n), 1_300, 4_500),
    number(
        "calls of stable functions",
        |n| nested("date_part('day', now() - now())::int + abs(", "v", ")", n),
        300,
        1_500,
    ),
    number("CASE", |n| nested("CASE WHEN v = 10 THEN ", "v", " ELSE 0 END", n), 600, 2_500),
    number("COALESCE", |n| nested("coalesce(NULL, ", "v", ")", n), 1_000, 4_500),
    number("casts", |n| nested("(", "v", ")::bigint::int", n), 600, 4_500),
    number("arrays", |n| nested("(ARRAY[", "v", "])[1]", n), 300, 3_000),
    Form {
        name: "sub-queries",
        yields: Yields::Number,
        make: |n| nested("(SELECT ", "v", ")", n),
        fits: 60,
        beyond: 1_000,
    },
];
