//! Where the placements of shard groups ought to be: which to move so that nodes carry equal shares, with the least movement.
//!
//! A group is what moves together: the co-located shards of one range. Its weight is what the caller balances by: bytes, rows, or
//! one for each shard. Three rules decide about a move, in this order:
//!
//! 1. A node that is being drained ends without placements.
//! 2. Two placements of a group are never on one node, nor in one rack while another rack has room.
//! 3. An empty node is filled up to the average. Otherwise a node gives a group to another that has less by twice the group's weight, so
//!    that it still has as much afterwards. So a node that joins `n` balanced ones receives at most the share 1/(n+1), and nothing else
//!    moves.
//!
//! No placement moves twice in a plan, and a node that has given receives nothing.

/// What a node may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Gives and receives.
    Full,
    /// Gives everything and receives nothing.
    Drained,
    /// Cannot be reached: its placements stay, and it receives nothing.
    Away,
}

/// A node, as far as balance is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it may be used for.
    pub usage: Use,
    /// The rack; none is one of its own.
    pub rack: Option<String>,
}

/// What moves together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How much a placement of it counts.
    pub weight: u64,
    /// The nodes with placements of it, by their number; each once.
    pub nodes: Vec<usize>,
    /// Those of them whose placement cannot move: it has missed writes.
    pub fixed: Vec<usize>,
}

/// A placement of a group that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The group, by its number.
    pub group: usize,
    /// Where the placement is.
    pub from: usize,
    /// Where it goes.
    pub to: usize,
}

/// The moves of a plan, in the order in which they are best carried out.
pub fn plan(nodes: &[Node], groups: &[Group]) -> Vec<Move> {
    let mut plan = Planner::new(nodes, groups);
    plan.drain();
    plan.spread_over_racks();
    plan.level();
    plan.moves
}

/// A placement for each group of `lost`, a node that is gone for good: where to make it. None for a group that has no room elsewhere.
pub fn replace(nodes: &[Node], groups: &[Group], lost: usize) -> Vec<Move> {
    let mut nodes = nodes.to_vec();
    nodes[lost].usage = Use::Drained;
    let groups: Vec<Group> =
        groups.iter().map(|group| Group { fixed: Vec::new(), ..group.clone() }).collect();
    let mut plan = Planner::new(&nodes, &groups);
    plan.drain();
    plan.moves.retain(|it| it.from == lost);
    plan.moves
}

struct Planner<'a> {
    nodes: &'a [Node],
    groups: Vec<Group>,
    /// Weight and number of the placements of each node.
    loads: Vec<(u64, usize)>,
    gave: Vec<bool>,
    was_empty: Vec<bool>,
    moves: Vec<Move>,
}

impl<'a> Planner<'a> {
    fn new(nodes: &'a [Node], groups: &[Group]) -> Self {
        let mut loads = vec![(0, 0); nodes.len()];
        for group in groups {
            for node in &group.nodes {
                loads[*node].0 += group.weight;
                loads[*node].1 += 1;
            }
        }
        Self {
            nodes,
            groups: groups.to_vec(),
            was_empty: loads.iter().map(|load| load.0 == 0).collect(),
            loads,
            gave: vec![false; nodes.len()],
            moves: Vec::new(),
        }
    }

    fn drain(&mut self) {
        let drained: Vec<usize> = self.with_use(Use::Drained);
        // The heaviest first: what is light fills the gaps.
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_key(|group| std::cmp::Reverse(self.groups[*group].weight));
        for from in drained {
            for group in &order {
                if self.groups[*group].nodes.contains(&from)
                    && !self.groups[*group].fixed.contains(&from)
                    && let Some(to) = self.best_target(*group, from)
                {
                    self.carry(Move { group: *group, from, to });
                }
            }
        }
    }

    /// The node that can best take a placement of the group from another: one that makes fewest share a rack, then the emptiest.
    fn best_target(&self, group: usize, from: usize) -> Option<usize> {
        self.with_use(Use::Full)
            .into_iter()
            .filter(|to| !self.groups[group].nodes.contains(to))
            .min_by_key(|to| (self.neighbours(group, from, *to), self.loads[*to], *to))
    }

    /// Separates placements that share a rack, where another rack has a node for them.
    fn spread_over_racks(&mut self) {
        for group in 0..self.groups.len() {
            for from in self.groups[group].nodes.clone() {
                let now = self.neighbours(group, from, from);
                let stays = self.nodes[from].usage != Use::Full
                    || self.has_moved(group, from)
                    || self.groups[group].fixed.contains(&from);
                if now == 0 || stays {
                    continue;
                }
                if let Some(to) = self.best_target(group, from)
                    && self.neighbours(group, from, to) < now
                {
                    self.carry(Move { group, from, to });
                }
            }
        }
    }

    /// Nodes with more give to nodes with less.
    fn level(&mut self) {
        while let Some(best) = self.next_levelling() {
            self.carry(best);
        }
    }

    fn next_levelling(&self) -> Option<Move> {
        let mut by_load = self.with_use(Use::Full);
        by_load.sort_by_key(|node| self.loads[*node]);
        let total: u64 = by_load.iter().map(|node| self.loads[*node].0).sum();
        let count = by_load.len() as u64;
        for from in by_load.iter().rev().copied() {
            for to in by_load.iter().copied().filter(|to| !self.gave[*to]) {
                let (above, below) = (self.loads[from].0, self.loads[to].0);
                if above <= below {
                    break;
                }
                let takes = |weight: u64| self.takes(to, weight, total, count);
                let suits = |weight: u64| match self.was_empty[to] {
                    true => weight < above - below && above * count > total && takes(weight),
                    false => below + 2 * weight <= above,
                };
                let best = (0..self.groups.len())
                    .filter(|group| self.can_level(*group, from, to))
                    .filter(|group| suits(self.groups[*group].weight))
                    .max_by_key(|group| (self.groups[*group].weight, std::cmp::Reverse(*group)));
                if let Some(group) = best {
                    return Some(Move { group, from, to });
                }
            }
        }
        None
    }

    /// A node that was empty may receive so much: it stays at or below the average, or all that were empty do so together.
    fn takes(&self, to: usize, weight: u64, total: u64, count: u64) -> bool {
        let joined = self.with_use(Use::Full).into_iter().filter(|node| self.was_empty[*node]);
        let loads: Vec<u64> = joined.map(|node| self.loads[node].0).collect();
        let together = loads.iter().sum::<u64>() + weight;
        (self.loads[to].0 + weight) * count <= total
            || together * count <= total * loads.len() as u64
    }

    fn can_level(&self, group: usize, from: usize, to: usize) -> bool {
        let it = &self.groups[group];
        it.weight > 0
            && it.weight <= self.loads[from].0
            && it.nodes.contains(&from)
            && !it.fixed.contains(&from)
            && !it.nodes.contains(&to)
            && !self.has_moved(group, from)
            && self.neighbours(group, from, to) <= self.neighbours(group, from, from)
    }

    /// The placement has come here in this plan.
    fn has_moved(&self, group: usize, node: usize) -> bool {
        self.moves.iter().any(|it| it.group == group && it.to == node)
    }

    /// How many other placements of the group would share a rack with one on `to` that comes from `from`.
    fn neighbours(&self, group: usize, from: usize, to: usize) -> usize {
        let Some(rack) = &self.nodes[to].rack else { return 0 };
        let others = self.groups[group].nodes.iter().filter(|node| **node != from);
        others.filter(|node| self.nodes[**node].rack.as_ref() == Some(rack)).count()
    }

    fn with_use(&self, usage: Use) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].usage == usage).collect()
    }

    fn carry(&mut self, it: Move) {
        let group = &mut self.groups[it.group];
        for node in group.nodes.iter_mut().filter(|node| **node == it.from) {
            *node = it.to;
        }
        self.loads[it.from].0 -= group.weight;
        self.loads[it.from].1 -= 1;
        self.loads[it.to].0 += group.weight;
        self.loads[it.to].1 += 1;
        self.gave[it.from] = true;
        self.moves.push(it);
    }
}

#[cfg(test)]
mod tests;
