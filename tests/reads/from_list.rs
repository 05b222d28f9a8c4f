//! FROM of statements made up from a seed: tables, derived tables, joins.

use crate::generator::{Generator, Relation, Scope};
use crate::schema::{TABLES, Table, Type, VIEW_TABLES};

pub(crate) fn names(relation: &Relation) -> String {
    let names: Vec<&str> = relation
        .columns
        .iter()
        .filter_map(|(name, _)| name.rsplit_once('.'))
        .map(|(_, name)| name)
        .collect();
    names.join(", ")
}

impl Generator {
    /// FROM, and what it brings in scope.
    pub(crate) fn from(&mut self, outer: &Scope, tables: usize) -> (String, Scope) {
        let mut scope = Scope { relations: Vec::new(), outer: outer.outer.clone() };
        scope.outer.extend(outer.relations.iter().cloned());
        let (mut text, first) = self.item(&scope, tables);
        scope.relations.push(first);
        let more = match tables {
            0 => 0,
            1 => self.random.below(2),
            _ => self.random.pick(&[0, 0, 0, 1, 1, 1, 2, 2, 3, 4]),
        };
        for at in 0..more {
            if self.random.chance(8) {
                // LATERAL sees what stands before it.
                let types: Vec<Type> =
                    (0..1 + self.random.below(2)).map(|_| self.usual_type()).collect();
                self.nesting += 1;
                let query = if self.random.chance(50) {
                    self.rows_for_a_row(&types, &scope)
                } else {
                    self.query(&scope.inside(), Some(&types), 0).sql
                };
                self.nesting -= 1;
                let relation = self.derived(&types);
                let kind = self.random.pick(&["CROSS JOIN LATERAL", "LEFT JOIN LATERAL"]);
                let on = if kind.starts_with("LEFT") { " ON true" } else { "" };
                text = format!(
                    "{text} {kind} ({query}) AS {} ({}){on}",
                    relation.alias,
                    names(&relation)
                );
                scope.relations.push(relation);
                continue;
            }
            let (item, mut relation) = self.item(&scope, tables.saturating_sub(1).min(1));
            let kind = self.random.pick(&[
                "JOIN",
                "JOIN",
                "JOIN",
                "LEFT JOIN",
                "LEFT JOIN",
                "RIGHT JOIN",
                "FULL JOIN",
                "CROSS JOIN",
            ]);
            match kind {
                "CROSS JOIN" if at == 0 => {
                    text = format!("{text} CROSS JOIN {item}");
                }
                "FULL JOIN" => {
                    let condition =
                        self.equality(&scope, &relation).unwrap_or_else(|| "true".to_owned());
                    text = format!("{text} FULL JOIN {item} ON {condition}");
                    scope.relations.iter_mut().for_each(|relation| relation.nullable = true);
                    relation.nullable = true;
                }
                _ => {
                    let kind = if kind == "CROSS JOIN" { "JOIN" } else { kind };
                    let condition = self.join_condition(&scope, &relation);
                    text = format!("{text} {kind} {item} ON {condition}");
                    if kind == "RIGHT JOIN" {
                        scope.relations.iter_mut().for_each(|relation| relation.nullable = true);
                    }
                    relation.nullable |= kind == "LEFT JOIN";
                }
            }
            scope.relations.push(relation);
        }
        (text, scope)
    }

    pub(crate) fn join_condition(&mut self, scope: &Scope, other: &Relation) -> String {
        let equality = self.equality(scope, other);
        let mut both = scope.clone();
        both.relations.push(other.clone());
        match equality {
            Some(equality) if self.random.chance(75) => equality,
            Some(equality) => {
                self.nesting += 5;
                let more = self.condition(&both, 1);
                self.nesting -= 5;
                format!("{equality} AND {more}")
            }
            None => {
                self.nesting += 5;
                let condition = self.condition(&both, 1);
                self.nesting -= 5;
                condition
            }
        }
    }

    /// An equality between a column of what is there and one of what comes; of the columns that distribute, if possible.
    pub(crate) fn equality(&mut self, scope: &Scope, other: &Relation) -> Option<String> {
        if let Some((column, of, _)) = &other.distribution {
            let partners: Vec<String> = scope
                .relations
                .iter()
                .filter_map(|relation| relation.distribution.as_ref())
                .filter(|(_, its, _)| its == of || (its.is_whole() && of.is_whole()))
                .map(|(column, _, _)| column.clone())
                .collect();
            if !partners.is_empty() && self.random.chance(70) {
                let partner = self.random.pick(&partners);
                return Some(if self.random.chance(50) {
                    format!("{partner} = {column}")
                } else {
                    format!("{column} = {partner}")
                });
            }
        }
        let mut pairs = Vec::new();
        for (column, of) in &other.columns {
            if matches!(of, Type::Bool | Type::Jsonb | Type::Mood | Type::Bytea) {
                continue;
            }
            pairs.extend(scope.columns(*of).map(|there| format!("{there} = {column}")));
        }
        if pairs.is_empty() { None } else { Some(self.random.pick(&pairs)) }
    }

    /// One item of FROM.
    pub(crate) fn item(&mut self, scope: &Scope, tables: usize) -> (String, Relation) {
        match self.random.below(24) {
            0..=2 if tables > 0 => {
                let types: Vec<Type> =
                    (0..2 + self.random.below(3)).map(|_| self.usual_type()).collect();
                // A sub-query in FROM sees the queries around, but not its neighbours.
                let around = Scope { relations: Vec::new(), outer: scope.outer.clone() };
                let query = self.query(&around, Some(&types), tables - 1);
                let relation = self.derived(&types);
                (format!("({}) AS {} ({})", query.sql, relation.alias, names(&relation)), relation)
            }
            3 => {
                let alias = self.alias();
                let end = 3 + self.random.below(30);
                let source = if self.random.chance(50) {
                    format!("generate_series(1, {end})")
                } else {
                    format!("fives({})", 1 + end / 3)
                };
                let column = format!("{alias}.n");
                let relation = Relation {
                    columns: vec![(column.clone(), Type::Int4)],
                    key: Some(vec![column]),
                    distribution: None,
                    nullable: false,
                    alias: alias.clone(),
                };
                (format!("{source} AS {alias} (n)"), relation)
            }
            9 | 10 if tables > 0 => self.summary(),
            4 => {
                let view = &VIEW_TABLES[self.random.below(VIEW_TABLES.len())];
                self.table(view)
            }
            5..=8 if !self.with.is_empty() => {
                let (name, columns) = self.random.pick(&self.with.clone());
                let alias = self.alias();
                let columns =
                    columns.iter().map(|(column, of)| (format!("{alias}.{column}"), *of)).collect();
                let relation = Relation {
                    alias: alias.clone(),
                    columns,
                    key: None,
                    distribution: None,
                    nullable: false,
                };
                (format!("{name} AS {alias}"), relation)
            }
            _ => {
                // Tables that are cut alike meet more often.
                let partners: Vec<&'static Table> = TABLES
                    .iter()
                    .filter(|table| {
                        scope
                            .relations
                            .iter()
                            .filter_map(|relation| relation.distribution.as_ref())
                            .any(|(_, of, shards)| {
                                table.shards.is_some_and(|(its, _)| its == *shards)
                                    && table.columns[0].1 == *of
                            })
                    })
                    .collect();
                let table = if !partners.is_empty() && self.random.chance(65) {
                    self.random.pick(&partners)
                } else {
                    &TABLES[self.random.below(TABLES.len())]
                };
                self.table(table)
            }
        }
    }

    /// A sub-query whose rows lie where the rows of a table lie: its distribution column with something of each group.
    pub(crate) fn summary(&mut self) -> (String, Relation) {
        let table = self.distributed_table();
        let (from, inner) = self.table(table);
        let scope = Scope { relations: vec![inner.clone()], outer: Vec::new() };
        let (key, key_type) = inner.columns[0].clone();
        let types: Vec<Type> = (0..1 + self.random.below(2)).map(|_| self.usual_type()).collect();
        let mut all = vec![key_type];
        all.extend(&types);
        let filter = if self.random.chance(40) { self.filter(&scope) } else { String::new() };
        let sql = if self.random.chance(25) {
            let others: Vec<String> =
                types.iter().map(|of| self.expression_with_columns(*of, &scope)).collect();
            format!("SELECT DISTINCT {key}, {} FROM {from}{filter}", others.join(", "))
        } else {
            let others: Vec<String> = types.iter().map(|of| self.aggregate(*of, &scope)).collect();
            let having = if self.random.chance(30) { " HAVING count(*) > 1" } else { "" };
            let others = others.join(", ");
            format!("SELECT {key}, {others} FROM {from}{filter} GROUP BY {key}{having}")
        };
        let mut relation = self.derived(&all);
        if let Some((shards, _)) = table.shards {
            let column = format!("{}.c0", relation.alias);
            relation.distribution = Some((column, key_type, shards));
        }
        (format!("({sql}) AS {} ({})", relation.alias, names(&relation)), relation)
    }

    pub(crate) fn table(&mut self, table: &'static Table) -> (String, Relation) {
        let alias = self.alias();
        let columns: Vec<(String, Type)> =
            table.columns.iter().map(|(name, of)| (format!("{alias}.{name}"), *of)).collect();
        let key = columns[..table.key].iter().map(|(name, _)| name.clone()).collect();
        let relation = Relation {
            distribution: table
                .shards
                .map(|(shards, _)| (columns[0].0.clone(), columns[0].1, shards)),
            key: (table.key > 0).then_some(key),
            columns,
            nullable: false,
            alias: alias.clone(),
        };
        (format!("{} AS {alias}", table.name), relation)
    }

    pub(crate) fn derived(&mut self, types: &[Type]) -> Relation {
        let alias = self.alias();
        let columns =
            types.iter().enumerate().map(|(at, of)| (format!("{alias}.c{at}"), *of)).collect();
        Relation { alias, columns, key: None, distribution: None, nullable: false }
    }

    pub(crate) fn distributed_table(&mut self) -> &'static Table {
        let distributed: Vec<&'static Table> =
            TABLES.iter().filter(|table| table.shards.is_some()).collect();
        self.random.pick(&distributed)
    }
}
