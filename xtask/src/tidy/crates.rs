//! Which crate may depend on which.
//!
//! The arrows are those of ARCHITECTURE.md. They are read from the manifests, so whatever cargo would link is seen;
//! that there are no circles follows from the order of [`ARROWS`], in which a crate names earlier ones only.

/// Each crate with the crates of this workspace that it may use, those below first.
pub(super) const ARROWS: [(&str, &[&str]); 16] = [
    ("shardmap", &[]),
    ("dispatch", &[]),
    ("plan", &["shardmap"]),
    ("planner", &["plan"]),
    ("protocol", &[]),
    ("timeline", &[]),
    ("deadlock", &[]),
    ("sharing", &[]),
    ("commit", &[]),
    ("history", &[]),
    ("tpch", &[]),
    ("cluster", &[]),
    ("pg", &["shardmap", "plan", "planner", "protocol", "timeline", "commit", "sharing"]),
    (
        "pg_shard",
        &[
            "pg", "shardmap", "dispatch", "plan", "protocol", "timeline", "commit", "deadlock",
            "sharing",
        ],
    ),
    ("testkit", &["cluster", "tpch", "history"]),
    ("xtask", &["cluster", "tpch"]),
];

/// The dependencies of a manifest, of any kind, by the names of their packages.
pub(super) fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_in_table = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            let table = table.rsplit_once('.').map_or(table, |(target, last)| {
                // `[dependencies.name]` names one.
                if target.ends_with("dependencies") {
                    names.push(last.to_owned());
                }
                last
            });
            is_in_table = table.ends_with("dependencies");
        } else if is_in_table
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['=', '.'])
        {
            names.push(name.trim().to_owned());
        }
    }
    names
}

/// What is wrong with the dependencies of `name`.
pub(super) fn problems(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
        return vec![format!(
            "crate {name} has no place among the arrows: draw it in ARCHITECTURE.md and add it to xtask/src/tidy/crates.rs"
        )];
    };
    dependencies(manifest)
        .into_iter()
        .filter(|dependency| ARROWS.iter().any(|(crate_name, _)| crate_name == dependency))
        .filter(|dependency| !allowed.contains(&dependency.as_str()))
        .map(|dependency| format!("crate {name} may not depend on {dependency}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_all_kinds_are_read() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\npg.workspace = true\n# no = 1\nlru = { version = \"1\" }\n\
                        [dev-dependencies]\ntpch = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n[dependencies.serde]\nversion = \"1\"\n";
        assert_eq!(dependencies(manifest), ["pg", "lru", "tpch", "libc", "serde"]);
    }

    #[test]
    fn an_arrow_against_the_map_is_a_problem() {
        assert_eq!(
            problems("pg", "[dependencies]\nshardmap.workspace = true\nlibc = \"1\""),
            [""; 0]
        );
        let upward = problems("shardmap", "[dependencies]\npg.workspace = true");
        assert_eq!(upward, ["crate shardmap may not depend on pg"]);
        assert_eq!(problems("fresh", "").len(), 1);
    }

    #[test]
    fn the_map_has_no_circle() {
        for (index, (name, allowed)) in ARROWS.iter().enumerate() {
            for below in *allowed {
                assert!(
                    ARROWS[..index].iter().any(|(earlier, _)| earlier == below),
                    "{name} -> {below}"
                );
            }
        }
    }
}
