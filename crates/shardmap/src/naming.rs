//! Names in the texts of messages: nodes speak of shards and of types with their schemas, users know neither.

/// The text with `shown` wherever `told` stands as a name of its own, outside of double quotes of the message.
pub fn with_name(text: &str, told: &str, shown: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '"');
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(told) {
        let (before, behind) = (&rest[..at], &rest[at + told.len()..]);
        let is_in_a_word = before.ends_with(is_part)
            || before.is_empty() && result.ends_with(is_part)
            || behind.starts_with(is_part);
        result.push_str(before);
        result.push_str(if is_in_a_word { told } else { shown });
        rest = behind;
    }
    result.push_str(rest);
    result
}

/// Takes `suffix` off where one of `names` with it stands in quotes, is the whole text, opens a context line, or ends the
/// text, as in `permission denied for table t_10000`.
pub fn without_suffix(text: &str, names: &[String], suffix: &str) -> String {
    let mut told = text.to_owned();
    for name in names {
        let shard = format!("{name}{suffix}");
        if told == shard {
            return name.clone();
        }
        told = told.replace(&format!("\"{shard}\""), &format!("\"{name}\""));
        told = told.replace(&format!("COPY {shard},"), &format!("COPY {name},"));
        if let Some(before) = told.strip_suffix(&shard).filter(|before| before.ends_with(' ')) {
            told = format!("{before}{name}");
        }
    }
    told
}

/// The ids of what may be shards among the names that stand in quotes.
pub fn shards_in_quotes(text: &str) -> Vec<i64> {
    let mut ids: Vec<i64> = text
        .split('"')
        .skip(1)
        .step_by(2)
        .filter_map(|name| name.rsplit_once('_')?.1.parse().ok())
        .filter(|id| *id > 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_recognised_by_their_numbers() {
        let text =
            r#"cannot DROP TABLE "x_y_10004": "x_10003" and "t_-1", "t_n" or "9" refer to x_10002"#;
        assert_eq!(shards_in_quotes(text), [10003, 10004]);
        assert!(shards_in_quotes("no name").is_empty());
    }

    #[test]
    fn a_type_is_renamed_where_its_name_stands_alone() {
        let text = r#"value for domain public.pos violates "public.pos", not public.posint or my.public.pos"#;
        assert_eq!(
            with_name(text, "public.pos", "pos"),
            r#"value for domain pos violates "public.pos", not public.posint or my.public.pos"#
        );
    }

    #[test]
    fn a_shard_is_renamed_at_the_end_of_a_message() {
        let names = ["t".to_owned()];
        let told = without_suffix("permission denied for table t_10000", &names, "_10000");
        assert_eq!(told, "permission denied for table t");
        assert_eq!(without_suffix("not_10000", &names, "_10000"), "not_10000");
    }
}
