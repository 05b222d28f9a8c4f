//! Which nodes get the placements of a new shard, as pg_shard 1.2 chooses them.

/// The workers (by index in the sorted list) that hold the placements of the shard numbered `shard`.
///
/// Tries `shard`, `shard + 1`, ... modulo the number of workers and stops at `replication` successes. At most
/// one spare is tried beyond the replication factor, as in 1.2, so the answer may be shorter than asked:
/// the caller decides whether that is an error. `create` is asked once for each tried worker, in order.
pub fn choose_nodes(
    shard: usize,
    workers: usize,
    replication: usize,
    mut create: impl FnMut(usize) -> bool,
) -> Vec<usize> {
    let attempts = if workers > replication { replication + 1 } else { replication.min(workers) };
    let mut chosen = Vec::with_capacity(replication);
    for attempt in 0..attempts {
        if chosen.len() == replication {
            break;
        }
        let worker = (shard + attempt) % workers;
        if create(worker) {
            chosen.push(worker);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_workers_and_two_copies_go_round_as_in_the_article() {
        let all: Vec<_> = (0..5).map(|shard| choose_nodes(shard, 4, 2, |_| true)).collect();
        assert_eq!(all, [[0, 1], [1, 2], [2, 3], [3, 0], [0, 1]]);
    }

    #[test]
    fn a_dead_worker_is_replaced_by_one_spare() {
        assert_eq!(choose_nodes(0, 4, 2, |worker| worker != 0), [1, 2]);
        assert_eq!(choose_nodes(3, 4, 2, |worker| worker != 0), [3, 1]);
        assert_eq!(choose_nodes(0, 4, 2, |worker| worker > 1), [2]);
    }

    #[test]
    fn without_a_spare_a_dead_worker_leaves_too_few() {
        assert_eq!(choose_nodes(0, 2, 2, |worker| worker != 0), [1]);
    }
}
