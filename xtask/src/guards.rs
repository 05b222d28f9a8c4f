//! Functions of PostgreSQL that the wall calls without a guard: each says why that is safe.
//!
//! An ERROR is a `longjmp`. Past a Rust frame that holds a value with a destructor it may not go; pgrx' bindings stop it at a
//! guard in each call, and what is declared in an `extern` block of our own has no guard. So each function of such a block
//! has a comment that begins with one of
//!
//! * `Raises nothing`: and why;
//! * `Guarded`: each call stands in a closure of `pg_guard_ffi_boundary`, which is checked here;
//! * `Plain frames`: an ERROR of it passes only frames without destructors, and which these are.
//!
//! No other crate than the wall may have such a block.

use std::fs;
use std::path::{Path, PathBuf};

/// The wall.
const WALL: &str = "crates/pg/src";

/// The words that a comment may begin with.
const REASONS: [&str; 3] = ["Raises nothing", "Guarded", "Plain frames"];

/// What is wrong, a line for each; `root` is the repository.
pub(crate) fn faults(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    collect(&root.join("crates"), &mut files);
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        faults.extend(faults_of(&name, &text));
    }
    faults
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

fn faults_of(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut inside = false;
    let mut comment = String::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let begins = line.starts_with("unsafe extern \"C") || line.starts_with("extern \"C");
        if begins && line.ends_with('{') && !line.contains("fn ") {
            inside = true;
            if !file.starts_with(WALL) {
                faults
                    .push(format!("{file}:{number}: declares functions of C outside of the wall"));
            }
        } else if inside && line.starts_with('}') {
            inside = false;
        } else if inside && line.starts_with("//") {
            let said = line.trim_start_matches('/').trim();
            comment =
                if comment.is_empty() { said.to_owned() } else { format!("{comment} {said}") };
            continue;
        } else if inside && line.starts_with("#[") {
            // An attribute stands between the comment and the function.
            continue;
        } else if let Some(function) = inside.then(|| declared(line)).flatten() {
            match REASONS.iter().find(|reason| comment.starts_with(**reason)) {
                None => faults.push(format!(
                    "{file}:{number}: {function} does not say why it needs no guard ({})",
                    REASONS.join(", ")
                )),
                Some(&"Guarded") => faults.extend(unguarded_calls(file, text, function)),
                Some(_) => {}
            }
        }
        comment.clear();
    }
    faults
}

/// The name of the function that a line declares.
fn declared(line: &str) -> Option<&str> {
    let rest = line.split_once("fn ")?.1;
    if line.contains("extern \"C") {
        return None;
    }
    rest.split('(').next()
}

/// Calls of a function that stand in no guard's closure: the parenthesis of the last guard before it must be open still.
fn unguarded_calls(file: &str, text: &str, function: &str) -> Vec<String> {
    let call = format!("raw::{function}(");
    let calls = text.match_indices(&call).filter(|(at, _)| {
        let guard = text[..*at].rfind("pg_guard_ffi_boundary(");
        !guard.is_some_and(|guard| {
            let between = &text[guard..*at];
            between.matches('(').count() > between.matches(')').count()
        })
    });
    let line = |at: usize| text[..at].lines().count();
    calls
        .map(|(at, _)| format!("{file}:{}: {function} is called without a guard", line(at)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "mod raw {\n    unsafe extern \"C-unwind\" {\n";

    #[test]
    fn a_function_without_a_reason_is_named() {
        let text =
            format!("{HEAD}        // Some function.\n        fn one(a: i32);\n    }}\n}}\n");
        let faults = faults_of("crates/pg/src/x.rs", &text);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("crates/pg/src/x.rs:4: one does not say"), "{faults:?}");
    }

    #[test]
    fn a_reason_counts_for_one_function() {
        let text = format!(
            "{HEAD}        /// Raises nothing: reads a\n        /// variable.\n        fn one();\n        fn two();\n    }}\n}}\n"
        );
        assert_eq!(faults_of("crates/pg/src/x.rs", &text).len(), 1);
    }

    #[test]
    fn a_guarded_function_is_called_in_a_guard_only() {
        let text = format!(
            "{HEAD}        /// Guarded.\n        fn one();\n    }}\n}}\nfn f() {{\n    pg_guard_ffi_boundary(|| raw::one());\n    raw::one();\n}}\n"
        );
        let faults = faults_of("crates/pg/src/x.rs", &text);
        assert_eq!(faults, ["crates/pg/src/x.rs:9: one is called without a guard"]);
    }

    #[test]
    fn only_the_wall_declares_functions_of_c() {
        let text = "extern \"C\" {\n    // Raises nothing: pure.\n    fn one();\n}\n";
        assert_eq!(faults_of("crates/pg_shard/src/x.rs", text).len(), 1);
    }

    #[test]
    fn the_wall_gives_a_reason_for_each_function_without_a_guard() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
        let faults = faults(root);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
