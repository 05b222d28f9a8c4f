//! Files of one crate that use each other in a circle.
//!
//! A file uses another if a path in its code leads there: `crate::a::b`, `super::c`, or the name of a child module. A
//! path to a name that a module re-exports leads to where the name comes from, so a facade makes no circle. Files that
//! reach each other are a circle (a strongly connected component); the figure of such a file is the number of files of
//! its circle that it uses itself.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, closing, identifier_end, is_in_identifier, skip_blanks};

/// The path of a module within its crate.
type Path = Vec<String>;

/// A crate's files by the module that each is.
#[derive(Debug, Default)]
pub(super) struct Modules {
    files: BTreeMap<Path, String>,
    uses: BTreeMap<Path, Vec<Path>>,
    /// What names that a module brings in stand for.
    names: BTreeMap<Path, BTreeMap<String, Path>>,
}

/// A file in a circle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InCircle {
    /// The file.
    pub(super) file: String,
    /// Files of the circle that it uses.
    pub(super) used: Vec<String>,
}

impl Modules {
    /// Reads the files of a crate: their paths below `src` and their code.
    pub(super) fn read<'a>(files: impl Iterator<Item = (&'a str, &'a Source)> + Clone) -> Self {
        let mut modules = Self::default();
        for (file, _) in files.clone() {
            modules.files.insert(module_of(file), file.to_owned());
        }
        for (file, source) in files {
            modules.read_file(&module_of(file), &source.code);
        }
        modules
    }

    fn read_file(&mut self, module: &Path, code: &str) {
        let inline = inline_modules(code);
        let mut uses = Vec::new();
        let mut names = BTreeMap::new();
        for found in paths(code) {
            let here = inline.iter().filter(|it| it.0 <= found.at && found.at < it.1);
            let mut inner = module.clone();
            inner.extend(here.map(|it| it.2.clone()));
            let Some(path) = self.absolute(&inner, &found.path) else { continue };
            let is_facade = found.is_export && inner == *module;
            if !is_facade || found.name.as_deref() == Some("*") {
                uses.push(path.clone());
            }
            if found.is_use
                && inner == *module
                && let Some(name) = found.name.or_else(|| path.last().cloned())
            {
                names.insert(name, path);
            }
        }
        self.uses.insert(module.clone(), uses);
        self.names.insert(module.clone(), names);
    }

    /// `path`, as it stands in `module`, from the root of the crate; none if it leads out of it.
    fn absolute(&self, module: &Path, path: &[String]) -> Option<Path> {
        let mut base = module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|it| it == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                if !self.files.contains_key(&base) {
                    return None;
                }
                base.pop();
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module whose file holds what `path` names.
    fn target(&self, path: &Path, depth: usize) -> Path {
        let mut module = path.clone();
        while !self.files.contains_key(&module) && module.pop().is_some() {}
        let name = path.get(module.len());
        let source = name.and_then(|name| self.names.get(&module)?.get(name));
        match source {
            // A re-export may lead to another one; not for ever.
            Some(source) if depth < 8 && source != path => {
                let mut whole = source.clone();
                whole.extend(path.iter().skip(module.len() + 1).cloned());
                self.target(&whole, depth + 1)
            }
            _ => module,
        }
    }

    /// Which modules each module uses.
    fn edges(&self) -> BTreeMap<Path, BTreeSet<Path>> {
        self.uses
            .iter()
            .map(|(module, uses)| {
                let targets = uses.iter().map(|path| self.target(path, 0));
                (module.clone(), targets.filter(|it| it != module).collect())
            })
            .collect()
    }

    /// The files in circles, in order.
    pub(super) fn circles(&self) -> Vec<InCircle> {
        let edges = self.edges();
        let reached: BTreeMap<&Path, BTreeSet<&Path>> =
            edges.keys().map(|module| (module, reach(&edges, module))).collect();
        let are_in_one = |a: &Path, b: &Path| {
            let from = |a, b| reached.get(a).is_some_and(|set: &BTreeSet<&Path>| set.contains(b));
            from(a, b) && from(b, a)
        };
        let mut found = Vec::new();
        for (module, targets) in &edges {
            let used: Vec<String> = targets
                .iter()
                .filter(|target| are_in_one(module, target))
                .filter_map(|target| self.files.get(target).cloned())
                .collect();
            if !used.is_empty() {
                found.push(InCircle { file: self.files[module].clone(), used });
            }
        }
        found.sort_by(|a, b| a.file.cmp(&b.file));
        found
    }
}

/// All modules that `from` leads to, itself only by a way round.
fn reach<'a>(edges: &'a BTreeMap<Path, BTreeSet<Path>>, from: &Path) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Path> = edges.get(from).into_iter().flatten().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(edges.get(module).into_iter().flatten());
        }
    }
    reached
}

/// The module that the file `path`, relative to `src`, is.
fn module_of(path: &str) -> Path {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Path = path.split('/').map(str::to_owned).collect();
    let is_root = module.len() == 1 && matches!(module[0].as_str(), "lib" | "main");
    if is_root || module.last().is_some_and(|it| it == "mod") {
        module.pop();
    }
    module
}

/// Modules with their bodies in the file: from, to, name.
fn inline_modules(code: &str) -> Vec<(usize, usize, String)> {
    let bytes = code.as_bytes();
    super::source::words(code, "mod")
        .filter_map(|at| {
            let name_at = skip_blanks(bytes, at + 3);
            let name_end = identifier_end(bytes, name_at);
            let open = skip_blanks(bytes, name_end);
            (bytes.get(open) == Some(&b'{')).then_some(())?;
            Some((open, closing(bytes, open)?, code[name_at..name_end].to_owned()))
        })
        .collect()
}

/// A path in code.
struct Found {
    at: usize,
    path: Vec<String>,
    /// It stands in `use`.
    is_use: bool,
    /// That is `pub use`.
    is_export: bool,
    /// What `as` calls it.
    name: Option<String>,
}

/// The paths of two or more segments in code, and all that `use` names.
fn paths(code: &str) -> Vec<Found> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    let mut before_use = "";
    while at < bytes.len() {
        if !is_in_identifier(bytes[at]) {
            if !bytes[at].is_ascii_whitespace() && bytes[at] != b')' {
                before_use = "";
            }
            at += 1;
            continue;
        }
        let end = identifier_end(bytes, at);
        let word = &code[at..end];
        if word == "use" {
            let start = skip_blanks(bytes, end);
            let mut leaves = Vec::new();
            at = tree(code, start, &[], &mut leaves);
            let is_export = before_use == "pub";
            found.extend(leaves.into_iter().map(|(path, name)| Found {
                at: start,
                path,
                is_use: true,
                is_export,
                name,
            }));
            continue;
        }
        if word == "pub" {
            before_use = "pub";
            // `pub(crate)`: the rest of the visibility is no path.
            at = end;
            if bytes.get(end) == Some(&b'(') {
                at = end + code[end..].find(')').map_or(1, |length| length + 1);
            }
            continue;
        }
        before_use = "";
        let is_first = !code[..at].ends_with("::") && !code[..at].ends_with(['.', '$']);
        let (path, path_end) = segments(code, at);
        if is_first && path.len() > 1 {
            found.push(Found { at, path, is_use: false, is_export: false, name: None });
        }
        at = path_end.max(end);
    }
    found
}

/// `a::b::c` from `at` on, and where it ends.
fn segments(code: &str, at: usize) -> (Vec<String>, usize) {
    let bytes = code.as_bytes();
    let (mut path, mut at) = (Vec::new(), at);
    loop {
        let end = identifier_end(bytes, at);
        if end == at {
            return (path, at);
        }
        path.push(code[at..end].to_owned());
        if !code[end..].starts_with("::") {
            return (path, end);
        }
        at = end + 2;
    }
}

/// The leaves of a use tree at `at`, and where it ends.
fn tree(
    code: &str,
    at: usize,
    prefix: &[String],
    leaves: &mut Vec<(Path, Option<String>)>,
) -> usize {
    let bytes = code.as_bytes();
    let (path, mut at) = segments(code, at);
    let mut whole = prefix.to_vec();
    whole.extend(path.into_iter().filter(|it| it != "self" || prefix.is_empty()));
    match bytes.get(at) {
        Some(b'{') => {
            at = skip_blanks(bytes, at + 1);
            while bytes.get(at).is_some_and(|byte| *byte != b'}') {
                let before = at;
                at = skip_blanks(bytes, tree(code, at, &whole, leaves));
                if bytes.get(at) == Some(&b',') {
                    at = skip_blanks(bytes, at + 1);
                }
                if at == before {
                    // Nothing that we know: go on behind it.
                    at += 1;
                }
            }
            at + 1
        }
        Some(b'*') => {
            leaves.push((whole, Some("*".to_owned())));
            at + 1
        }
        _ => {
            let next = skip_blanks(bytes, at);
            let mut name = None;
            if code[next..].starts_with("as ") {
                let start = skip_blanks(bytes, next + 2);
                at = identifier_end(bytes, start);
                name = Some(code[start..at].to_owned());
            }
            leaves.push((whole, name));
            at
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate of these files, as `file: used used`.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<(&str, Source)> =
            files.iter().map(|(file, text)| (*file, Source::new((*text).to_owned()))).collect();
        let modules = Modules::read(sources.iter().map(|(file, source)| (*file, source)));
        let line = |it: InCircle| format!("{}: {}", it.file, it.used.join(" "));
        modules.circles().into_iter().map(line).collect()
    }

    #[test]
    fn two_files_that_use_each_other_are_a_circle() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::{B, other};"),
            ("b.rs", "use super::a; fn f() { crate::c::g() }"),
            ("c.rs", "pub fn g() {}"),
        ]);
        assert_eq!(found, ["a.rs: b.rs", "b.rs: a.rs"]);
    }

    #[test]
    fn a_child_that_uses_what_its_parent_holds_is_a_circle() {
        let found = circles(&[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; struct S; fn f() { b::g() }"),
            ("a/b.rs", "use super::S; pub fn g() {}"),
        ]);
        assert_eq!(found, ["a/b.rs: a/mod.rs", "a/mod.rs: a/b.rs"]);
    }

    #[test]
    fn a_facade_makes_no_circle() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B as C;"),
            ("a.rs", "use crate::C; pub struct A;"),
            ("b.rs", "pub struct B;"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn what_a_path_names_is_followed_through_re_exports() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B(crate::A);"),
        ]);
        assert_eq!(found, ["a.rs: b.rs", "b.rs: a.rs"]);
    }

    #[test]
    fn super_in_a_module_inside_a_file_is_the_file() {
        let found = circles(&[
            ("lib.rs", "mod a; fn f() { a::g() }"),
            ("a.rs", "pub fn g() {} mod raw { use super::g; }"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn words_in_comments_and_strings_are_no_paths() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; // crate::a"),
            ("b.rs", "/// See crate::a::A.\nfn f() -> &'static str { \"crate::a\" }"),
        ]);
        assert_eq!(found, [""; 0]);
    }
}
