//! Sub-queries in expressions, made up from a seed.

use crate::generator::{Generator, Scope, labelled};
use crate::schema::Type;

impl Generator {
    /// A sub-query of one table's rows for an outer row: something of all of them, or of the first.
    pub(crate) fn query_for_a_row(&mut self, of: Type, scope: &Scope) -> Option<String> {
        let table = self.distributed_table();
        let (from, relation) = self.table(table);
        let key = relation.key.clone()?.join(", ");
        let inner = Scope { relations: vec![relation], outer: scope.inside().outer };
        let equal = self.correlated_filter(&inner);
        self.nesting += 5;
        let own = Scope { relations: inner.relations.clone(), outer: Vec::new() };
        let value =
            if self.random.chance(50) { self.leaf(of, &own) } else { self.expression(of, &own, 1) };
        let by = self.type_in(&own);
        let by = self.leaf(by, &own);
        let sql = match self.random.below(6) {
            0 | 1 if of == Type::Int8 => format!("SELECT count(*) FROM {from} WHERE {equal}"),
            0 if of == Type::Bool => {
                format!("SELECT EXISTS (SELECT FROM {from} WHERE {equal})")
            }
            2 | 3 => format!(
                "SELECT {value} FROM {from} WHERE {equal} ORDER BY ({by}) DESC, {key} LIMIT 1"
            ),
            _ => format!("SELECT {} FROM {from} WHERE {equal}", self.aggregate(of, &own)),
        };
        self.nesting -= 5;
        Some(sql)
    }

    /// A sub-query of one table's rows for a row that stands before it: the first ones, or aggregates.
    pub(crate) fn rows_for_a_row(&mut self, types: &[Type], scope: &Scope) -> String {
        let table = self.distributed_table();
        let (from, relation) = self.table(table);
        let key = relation.key.clone().map(|key| key.join(", "));
        let inner = Scope { relations: vec![relation], outer: scope.inside().outer };
        let equal = self.correlated_filter(&inner);
        self.nesting += 5;
        let own = Scope { relations: inner.relations.clone(), outer: Vec::new() };
        let sql = match key {
            Some(key) if self.random.chance(60) => {
                let list: Vec<String> = types.iter().map(|of| self.leaf(*of, &own)).collect();
                let by = self.type_in(&own);
                let by = self.leaf(by, &own);
                let many = 1 + self.random.below(3);
                format!(
                    "SELECT {} FROM {from} WHERE {equal} ORDER BY ({by}), {key} LIMIT {many}",
                    labelled(&list)
                )
            }
            _ => {
                let list: Vec<String> = types.iter().map(|of| self.aggregate(*of, &own)).collect();
                format!("SELECT {} FROM {from} WHERE {equal}", labelled(&list))
            }
        };
        self.nesting -= 5;
        sql
    }

    /// A sub-query that yields one value.
    pub(crate) fn scalar_query(&mut self, of: Type, scope: &Scope) -> String {
        if self.random.chance(45)
            && let Some(query) = self.query_for_a_row(of, scope)
        {
            return format!("({query})");
        }
        self.nesting += 1;
        let tables = self.random.below(2);
        let (from, inner) = self.from(&scope.inside(), tables);
        let value = self.aggregate(of, &inner);
        let filter = self.correlated_filter(&inner);
        self.nesting -= 1;
        format!("(SELECT {value} FROM {from} WHERE {filter})")
    }

    /// A filter that compares with the query around, if possible.
    pub(crate) fn correlated_filter(&mut self, inner: &Scope) -> String {
        let mut pairs = Vec::new();
        for of in Type::ALL {
            for here in inner.columns(of) {
                pairs.extend(inner.outer_columns(of).map(|there| format!("{here} = {there}")));
            }
        }
        let distributed: Vec<String> = inner
            .relations
            .iter()
            .filter_map(|relation| relation.distribution.as_ref())
            .flat_map(|(here, of, _)| {
                let others =
                    inner.outer.iter().filter_map(|relation| relation.distribution.as_ref());
                others
                    .filter(move |(_, its, _)| its == of)
                    .map(move |(there, _, _)| format!("{here} = {there}"))
            })
            .collect();
        let mut filter = if !distributed.is_empty() && self.random.chance(60) {
            self.random.pick(&distributed)
        } else if !pairs.is_empty() && self.random.chance(75) {
            self.random.pick(&pairs)
        } else {
            self.condition(inner, 1)
        };
        if self.random.chance(35) {
            filter = format!("{filter} AND {}", self.condition(inner, 1));
        }
        filter
    }

    /// EXISTS, IN, ANY and ALL over a sub-query, and their negations.
    pub(crate) fn query_condition(&mut self, scope: &Scope) -> String {
        self.nesting += 1;
        let negation = if self.random.chance(40) { "NOT " } else { "" };
        let text = match self.random.below(6) {
            0..=2 => {
                let tables = self.random.below(2);
                let (from, inner) = self.from(&scope.inside(), tables);
                let filter = self.correlated_filter(&inner);
                format!("{negation}EXISTS (SELECT FROM {from} WHERE {filter})")
            }
            3 => {
                let of = self.type_in(scope);
                let value = self.leaf(of, scope);
                let (from, inner) = self.from(&scope.inside(), 0);
                let listed = self.expression(of, &inner, 1);
                let filter = self.correlated_filter(&inner);
                format!("{value} {negation}IN (SELECT {listed} FROM {from} WHERE {filter})")
            }
            4 => {
                let of = self.type_in(scope);
                let value = self.leaf(of, scope);
                let query = self.query(&Scope::default(), Some(&[of]), 1);
                format!("{value} {negation}IN ({})", query.sql)
            }
            _ => {
                let of = self.random.pick(&[Type::Int4, Type::Numeric, Type::Date, Type::Text]);
                let value = self.expression(of, scope, 1);
                let query = self.query(&Scope::default(), Some(&[of]), 0);
                let operator = self.random.pick(&["= ANY", "> ALL", "<= ANY", "<> ALL"]);
                format!("{value} {operator} ({})", query.sql)
            }
        };
        self.nesting -= 1;
        text
    }
}
