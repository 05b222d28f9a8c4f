//! The documents: the book in `docs/` is complete, links lead somewhere, and what they name is there.
//!
//! mdBook's program is for readers; the checks need none of it, so a machine that has only Rust can make them. They hold
//! what mdBook would complain about (a page that SUMMARY.md lacks, a file that is not there) and what it would not: anchors,
//! source files that have been renamed, settings and functions without a word about them.

use std::collections::{BTreeMap, BTreeSet};

use super::markdown::Document;

/// The book's table of contents.
const SUMMARY: &str = "docs/SUMMARY.md";

/// Documents with a limit to their lines.
const LIMITS: [(&str, usize); 2] = [("README.md", 150), ("ARCHITECTURE.md", 250)];

/// The texts of a repository by their paths, and the paths of all its files.
#[derive(Debug, Default)]
pub(super) struct Repository {
    /// Every file and directory, the latter with a slash at the end.
    pub(super) paths: BTreeSet<String>,
    /// The documents.
    pub(super) documents: BTreeMap<String, Document>,
    /// The text of some other files.
    pub(super) texts: BTreeMap<String, String>,
}

/// All that is wrong, as `place: what`.
pub(super) fn check(repository: &Repository) -> Vec<String> {
    let mut problems = contents(repository);
    for (path, document) in &repository.documents {
        problems.extend(links(repository, path, document));
        if !is_history(path) {
            problems.extend(source_paths(repository, path, document));
        }
    }
    for (path, most) in LIMITS {
        if let Some(lines) =
            repository.documents.get(path).map(|it| it.lines).filter(|it| *it > most)
        {
            problems.push(format!("{path}: has {lines} lines; {most} must do"));
        }
    }
    problems.extend(undocumented(repository));
    problems
}

/// A document that tells of the past, when files had other names.
fn is_history(path: &str) -> bool {
    matches!(path, "CHANGELOG.md" | "benches/RESULTS.md")
}

/// SUMMARY.md lists every page of the book once.
fn contents(repository: &Repository) -> Vec<String> {
    let Some(summary) = repository.documents.get(SUMMARY) else {
        return vec![format!("{SUMMARY}: is missing")];
    };
    let pages =
        || repository.documents.keys().filter(|path| path.starts_with("docs/") && *path != SUMMARY);
    let listed = |page: &str| {
        let is_page = |target: &str| page.strip_prefix("docs/") == Some(target);
        summary.links.iter().filter(|(_, target)| is_page(target)).count()
    };
    pages()
        .filter_map(|page| match listed(page) {
            1 => None,
            0 => Some(format!("{page}: is not in {SUMMARY}")),
            times => Some(format!("{page}: is {times} times in {SUMMARY}")),
        })
        .collect()
}

/// Links lead to files and headings; those of the book stay in the book, or mdBook's pages would lead nowhere.
fn links(repository: &Repository, path: &str, document: &Document) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, target) in &document.links {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { Some(path.to_owned()) } else { joined(path, file) };
        let is_there = |file: &String| {
            repository.paths.contains(file) || repository.paths.contains(&format!("{file}/"))
        };
        let Some(file) = file.filter(is_there) else {
            problems.push(format!("{path}:{line}: {target} is not there"));
            continue;
        };
        if path.starts_with("docs/") && !file.starts_with("docs/") {
            problems.push(format!("{path}:{line}: {target} leads out of the book"));
        }
        let has_anchor = |document: &Document| document.anchors.iter().any(|it| it == anchor);
        if !anchor.is_empty() && !repository.documents.get(&file).is_some_and(has_anchor) {
            problems.push(format!("{path}:{line}: {file} has no heading for #{anchor}"));
        }
    }
    problems
}

/// `target` as it is meant in the file `from`; none if it leads out of the repository.
fn joined(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Source files and directories that the text names are there, whatever part of their paths stands in it.
fn source_paths(repository: &Repository, path: &str, document: &Document) -> Vec<String> {
    let is_there = |named: &str| {
        let ending = format!("/{named}");
        repository.paths.iter().any(|it| it == named || it.ends_with(&ending))
    };
    document
        .spans
        .iter()
        .filter(|(_, span)| is_source_path(span) && !is_there(span))
        .map(|(line, span)| format!("{path}:{line}: no file is {span}"))
        .collect()
}

/// `a/b.rs` or `a/src/b/`, not a pattern.
fn is_source_path(span: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
    let names_file = span.ends_with(".rs") || span.ends_with('/') && span.contains("/src/");
    names_file && span.len() > 3 && span.chars().all(is_plain)
}

/// Settings, functions and views that no page of the reference names.
fn undocumented(repository: &Repository) -> Vec<String> {
    let of = |path: &str| repository.texts.get(path).map_or("", String::as_str);
    let settings = between(of("crates/pg_shard/src/settings.rs"), "c\"pg_shard.", "\"");
    let sql = of("sql/pg_shard--2.0.sql");
    let mut functions = between(sql, "CREATE FUNCTION ", "(");
    functions.retain(|name| !name.starts_with("pg_temp."));
    functions.extend(between(sql, "CREATE AGGREGATE ", "("));
    let views = between(sql, "CREATE VIEW ", " ");
    // Parts of aggregates have no use of their own.
    let is_internal = |name: &str| {
        name.ends_with("_step") || name.ends_with("_end") || name.starts_with("partial_state_")
    };
    let mut problems = Vec::new();
    let mut check = |page: &str, what: &str, names: BTreeSet<String>| {
        for name in names {
            let name = name.rsplit('.').next().unwrap_or_default();
            if !is_internal(name) && !of(page).contains(name) {
                problems.push(format!("{page}: says nothing of the {what} {name}"));
            }
        }
    };
    check("docs/reference/settings.md", "setting", settings);
    check("docs/reference/sql-functions.md", "function", functions);
    check("docs/reference/catalog.md", "view", views);
    problems
}

/// What stands between `before` and the next `after`, wherever it does.
fn between(text: &str, before: &str, after: &str) -> BTreeSet<String> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split_once(after))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a repository of these documents, beside an empty book.
    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let mut repository = Repository::default();
        for (path, text) in [("docs/SUMMARY.md", "")].iter().chain(files) {
            repository.paths.insert((*path).to_owned());
            if path.ends_with(".md") {
                repository.documents.insert((*path).to_owned(), Document::read(text));
            }
            repository.texts.insert((*path).to_owned(), (*text).to_owned());
        }
        check(&repository)
    }

    #[test]
    fn every_page_is_in_the_summary_once() {
        let page = ("docs/a/b.md", "# B");
        assert_eq!(problems(&[page]), ["docs/a/b.md: is not in docs/SUMMARY.md"]);
        assert_eq!(problems(&[("docs/SUMMARY.md", "- [B](a/b.md)"), page]), [""; 0]);
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let readme = "[a](B.md#there) [b](B.md#nowhere) [c](C.md) [d](https://example.org) [e](#here)\n# Here";
        assert_eq!(
            problems(&[("README.md", readme), ("B.md", "## There")]),
            ["README.md:1: B.md has no heading for #nowhere", "README.md:1: C.md is not there"]
        );
    }

    #[test]
    fn the_book_leads_nowhere_outside() {
        let files = [
            ("docs/SUMMARY.md", "[A](a.md)"),
            ("docs/a.md", "[r](../README.md)"),
            ("README.md", ""),
        ];
        assert_eq!(problems(&files), ["docs/a.md:1: ../README.md leads out of the book"]);
    }

    #[test]
    fn source_files_that_are_named_are_there() {
        let files = [("README.md", "`b/c.rs` `c.rs` `d.rs` `*.rs`"), ("crates/a/src/b/c.rs", "")];
        assert_eq!(problems(&files), ["README.md:1: no file is d.rs"]);
    }

    #[test]
    fn settings_and_functions_are_documented() {
        let files = [
            ("crates/pg_shard/src/settings.rs", "c\"pg_shard.a\" c\"pg_shard.b\""),
            ("docs/SUMMARY.md", "[](reference/settings.md)"),
            ("docs/reference/settings.md", "pg_shard.a"),
        ];
        let found = problems(&files);
        assert_eq!(found, ["docs/reference/settings.md: says nothing of the setting b"]);
    }
}
