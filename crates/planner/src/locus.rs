//! Where the rows of a query's relation lie, and which joins can be made there.
//!
//! The word and the idea are Greenplum's (path locus): every relation of a plan knows by which columns its rows
//! are spread, and one rule says what a join of two of them yields, or that it cannot be made in place.
//!
//! A sharded relation has keys: columns whose value, if it is not NULL, hashes into the shard in which the row
//! lies. Behind an outer join a key may be NULL in rows that lie anywhere; such a key still decides joins (NULL
//! equals nothing), but not groups.
//!
//! That relations are cut alike and that their shards lie beside each other is the caller's knowledge.

/// A column by whose hash rows are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<C> {
    /// The column.
    pub column: C,
    /// Rows may have NULL there, and lie in any shard then.
    pub nullable: bool,
}

/// Where rows lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locus<C> {
    /// All rows lie beside every shard: a reference table.
    Everywhere,
    /// Spread by the hash of these columns, which agree.
    Sharded(Vec<Key<C>>),
}

/// What a join does with rows that have no match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Drops them.
    Inner,
    /// Keeps the left ones.
    Left,
    /// Keeps both sides'.
    Full,
    /// Keeps each left row that has a match, once.
    Semi,
    /// Keeps the left rows that have none.
    Anti,
}

impl<C: Copy + PartialEq> Locus<C> {
    /// Rows spread by one column, which is never NULL.
    pub fn by(column: C) -> Self {
        Self::Sharded(vec![Key { column, nullable: false }])
    }

    /// The keys; none for rows that lie everywhere.
    pub fn keys(&self) -> &[Key<C>] {
        match self {
            Self::Everywhere => &[],
            Self::Sharded(keys) => keys,
        }
    }

    /// All rows that agree in `columns` lie in one shard.
    pub fn keeps_together(&self, columns: &[C]) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Sharded(keys) => {
                keys.iter().any(|key| !key.nullable && columns.contains(&key.column))
            }
        }
    }

    /// Where the rows of `self JOIN other` lie if every shard joins what it has; none if that would not be the
    /// join. `equal` are the pairs of columns, one of each side, that the join's condition compares.
    pub fn join(&self, kind: JoinKind, other: &Self, equal: &[(C, C)]) -> Option<Self> {
        match (self, other) {
            (Self::Everywhere, Self::Everywhere) => Some(Self::Everywhere),
            // Each left row lies in one shard and meets all right rows there.
            (Self::Sharded(keys), Self::Everywhere) => {
                (kind != JoinKind::Full).then(|| Self::Sharded(keys.clone()))
            }
            // A left row lies in many shards: what has no match in one may have it in another.
            (Self::Everywhere, Self::Sharded(keys)) => {
                (kind == JoinKind::Inner).then(|| Self::Sharded(keys.clone()))
            }
            (Self::Sharded(left), Self::Sharded(right)) => {
                let is_key = |keys: &[Key<C>], column| keys.iter().any(|key| key.column == column);
                equal.iter().find(|(l, r)| is_key(left, *l) && is_key(right, *r))?;
                let nullable = |keys: &[Key<C>]| {
                    keys.iter().map(|key| Key { nullable: true, ..*key }).collect::<Vec<_>>()
                };
                let mut keys = match kind {
                    JoinKind::Full => nullable(left),
                    _ => left.clone(),
                };
                match kind {
                    JoinKind::Inner => keys.extend_from_slice(right),
                    JoinKind::Left | JoinKind::Full => keys.extend(nullable(right)),
                    JoinKind::Semi | JoinKind::Anti => {}
                }
                Some(Self::Sharded(keys))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [JoinKind; 5] =
        [JoinKind::Inner, JoinKind::Left, JoinKind::Full, JoinKind::Semi, JoinKind::Anti];

    #[test]
    fn sharded_relations_join_in_place_on_their_keys_only() {
        let (left, right) = (Locus::by("l.k"), Locus::by("r.k"));
        for kind in KINDS {
            assert!(left.join(kind, &right, &[("l.k", "r.k")]).is_some(), "{kind:?}");
            assert_eq!(left.join(kind, &right, &[("l.v", "r.k")]), None, "{kind:?}");
        }
    }

    #[test]
    fn behind_an_outer_join_a_key_joins_but_does_not_group() {
        let left = Locus::by("l.k").join(JoinKind::Left, &Locus::by("r.k"), &[("l.k", "r.k")]);
        let left = left.expect("they join");
        assert!(left.keeps_together(&["l.k"]));
        assert!(!left.keeps_together(&["r.k"]));
        assert!(left.join(JoinKind::Left, &Locus::by("x.k"), &[("r.k", "x.k")]).is_some());
        let full = Locus::by("l.k").join(JoinKind::Full, &Locus::by("r.k"), &[("l.k", "r.k")]);
        assert!(!full.expect("they join").keeps_together(&["l.k", "r.k"]));
    }

    #[test]
    fn a_reference_table_is_no_left_side_of_what_keeps_left_rows() {
        let (everywhere, sharded) = (Locus::Everywhere, Locus::by("k"));
        assert_eq!(everywhere.join(JoinKind::Left, &sharded, &[]), None);
        assert_eq!(everywhere.join(JoinKind::Semi, &sharded, &[]), None);
        assert_eq!(everywhere.join(JoinKind::Inner, &sharded, &[]), Some(sharded.clone()));
        assert_eq!(sharded.join(JoinKind::Anti, &everywhere, &[]), Some(sharded));
    }

    /// Rows as (key, value); a shard is the key modulo three, NULL keys (of an outer join) nowhere.
    type Rows = Vec<(u8, u8)>;

    fn joined(kind: JoinKind, left: &Rows, right: &Rows, on: fn(u8, u8) -> bool) -> Vec<String> {
        let mut out = Vec::new();
        for l in left {
            let matches: Vec<_> = right.iter().filter(|r| on(l.0, r.0)).collect();
            match kind {
                JoinKind::Semi if !matches.is_empty() => out.push(format!("{l:?}")),
                JoinKind::Anti if matches.is_empty() => out.push(format!("{l:?}")),
                JoinKind::Semi | JoinKind::Anti => {}
                _ => out.extend(matches.iter().map(|r| format!("{l:?}{r:?}"))),
            }
            if matches.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                out.push(format!("{l:?}-"));
            }
        }
        if kind == JoinKind::Full {
            let lonely = right.iter().filter(|r| !left.iter().any(|l| on(l.0, r.0)));
            out.extend(lonely.map(|r| format!("-{r:?}")));
        }
        out.sort();
        out
    }

    proptest! {
        #[test]
        fn what_the_rule_allows_gives_the_same_rows_shard_by_shard(
            left in prop::collection::vec((0u8..6, 0u8..3), 0..8),
            right in prop::collection::vec((0u8..6, 0u8..3), 0..8),
            left_everywhere: bool,
            right_everywhere: bool,
            on_key: bool,
            kind in prop::sample::select(&KINDS[..]),
        ) {
            let locus = |everywhere, name| if everywhere { Locus::Everywhere } else { Locus::by(name) };
            let equal: &[_] = if on_key { &[("l", "r")] } else { &[] };
            let on: fn(u8, u8) -> bool = if on_key { |l, r| l == r } else { |l, r| l <= r };
            let allowed = locus(left_everywhere, "l").join(kind, &locus(right_everywhere, "r"), equal);
            let Some(allowed) = allowed else { return Ok(()) };
            let part = |rows: &Rows, everywhere: bool, shard: u8| -> Rows {
                rows.iter().copied().filter(|row| everywhere || row.0 % 3 == shard).collect()
            };
            let shards = if allowed == Locus::Everywhere { 0..1 } else { 0..3 };
            let mut found: Vec<String> = shards
                .flat_map(|shard| {
                    let l = part(&left, left_everywhere, shard);
                    let r = part(&right, right_everywhere, shard);
                    joined(kind, &l, &r, on)
                })
                .collect();
            found.sort();
            prop_assert_eq!(found, joined(kind, &left, &right, on));
        }
    }
}
