//! Proving that everything a statement touches lies in one shard group.
//!
//! Columns of relations are nodes. An edge `a -> b` says: as far as the answer is concerned, only those rows of
//! b's relation matter whose `b` equals an `a` that matters. A key `column = expression` starts a flood along
//! the edges; when it has reached the distribution column of every distributed relation, one value decides the
//! shard group of them all.
//!
//! Which edges are sound is for whoever reads the statement to say: an equality of WHERE or of an inner join
//! goes both ways, one in the ON of a left join only from the preserved to the nullable side, a correlation
//! only from the outer query inwards.

use std::collections::HashMap;
use std::hash::Hash;

/// The equalities of a statement.
#[derive(Clone, Debug)]
pub struct Equalities<C, E> {
    edges: HashMap<C, Vec<C>>,
    keys: Vec<(C, E)>,
}

impl<C, E> Default for Equalities<C, E> {
    fn default() -> Self {
        Self { edges: HashMap::new(), keys: Vec::new() }
    }
}

impl<C: Copy + Eq + Hash, E: Clone> Equalities<C, E> {
    /// Rows of `to`'s relation matter only if `to` equals a `from` that matters.
    pub fn follows(&mut self, from: C, to: C) {
        self.edges.entry(from).or_default().push(to);
    }

    /// Both follow each other.
    pub fn equal(&mut self, left: C, right: C) {
        self.follows(left, right);
        self.follows(right, left);
    }

    /// `column = expression`, and rows where it does not hold do not matter.
    pub fn key(&mut self, column: C, expression: E) {
        self.keys.push((column, expression));
    }

    /// The keys that reach all of `columns`: any one of them routes the statement.
    ///
    /// Several keys may each reach only some of the columns; then no single one proves anything and the answer
    /// is empty, though their values may happen to fall together.
    pub fn routes(&self, columns: &[C]) -> Vec<E> {
        self.keys
            .iter()
            .filter(|(column, _)| self.reaches_all(*column, columns))
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// Whatever value `start` has in a row that matters, all of `columns` have it in the rows that matter with it: a
    /// statement about the rows of `start`'s relation may run once for each shard group.
    pub fn reaches_all(&self, start: C, columns: &[C]) -> bool {
        let reached = self.reached_from(start);
        columns.iter().all(|column| reached.contains(column))
    }

    /// The keys that reach one column, for a caller that can compare their values.
    pub fn keys_of(&self, column: C) -> Vec<E> {
        let reaches = |start: C| self.reached_from(start).contains(&column);
        self.keys.iter().filter(|(start, _)| reaches(*start)).map(|(_, key)| key.clone()).collect()
    }

    /// All columns that a flood from `start` reaches, itself included.
    fn reached_from(&self, start: C) -> Vec<C> {
        let mut reached = vec![start];
        let mut next = 0;
        while next < reached.len() {
            for to in self.edges.get(&reached[next]).into_iter().flatten() {
                if !reached.contains(to) {
                    reached.push(*to);
                }
            }
            next += 1;
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reaches_every_relation_joined_on_the_column() {
        let mut facts = Equalities::default();
        facts.equal("orders.customer", "customers.id");
        facts.equal("lines.customer", "orders.customer");
        facts.key("customers.id", 42);
        assert_eq!(facts.routes(&["orders.customer", "customers.id", "lines.customer"]), [42]);
    }

    #[test]
    fn a_key_on_the_nullable_side_does_not_restrict_the_preserved_side() {
        let mut facts = Equalities::default();
        facts.follows("a.k", "b.k");
        facts.key("b.k", 1);
        assert!(facts.routes(&["a.k", "b.k"]).is_empty());
        facts.key("a.k", 1);
        assert_eq!(facts.routes(&["a.k", "b.k"]), [1]);
    }

    #[test]
    fn a_statement_spreads_from_a_table_that_all_others_follow() {
        let mut facts = Equalities::<_, i32>::default();
        facts.follows("target.k", "sub.k");
        assert!(facts.reaches_all("target.k", &["target.k", "sub.k"]));
        assert!(!facts.reaches_all("sub.k", &["target.k", "sub.k"]));
        assert!(!facts.reaches_all("target.k", &["target.k", "sub.k", "apart.k"]));
    }

    #[test]
    fn two_keys_that_each_reach_one_relation_route_nothing_alone() {
        let mut facts = Equalities::default();
        facts.key("a.k", 1);
        facts.key("b.k", 2);
        assert!(facts.routes(&["a.k", "b.k"]).is_empty());
        assert_eq!(facts.keys_of("b.k"), [2]);
    }
}
