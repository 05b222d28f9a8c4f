//! `cargo xtask tidy`: the structure of the code and the documents, as CONTRIBUTING.md and ARCHITECTURE.md have it.
//!
//! Each rule says what to do. What is over a limit today stands in `xtask/tidy.txt` with a reason ([`exceptions`]); new
//! code does not get in there without one.

/// Text of Rust files without comments, strings and tests.
mod source;

/// Markdown.
mod markdown;

/// Rules, and what is found against them.
mod finding;

/// What is over a limit and why.
mod exceptions;

/// Which crate may use which.
mod crates;

/// Files that use each other.
mod circles;

/// Header, length, pointers and SQLSTATEs of a file.
mod rules;

/// The book and the other documents.
mod documents;

/// What is refused, in code and book.
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use self::circles::Modules;
use self::documents::Repository;
use self::exceptions::Exceptions;
use self::finding::{Finding, Rule};
use self::markdown::Document;
use self::source::Source;
use crate::render;

/// The page of what is refused.
const LIMITS: &str = "docs/reference/limits.md";

/// Where exceptions stand, relative to the repository.
const EXCEPTIONS: &str = "xtask/tidy.txt";

/// Checks everything below `root`; an error if anything is wrong. With `tighten`, writes down smaller figures first.
pub(crate) fn run(root: &Path, tighten: bool) -> Result<()> {
    let repository = read(root)?;
    let sources = sources(&repository);
    let findings = findings(&sources);
    let text = repository.texts.get(EXCEPTIONS).map_or("", String::as_str);
    let mut exceptions = parse(text)?;
    if tighten {
        let tightened = exceptions.tightened(&findings);
        fs::write(root.join(EXCEPTIONS), &tightened)
            .with_context(|| format!("cannot write {EXCEPTIONS}"))?;
        exceptions = parse(&tightened)?;
    }
    let mut problems = arrows(&repository);
    problems.extend(exceptions.violations(&findings).into_iter().map(|(finding, allowed)| {
        let limit =
            allowed.map_or_else(String::new, |figure| format!(" ({EXCEPTIONS} allows {figure})"));
        format!("{}: {}{limit} [{}]", finding.place, finding.what, finding.rule.name())
    }));
    problems.extend(documents::check(&repository));
    problems.extend(silent_refusals(&repository, &sources));
    for problem in &problems {
        render::say(problem);
    }
    if !problems.is_empty() {
        bail!("{} things are not tidy", problems.len());
    }
    let loose = exceptions.loose(&findings);
    let hint = if loose > 0 {
        format!(" {loose} exceptions can be tightened: cargo xtask tidy --tighten.")
    } else {
        String::new()
    };
    render::say(&format!(
        "Tidy: {} source files, {} documents.{hint}",
        sources.len(),
        repository.documents.len()
    ));
    Ok(())
}

fn parse(text: &str) -> Result<Exceptions> {
    Exceptions::parse(text).map_err(|problem| anyhow!("{EXCEPTIONS}: {problem}"))
}

/// The Rust files by path.
fn sources(repository: &Repository) -> BTreeMap<String, Source> {
    let is_rust = |path: &str| path.ends_with(".rs");
    let texts = repository.texts.iter().filter(|(path, _)| is_rust(path));
    texts.map(|(path, text)| (path.clone(), Source::new(text.clone()))).collect()
}

fn findings(sources: &BTreeMap<String, Source>) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        sources.iter().flat_map(|(path, source)| rules::check(path, source)).collect();
    let roots: BTreeSet<&str> = sources
        .keys()
        .filter_map(|path| Some(&path[..path.find("/src/")? + "/src/".len()]))
        .collect();
    for root in roots {
        let below = sources
            .iter()
            .filter_map(|(path, source)| Some((path.strip_prefix(root)?, source)))
            .filter(|(path, _)| !path.starts_with("bin/"));
        for it in Modules::read(below).circles() {
            let what = format!("stands in a circle with {}", it.used.join(", "));
            findings.push(Finding::new(
                Rule::Circle,
                &format!("{root}{}", it.file),
                it.used.len(),
                &what,
            ));
        }
    }
    findings
}

/// Dependencies that the map has no arrow for.
fn arrows(repository: &Repository) -> Vec<String> {
    let manifests = repository.texts.iter().filter_map(|(path, text)| {
        let directory = path.strip_suffix("/Cargo.toml")?;
        let name = directory.strip_prefix("crates/").unwrap_or(directory);
        Some((name, text))
    });
    manifests.flat_map(|(name, text)| crates::problems(name, text)).collect()
}

/// Messages of refusals that the book says nothing of.
fn silent_refusals(repository: &Repository, sources: &BTreeMap<String, Source>) -> Vec<String> {
    let page = repository.texts.get(LIMITS).map_or("", String::as_str);
    let mut problems = Vec::new();
    for (path, source) in sources.iter().filter(|(path, _)| path.starts_with("crates/pg")) {
        for message in refusals::messages(source) {
            if !refusals::is_documented(&message, page) {
                problems.push(format!("{path}: {LIMITS} has no entry for \"{message}\""));
            }
        }
    }
    problems
}

/// Everything below `root` that is ours.
fn read(root: &Path) -> Result<Repository> {
    let mut repository = Repository::default();
    read_directory(root, "", &mut repository)?;
    Ok(repository)
}

fn read_directory(root: &Path, below: &str, repository: &mut Repository) -> Result<()> {
    let directory = root.join(below);
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "node_modules" {
            continue;
        }
        let path = format!("{below}{name}");
        if entry.file_type()?.is_dir() {
            repository.paths.insert(format!("{path}/"));
            read_directory(root, &format!("{path}/"), repository)?;
        } else {
            read_file(root, path, repository)?;
        }
    }
    Ok(())
}

fn read_file(root: &Path, path: String, repository: &mut Repository) -> Result<()> {
    let is_text = [".rs", ".md", ".toml", ".sql"].iter().any(|ending| path.ends_with(ending));
    if is_text || path == EXCEPTIONS {
        let text =
            fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
        if path.ends_with(".md") {
            repository.documents.insert(path.clone(), Document::read(&text));
        }
        repository.texts.insert(path.clone(), text);
    }
    repository.paths.insert(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_looked_for_in_each_crate() {
        let file =
            |path: &str, text: &str| (path.to_owned(), Source::new(format!("//! What.\n{text}")));
        let sources = BTreeMap::from([
            file("crates/a/src/lib.rs", "mod b; mod c;"),
            file("crates/a/src/b.rs", "use crate::c::C;"),
            file("crates/a/src/c.rs", "use crate::b::B;"),
            file("crates/z/src/lib.rs", "use crate::b::B;"),
        ]);
        let places: Vec<String> = findings(&sources).into_iter().map(|it| it.place).collect();
        assert_eq!(places, ["crates/a/src/b.rs", "crates/a/src/c.rs"]);
    }
}
