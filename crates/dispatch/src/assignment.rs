//! Which node reads which shards.

/// No placement of the shard is left that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its index.
    pub shard: usize,
}

/// Nodes with the shards that each is asked for.
pub type Parts<N> = Vec<(N, Vec<usize>)>;

/// The first healthy placement of each shard that is not to be avoided reads it; `silent` nodes, from which nobody has heard for a
/// while, do so only if there is no other. `nodes` are those that hold healthy placements of a shard, the leader first.
pub fn assign<N: Clone + PartialEq>(
    shards: &[usize],
    mut nodes: impl FnMut(usize) -> Vec<N>,
    avoid: &[N],
    silent: &[N],
) -> Result<Parts<N>, Unreadable> {
    let mut parts: Parts<N> = Vec::new();
    for shard in shards {
        let mut usable: Vec<N> =
            nodes(*shard).into_iter().filter(|node| !avoid.contains(node)).collect();
        if usable.is_empty() {
            return Err(Unreadable { shard: *shard });
        }
        let chosen = usable.iter().position(|node| !silent.contains(node)).unwrap_or(0);
        let node = usable.swap_remove(chosen);
        match parts.iter_mut().find(|(known, _)| *known == node) {
            Some((_, group)) => group.push(*shard),
            None => parts.push((node, vec![*shard])),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shard `n` lies on nodes `n % 3`, which leads, and `(n + 1) % 3`.
    fn nodes(shard: usize) -> Vec<usize> {
        vec![shard % 3, (shard + 1) % 3]
    }

    #[test]
    fn leaders_read_while_all_is_well() {
        let parts = assign(&[0, 1, 2, 3], nodes, &[], &[]);
        assert_eq!(parts, Ok(vec![(0, vec![0, 3]), (1, vec![1]), (2, vec![2])]));
    }

    #[test]
    fn a_follower_reads_for_a_node_that_is_gone() {
        let parts = assign(&[0, 1], nodes, &[0], &[]);
        assert_eq!(parts, Ok(vec![(1, vec![0, 1])]));
    }

    #[test]
    fn a_silent_node_is_asked_only_if_nobody_else_can_be() {
        assert_eq!(assign(&[0], nodes, &[], &[0]), Ok(vec![(1, vec![0])]));
        assert_eq!(assign(&[0], nodes, &[1], &[0]), Ok(vec![(0, vec![0])]));
        // Of two silent nodes the leader is asked.
        assert_eq!(assign(&[0], nodes, &[], &[0, 1]), Ok(vec![(0, vec![0])]));
    }

    #[test]
    fn a_shard_without_a_placement_that_can_be_read_is_named() {
        assert_eq!(assign(&[4, 2], nodes, &[2, 0], &[]), Err(Unreadable { shard: 2 }));
    }

    #[test]
    fn no_shard_needs_no_node() {
        assert_eq!(assign(&[], nodes, &[0, 1, 2], &[]), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn each_shard_is_read_once_where_it_lies_and_never_by_a_node_to_be_avoided(
            shards in prop::collection::btree_set(0_usize..20, 0..12),
            avoid in prop::collection::vec(0_usize..3, 0..2),
            silent in prop::collection::vec(0_usize..3, 0..3),
        ) {
            let shards: Vec<usize> = shards.into_iter().collect();
            if let Ok(parts) = assign(&shards, nodes, &avoid, &silent) {
                let mut read: Vec<usize> = parts.iter().flat_map(|(_, group)| group.clone()).collect();
                read.sort_unstable();
                prop_assert_eq!(&read, &shards);
                for (node, group) in parts {
                    prop_assert!(!avoid.contains(&node));
                    prop_assert!(group.iter().all(|shard| nodes(*shard).contains(&node)));
                }
            } else {
                prop_assert!(!avoid.is_empty());
            }
        }
    }
}
