//! The rules that look at one file.

use super::finding::{Finding, Rule};
use super::source::Source;

/// Lines of a file that need no reason.
const FILE_LINES: usize = 800;

/// Lines of a function that need no reason. The aim is below 40.
const FUNCTION_LINES: usize = 80;

/// What is wrong with the file at `path`, relative to the repository.
pub(super) fn check(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(header(path, source));
    findings.extend(file_length(path, source));
    if is_product(path) {
        findings.extend(function_lengths(path, source));
        findings.extend(postgres_outside_the_wall(path, source));
        findings.extend(raw_sqlstates(path, source));
    }
    findings
}

/// The file is no test.
fn is_product(path: &str) -> bool {
    path.contains("/src/") && !path.ends_with("/tests.rs")
}

fn header(path: &str, source: &Source) -> Option<Finding> {
    let has_header = source
        .text
        .lines()
        .find(|line| !line.starts_with("#!"))
        .is_some_and(|line| line.starts_with("//!"));
    (!has_header).then(|| {
        Finding::new(
            Rule::Header,
            path,
            1,
            "does not begin with `//!`: what this is, the idea, what it assumes",
        )
    })
}

fn file_length(path: &str, source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES).then(|| {
        Finding::new(
            Rule::FileLength,
            path,
            lines,
            &format!("has {lines} lines; beyond {FILE_LINES} a file is divided by what is in it"),
        )
    })
}

/// The longest function of each name.
fn function_lengths(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for function in source.functions().into_iter().filter(|it| it.lines > FUNCTION_LINES) {
        let place = format!("{path}#{}", function.name);
        match findings.iter_mut().find(|it| it.place == place) {
            Some(known) => known.figure = known.figure.max(function.lines),
            None => findings.push(Finding::new(
                Rule::FunctionLength,
                &place,
                function.lines,
                &format!("has {} lines; beyond {FUNCTION_LINES} it needs a reason", function.lines),
            )),
        }
    }
    findings
}

/// Outside of `crates/pg` there are no pointers: of PostgreSQL's bindings `Oid` alone, which is a number.
fn postgres_outside_the_wall(path: &str, source: &Source) -> Option<Finding> {
    if path.starts_with("crates/pg/") {
        return None;
    }
    let uses = super::source::words(&source.code, "pg_sys")
        .filter(|at| {
            let rest = &source.code[at + "pg_sys".len()..];
            let name = rest.strip_prefix("::").unwrap_or_default();
            name.split(|next: char| !(next.is_alphanumeric() || next == '_')).next() != Some("Oid")
        })
        .count();
    (uses > 0).then(|| {
        Finding::new(
            Rule::PgSys,
            path,
            uses,
            "uses pg_sys: whatever needs PostgreSQL's structures belongs into crates/pg",
        )
    })
}

/// SQLSTATEs have names, in one file.
fn raw_sqlstates(path: &str, source: &Source) -> Option<Finding> {
    let count = source.code_and_strings.matches("SqlState(*b\"").count();
    (count > 0 && !path.ends_with("sys/error.rs")).then(|| {
        Finding::new(
            Rule::RawSqlState,
            path,
            count,
            &format!("spells {count} SQLSTATEs: give them names in crates/pg/src/sys/error.rs"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(Rule, usize)> {
        check(path, &Source::new(text.to_owned()))
            .into_iter()
            .map(|it| (it.rule, it.figure))
            .collect()
    }

    #[test]
    fn a_file_begins_with_its_header() {
        assert_eq!(found("crates/a/src/b.rs", "//! What.\n"), []);
        assert_eq!(found("tests/a/main.rs", "use x;\n"), [(Rule::Header, 1)]);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let function =
            |lines: usize| format!("//! What.\nfn f() {{\n{}}}\n", "    x();\n".repeat(lines - 2));
        assert_eq!(found("crates/a/src/b.rs", &function(80)), []);
        assert_eq!(found("crates/a/src/b.rs", &function(81)), [(Rule::FunctionLength, 81)]);
        assert_eq!(found("tests/a/main.rs", &function(81)), []);
        assert_eq!(found("tests/a/main.rs", &function(900)), [(Rule::FileLength, 901)]);
    }

    #[test]
    fn of_postgres_bindings_oid_alone_may_leave_the_wall() {
        assert_eq!(found("crates/a/src/b.rs", "//! What.\nuse pgrx::pg_sys::Oid;"), []);
        let pointer = "//! What.\nfn f(x: *mut pg_sys::Node, y: pg_sys::OidValue) {}";
        assert_eq!(found("crates/a/src/b.rs", pointer), [(Rule::PgSys, 2)]);
        assert_eq!(found("crates/pg/src/b.rs", pointer), []);
    }

    #[test]
    fn sqlstates_have_names() {
        let text = "//! What.\nfn f() { SqlState(*b\"42501\") } // SqlState(*b\"42501\")";
        assert_eq!(found("crates/a/src/b.rs", text), [(Rule::RawSqlState, 1)]);
        assert_eq!(found("crates/pg/src/sys/error.rs", text), []);
    }
}
