//! Which transaction comes before which, and cycles of that.

use crate::order::{Orders, outer_reads};
use crate::transaction::{Edge, End, Level, Transaction};
use std::collections::{HashMap, HashSet, VecDeque};

/// A graph whose nodes are transactions, by their numbers, and behind them moments, which stand for all that had ended by then.
pub(crate) struct Graph {
    transactions: usize,
    /// From each node: where to, and why. A step over a read may go on to a second node at once.
    edges: Vec<Vec<Step>>,
}

/// An edge, or two of which the first is [`Edge::ReadWrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Step {
    to: usize,
    edge: Edge,
    over: Option<(usize, Edge)>,
}

impl Graph {
    /// The graph in which a cycle is what the level forbids.
    ///
    /// With snapshots, a history is possible if there is no cycle in which no two reads that were overtaken follow each other
    /// (Fekete et al., *Making Snapshot Isolation Serializable*, 2005). So such an edge counts only together with another
    /// kind of edge behind it.
    pub(crate) fn of(history: &[Transaction], orders: &Orders, level: Level) -> Self {
        let mut plain = depends(history, orders);
        add_times(history, &mut plain);
        let overtaken = overtaken(history, orders, level);
        let mut edges: Vec<Vec<Step>> = plain
            .iter()
            .map(|all| {
                all.iter().map(|(to, edge)| Step { to: *to, edge: *edge, over: None }).collect()
            })
            .collect();
        for (from, to) in overtaken {
            if level == Level::Serializable {
                edges[from].push(Step { to, edge: Edge::ReadWrite, over: None });
            } else {
                let on = plain[to].iter().map(|(on, edge)| Step {
                    to: *on,
                    edge: *edge,
                    over: Some((to, Edge::ReadWrite)),
                });
                edges[from].extend(on);
            }
        }
        Self { transactions: history.len(), edges }
    }

    /// A shortest cycle through some node, if there is any.
    pub(crate) fn cycle(&self) -> Option<Vec<(usize, Edge)>> {
        let component = self.components();
        let mut size: HashMap<usize, usize> = HashMap::new();
        component.iter().for_each(|number| *size.entry(*number).or_default() += 1);
        let is_in_cycle = |node: &usize| {
            size[&component[*node]] > 1 || self.edges[*node].iter().any(|step| step.to == *node)
        };
        let start = (0..self.transactions).find(is_in_cycle)?;
        Some(self.way_back(start, &component))
    }

    /// The way from a node of a cycle back to it.
    fn way_back(&self, start: usize, component: &[usize]) -> Vec<(usize, Edge)> {
        let mut came: HashMap<usize, (usize, Step)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        'search: while let Some(node) = queue.pop_front() {
            for step in
                self.edges[node].iter().filter(|step| component[step.to] == component[start])
            {
                if step.to == start || !came.contains_key(&step.to) {
                    came.insert(step.to, (node, *step));
                    queue.push_back(step.to);
                }
                if step.to == start {
                    break 'search;
                }
            }
        }
        let mut way = Vec::new();
        let mut at = start;
        while let Some((from, step)) = came.get(&at) {
            way.push((*from, step.over.map_or(step.edge, |(_, edge)| edge)));
            if let Some((over, _)) = step.over {
                way.insert(way.len() - 1, (over, step.edge));
            }
            at = *from;
            if at == start {
                break;
            }
        }
        way.reverse();
        // Moments are only between transactions.
        way.retain(|(node, _)| *node < self.transactions);
        way
    }

    /// The strongly connected component of each node (Tarjan 1972), without recursion.
    fn components(&self) -> Vec<usize> {
        let count = self.edges.len();
        let (mut index, mut low) = (vec![usize::MAX; count], vec![0; count]);
        let (mut on_stack, mut stack) = (vec![false; count], Vec::new());
        let mut component = vec![usize::MAX; count];
        let mut next = 0;
        for root in 0..count {
            if index[root] != usize::MAX {
                continue;
            }
            let mut calls = vec![(root, 0)];
            while let Some((node, step)) = calls.pop() {
                if step == 0 {
                    (index[node], low[node]) = (next, next);
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                } else {
                    let child = self.edges[node][step - 1].to;
                    low[node] = low[node].min(low[child]);
                }
                let mut descended = false;
                for at in step..self.edges[node].len() {
                    let child = self.edges[node][at].to;
                    if index[child] == usize::MAX {
                        calls.push((node, at + 1));
                        calls.push((child, 0));
                        descended = true;
                        break;
                    }
                    if on_stack[child] {
                        low[node] = low[node].min(index[child]);
                    }
                }
                if !descended && low[node] == index[node] {
                    while let Some(member) = stack.pop() {
                        on_stack[member] = false;
                        component[member] = node;
                        if member == node {
                            break;
                        }
                    }
                }
            }
        }
        component
    }
}

/// Edges by what was written and read.
fn depends(history: &[Transaction], orders: &Orders) -> Vec<Vec<(usize, Edge)>> {
    let mut edges = vec![Vec::new(); history.len()];
    for (key, list) in &orders.lists {
        let writers: Vec<usize> =
            list.iter().filter_map(|value| orders.writers.get(&(*key, *value)).copied()).collect();
        for pair in writers.windows(2).filter(|pair| pair[0] != pair[1]) {
            edges[pair[0]].push((pair[1], Edge::WriteWrite));
        }
        for writer in orders.unread.get(key).into_iter().flatten() {
            if let Some(last) = writers.last().filter(|last| *last != writer) {
                edges[*last].push((*writer, Edge::WriteWrite));
            }
        }
    }
    for (reader, transaction) in history.iter().enumerate().filter(|(_, it)| it.end != End::Aborted)
    {
        for (key, list) in outer_reads(transaction) {
            let writer = list.last().and_then(|value| orders.writers.get(&(key, *value)));
            if let Some(writer) = writer.filter(|writer| **writer != reader) {
                edges[*writer].push((reader, Edge::WriteRead));
            }
        }
    }
    edges
}

/// Readers, and who has appended next to what they had read.
fn overtaken(history: &[Transaction], orders: &Orders, level: Level) -> HashSet<(usize, usize)> {
    let mut edges = HashSet::new();
    for (reader, transaction) in history.iter().enumerate() {
        let counts = level != Level::Statements || transaction.is_read_only();
        if transaction.end == End::Aborted || !counts {
            continue;
        }
        for (key, list) in outer_reads(transaction) {
            let behind = orders.lists.get(&key).map_or(&[][..], |whole| &whole[list.len()..]);
            let writer = behind
                .iter()
                .filter_map(|value| orders.writers.get(&(key, *value)).copied())
                .find(|writer| *writer != reader);
            edges.extend(writer.map(|writer| (reader, writer)));
            if behind.is_empty() {
                let unread = orders.unread.get(&key).into_iter().flatten();
                edges.extend(unread.filter(|it| **it != reader).map(|it| (reader, *it)));
            }
        }
    }
    edges
}

/// Edges from each transaction that was acknowledged to all that began later, over moments in a row.
fn add_times(history: &[Transaction], edges: &mut Vec<Vec<(usize, Edge)>>) {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, transaction) in history.iter().enumerate() {
        if transaction.end == End::Aborted {
            continue;
        }
        events.push((transaction.began, false, number));
        if transaction.end == End::Committed {
            events.push((transaction.ended, true, number));
        }
    }
    events.sort_unstable();
    let mut last: Option<usize> = None;
    for (_, is_end, number) in events {
        if is_end {
            let moment = edges.len();
            edges.push(Vec::new());
            edges[number].push((moment, Edge::Time));
            if let Some(last) = last.replace(moment) {
                edges[last].push((moment, Edge::Time));
            }
        } else if let Some(last) = last {
            edges[last].push((number, Edge::Time));
        }
    }
}
