//! What the nodes hold, and what has to move so that each holds its share, or nothing any more.
//!
//! `shardmap/src/balance.rs` decides; here are the facts: which shards go together, where their placements are, and how large. A table
//! of one shard with several placements is a reference table: it stays where it is, until its node leaves.

use super::{all, down, for_new_shards, rows};
use crate::catalog::{self, DistributedTable, Placement};
use crate::ddl;
use crate::functions::literal;
use crate::plan::lie_together;
use crate::session::pool;
use pg::{PgError, SqlState};
use shardmap::balance::{self, Group, Node, Use};
use shardmap::{NodeAddress, PlacementState, ShardId};
use std::collections::HashMap;
use std::rc::Rc;

/// By what nodes are to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Bytes,
    Rows,
    Shards,
}

/// What is done with a shard and those beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The placement on `source` goes to `target`.
    Move,
    /// `target` gets a placement; that of the node that leaves is dropped.
    Copy,
    /// The placement on `source` is dropped: there are others.
    Drop,
}

/// A step of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) shard: ShardId,
    /// The table of that shard.
    pub(crate) table: String,
    pub(crate) source: NodeAddress,
    pub(crate) target: Option<NodeAddress>,
    pub(crate) bytes: i64,
    pub(crate) rows: i64,
}

/// Shards that go together.
struct Together {
    members: Vec<(Rc<DistributedTable>, usize)>,
    is_reference: bool,
    bytes: u64,
    rows: u64,
}

/// Who holds what.
struct Shares {
    nodes: Vec<NodeAddress>,
    states: Vec<Node>,
    together: Vec<Together>,
    groups: Vec<Group>,
}

/// The moves after which all nodes hold their shares, and those that are being drained nothing.
pub(crate) fn rebalance(by: By) -> Result<Vec<Step>, PgError> {
    let shares = Shares::find(by)?;
    let movable = shares.movable();
    let groups: Vec<Group> = movable.iter().map(|at| shares.groups[*at].clone()).collect();
    let moves = balance::plan(&shares.states, &groups);
    Ok(moves
        .iter()
        .map(|it| shares.step(Action::Move, movable[it.group], it.from, Some(it.to)))
        .collect())
}

/// A placement on a lost node that can be made anew on another.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    /// A shard; those beside it go along.
    pub(crate) shard: ShardId,
    /// The table of that shard.
    pub(crate) table: String,
    pub(crate) lost: NodeAddress,
    /// Where the rows are.
    pub(crate) source: NodeAddress,
    pub(crate) target: NodeAddress,
    /// How many placements could be read.
    left: usize,
}

/// What can be made anew of the placements on lost nodes, what is most at risk first; one placement of a shard at a time.
pub(crate) fn replacements(lost: &[NodeAddress]) -> Result<Vec<Replacement>, PgError> {
    let shares = Shares::find(By::Bytes)?;
    let movable = shares.movable();
    let groups: Vec<Group> = movable.iter().map(|at| shares.groups[*at].clone()).collect();
    let mut found: Vec<Replacement> = Vec::new();
    for node in lost {
        let Ok(leaving) = shares.place(node) else { continue };
        for it in balance::replace(&shares.states, &groups, leaving) {
            let group = movable[it.group];
            let Some(source) = shares.sources(group, leaving).next() else { continue };
            let step = shares.step(Action::Copy, group, source, Some(it.to));
            if found.iter().any(|known| known.shard == step.shard) {
                continue;
            }
            found.push(Replacement {
                shard: step.shard,
                table: step.table,
                lost: node.clone(),
                source: step.source,
                target: shares.nodes[it.to].clone(),
                left: shares.sources(group, leaving).count(),
            });
        }
    }
    found.sort_by_key(|it| (it.left, it.shard));
    Ok(found)
}

/// The steps after which a node holds nothing, with all of it on `target`, if that is given. What has to stay is warned of.
pub(crate) fn leave(
    node: &NodeAddress,
    target: Option<&NodeAddress>,
    by: By,
) -> Result<Vec<Step>, PgError> {
    let mut shares = Shares::find(by)?;
    let leaving = shares.place(node)?;
    if let Some(target) = target {
        let target = shares.place(target)?;
        for (at, state) in shares.states.iter_mut().enumerate() {
            state.usage = if at == target { Use::Full } else { Use::Away };
        }
    }
    let movable = shares.movable();
    let groups: Vec<Group> = movable.iter().map(|at| shares.groups[*at].clone()).collect();
    let moves = balance::replace(&shares.states, &groups, leaving);
    let is_lost = down().contains(node);
    let mut steps = Vec::new();
    let mut stays: Vec<String> = Vec::new();
    for (group, at) in movable.iter().enumerate() {
        let held = &shares.groups[*at];
        if !held.nodes.contains(&leaving) {
            continue;
        }
        let to = moves.iter().find(|it| it.group == group).map(|it| it.to);
        let step = match to {
            Some(to) if !is_lost && !held.fixed.contains(&leaving) => {
                Some(shares.step(Action::Move, *at, leaving, Some(to)))
            }
            to => shares.sources(*at, leaving).next().map(|source| match to {
                Some(_) => shares.step(Action::Copy, *at, source, to),
                // The others are enough to go on with, but they are fewer: that is the operator's decision.
                None => shares.step(Action::Drop, *at, leaving, None),
            }),
        };
        match step {
            Some(step) if step.action != Action::Drop => steps.push(step),
            _ => stays.push(shares.together[*at].members[0].0.name.clone()),
        }
    }
    for (at, held) in shares.groups.iter().enumerate() {
        let is_left = shares.together[at].is_reference && held.nodes.contains(&leaving);
        if is_left && shares.sources(at, leaving).next().is_some() {
            steps.push(shares.step(Action::Drop, at, leaving, None));
        }
    }
    warn_of(node, stays);
    Ok(steps)
}

fn warn_of(node: &NodeAddress, mut stays: Vec<String>) {
    stays.sort();
    stays.dedup();
    if !stays.is_empty() {
        pg::sys::error::warning(
            PgError::new(SqlState::WARNING, format!("placements remain on node \"{node}\""))
                .detail(format!("No other node can take those of: {}.", stays.join(", ")))
                .hint("Add a node that holds none of their shards, or repair their placements."),
        );
    }
}

impl Shares {
    fn find(by: By) -> Result<Self, PgError> {
        let nodes = all();
        let states = states(&nodes)?;
        let mut shares = Self { nodes, states, together: components(), groups: Vec::new() };
        shares.measure()?;
        for together in &shares.together {
            let weight = match by {
                By::Bytes => together.bytes,
                By::Rows => together.rows,
                By::Shards => together.members.len() as u64,
            };
            shares.groups.push(shares.group(together, weight));
        }
        Ok(shares)
    }

    fn place(&self, node: &NodeAddress) -> Result<usize, PgError> {
        self.nodes.iter().position(|known| known == node).ok_or_else(|| {
            PgError::new(SqlState::UNDEFINED_OBJECT, format!("node \"{node}\" does not exist"))
        })
    }

    /// The groups that may move, by their numbers.
    fn movable(&self) -> Vec<usize> {
        (0..self.groups.len()).filter(|at| !self.together[*at].is_reference).collect()
    }

    fn group(&self, together: &Together, weight: u64) -> Group {
        let mut group = Group { weight, nodes: Vec::new(), fixed: Vec::new() };
        for (at, node) in self.nodes.iter().enumerate() {
            let state = |(table, index): &(Rc<DistributedTable>, usize)| {
                let there = table.placements[*index].iter().find(|it| it.node == *node);
                there.map(|placement| placement.state)
            };
            let states: Vec<_> = together.members.iter().map(state).collect();
            if states.iter().any(Option::is_some) {
                group.nodes.push(at);
                if states.iter().any(|state| *state != Some(PlacementState::Healthy)) {
                    group.fixed.push(at);
                }
            }
        }
        group
    }

    /// The nodes that have the group healthy, and answer.
    fn sources(&self, group: usize, leaving: usize) -> impl Iterator<Item = usize> {
        let down = down();
        let held = &self.groups[group];
        held.nodes.iter().copied().filter(move |node| {
            *node != leaving && !held.fixed.contains(node) && !down.contains(&self.nodes[*node])
        })
    }

    fn step(&self, action: Action, group: usize, source: usize, target: Option<usize>) -> Step {
        let together = &self.together[group];
        let (table, index) = &together.members[0];
        Step {
            action,
            shard: table.shard_id(*index),
            table: table.name.clone(),
            source: self.nodes[source].clone(),
            target: target.map(|node| self.nodes[node].clone()),
            bytes: i64::try_from(together.bytes).unwrap_or(i64::MAX),
            rows: i64::try_from(together.rows).unwrap_or(i64::MAX),
        }
    }

    /// Asks the nodes how large the shards are.
    fn measure(&mut self) -> Result<(), PgError> {
        let mut tables: Vec<Rc<DistributedTable>> = Vec::new();
        for (table, _) in self.together.iter().flat_map(|together| &together.members) {
            if !tables.iter().any(|known| known.oid == table.oid) {
                tables.push(Rc::clone(table));
            }
        }
        let mut sizes: HashMap<i64, (u64, u64)> = HashMap::new();
        for table in &tables {
            let missing = ddl::ask_nodes(table, questions(table), &mut |text| {
                let mut numbers = text.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
                let mut next = || numbers.next().unwrap_or(0);
                let (shard, bytes, rows) = (next(), next(), next());
                sizes.insert(shard.cast_signed(), (bytes, rows));
            })?;
            for (node, error) in missing {
                pg::sys::error::warning(pool::connection_failed(&node, &error));
            }
        }
        for together in &mut self.together {
            for (table, index) in &together.members {
                let (bytes, rows) = sizes.get(&table.shard_id(*index).0).copied().unwrap_or((0, 0));
                together.bytes += bytes;
                together.rows += rows;
            }
        }
        Ok(())
    }
}

/// What the nodes may be used for.
fn states(nodes: &[NodeAddress]) -> Result<Vec<Node>, PgError> {
    let (rows, taking, down) = (rows(), for_new_shards()?, down());
    let state = |node: &NodeAddress| {
        let row = rows.iter().find(|row| row.address == *node);
        let usage = if down.contains(node) {
            Use::Away
        } else if row.is_some_and(|row| row.is_draining) {
            Use::Drained
        } else if taking.contains(node) {
            Use::Full
        } else {
            // It is in no list any more, and nobody has said that it should be emptied.
            Use::Away
        };
        Node { usage, rack: row.and_then(|row| row.rack.clone()) }
    };
    Ok(nodes.iter().map(state).collect())
}

/// Which shards go together, as `relocation/group.rs` moves them: those of tables that are cut alike and lie together.
fn components() -> Vec<Together> {
    let mut tables: Vec<Vec<Rc<DistributedTable>>> = Vec::new();
    for table in catalog::distributed_tables().into_iter().filter_map(catalog::find) {
        if table.check().is_err() || table.map.is_empty() {
            continue;
        }
        let is_beside = |others: &&mut Vec<Rc<DistributedTable>>| {
            let first = &others[0];
            first.map.len() > 1
                && table.map.len() > 1
                && lie_together(&[Rc::clone(first), Rc::clone(&table)])
        };
        match tables.iter_mut().find(is_beside) {
            Some(others) => others.push(table),
            None => tables.push(vec![table]),
        }
    }
    let mut together = Vec::new();
    for tables in tables {
        for index in 0..tables[0].map.len() {
            let is_reference = tables[0].map.len() == 1 && tables[0].is_replicated();
            let members = tables.iter().map(|table| (Rc::clone(table), index)).collect();
            together.push(Together { members, is_reference, bytes: 0, rows: 0 });
        }
    }
    together
}

/// A statement for each node, with a shard of it, that tells numbers, bytes and rows of shards.
fn questions(table: &Rc<DistributedTable>) -> Vec<(NodeAddress, usize, String)> {
    let down = down();
    let mut nodes: Vec<(NodeAddress, usize, Vec<String>)> = Vec::new();
    for index in 0..table.map.len() {
        let answers = |placement: &&Placement| !down.contains(&placement.node);
        let Some(leader) = table.healthy(index).find(answers) else { continue };
        let id = table.shard_id(index).0;
        let row = format!("('{id}', {})", literal(&format!("{}_{id}", table.name)));
        match nodes.iter_mut().find(|(node, ..)| *node == leader.node) {
            Some((_, _, rows)) => rows.push(row),
            None => nodes.push((leader.node.clone(), index, vec![row])),
        }
    }
    let question = |rows: &[String]| {
        format!(
            "SELECT concat_ws(' ', v.id, pg_total_relation_size(c.oid), coalesce(s.n_live_tup, 0)) \
             FROM (VALUES {}) AS v(id, name) JOIN pg_class AS c ON c.relname = v.name::name \
             JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = {} \
             LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid",
            rows.join(", "),
            literal(&table.schema)
        )
    };
    nodes.into_iter().map(|(node, shard, rows)| (node, shard, question(&rows))).collect()
}
