//! SELECTs made up from a seed.
//!
//! Each has one answer: what an unordered list yields is aggregated in order, and LIMIT comes with an ORDER BY that decides.

use crate::random::Random;
use crate::schema::{TABLES, Type};

/// A statement.
pub(crate) struct Statement {
    /// What PREPARE takes, or the statement as it stands if there are no parameters.
    pub(crate) sql: String,
    /// Types and values of its parameters.
    pub(crate) parameters: Vec<(Type, String)>,
    /// The order of its rows is decided but for rows that are equal.
    pub(crate) ordered: bool,
}

/// What is made up so far.
pub(crate) struct Generator {
    pub(crate) random: Random,
    pub(crate) takes_parameters: bool,
    pub(crate) parameters: Vec<(Type, String)>,
    /// How deep the query at hand is in others.
    pub(crate) nesting: usize,
    pub(crate) aliases: usize,
    /// Names and columns of the WITH list.
    pub(crate) with: Vec<(String, Vec<(String, Type)>)>,
}

/// Something in FROM.
#[derive(Clone)]
pub(crate) struct Relation {
    pub(crate) alias: String,
    pub(crate) columns: Vec<(String, Type)>,
    /// Columns that no two rows share, if known.
    pub(crate) key: Option<Vec<String>>,
    /// The column that distributes, and the number of shards.
    pub(crate) distribution: Option<(String, Type, u32)>,
    /// Rows may be made up of NULLs by an outer join.
    pub(crate) nullable: bool,
}

/// What expressions may refer to.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub(crate) relations: Vec<Relation>,
    pub(crate) outer: Vec<Relation>,
}

impl Scope {
    /// The columns of a type in the query at hand.
    pub(crate) fn columns(&self, of: Type) -> impl Iterator<Item = &str> {
        columns(&self.relations, of)
    }

    /// The columns of a type in the queries around it.
    pub(crate) fn outer_columns(&self, of: Type) -> impl Iterator<Item = &str> {
        columns(&self.outer, of)
    }

    /// The scope of a query inside.
    pub(crate) fn inside(&self) -> Scope {
        let outer = self.relations.iter().chain(&self.outer).cloned().collect();
        Scope { relations: Vec::new(), outer }
    }

    /// Columns that no two rows share.
    pub(crate) fn key(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for relation in &self.relations {
            all.extend(relation.key.clone()?);
        }
        Some(all)
    }
}

pub(crate) fn columns(relations: &[Relation], of: Type) -> impl Iterator<Item = &str> {
    let all = relations.iter().flat_map(|relation| &relation.columns);
    all.filter(move |(_, its)| *its == of).map(|(name, _)| name.as_str())
}

/// A query that may stand in parentheses.
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) ordered: bool,
}

/// The statement of a seed.
pub(crate) fn statement(seed: u64) -> Statement {
    let mut random = Random::new(testkit::seed(seed));
    let takes_parameters = random.chance(25);
    let mut generator = Generator {
        random,
        takes_parameters,
        parameters: Vec::new(),
        nesting: 0,
        aliases: 0,
        with: Vec::new(),
    };
    let Query { sql, ordered, .. } = generator.top();
    Statement { sql, parameters: generator.parameters, ordered }
}

impl Generator {
    pub(crate) fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    /// A whole statement.
    pub(crate) fn top(&mut self) -> Query {
        let with = if self.random.chance(15) { self.with_list() } else { String::new() };
        let scope = Scope::default();
        let mut query = match self.random.below(20) {
            0 => self.recursive(),
            1 if with.is_empty() => self.locking(),
            2 => self.whole_rows(),
            3 => self.values_joined(),
            4 => self.small_side_joined(),
            _ => self.query(&scope, None, 2),
        };
        if with.is_empty() {
            return query;
        }
        if let Some(rest) = query.sql.strip_prefix("WITH RECURSIVE ") {
            let list = with.trim_start_matches("WITH ");
            query.sql = format!("WITH RECURSIVE {list}, {rest}");
        } else {
            query.sql = format!("{with} {}", query.sql);
        }
        query
    }

    pub(crate) fn with_list(&mut self) -> String {
        let many = 1 + self.random.below(2);
        let mut list = Vec::new();
        for _ in 0..many {
            let types: Vec<Type> =
                (0..2 + self.random.below(3)).map(|_| self.usual_type()).collect();
            let query = self.query(&Scope::default(), Some(&types), 1);
            let name = format!("w{}", self.with.len());
            let columns: Vec<(String, Type)> =
                types.iter().enumerate().map(|(at, of)| (format!("c{at}"), *of)).collect();
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let how = self.random.pick(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
            list.push(format!("{name} ({}) AS {how}({})", names.join(", "), query.sql));
            self.with.push((name, columns));
        }
        format!("WITH {}", list.join(", "))
    }

    pub(crate) fn usual_type(&mut self) -> Type {
        self.random.pick(&[
            Type::Int4,
            Type::Int4,
            Type::Int4,
            Type::Text,
            Type::Text,
            Type::Numeric,
            Type::Date,
            Type::Int8,
            Type::Bool,
            Type::Float,
            Type::Int2,
            Type::Mood,
            Type::Timestamptz,
            Type::Jsonb,
            Type::Varchar,
        ])
    }

    /// A SELECT of these types, or of any; `tables` is about how many more there may be.
    pub(crate) fn query(&mut self, scope: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
        match self.random.below(20) {
            0..=1 if tables > 0 => self.set_operation(scope, wanted, tables),
            2..=7 => self.grouped(scope, wanted, tables),
            8 => self.windowed(scope, wanted, tables),
            9 if self.random.chance(50) => self.first_of_each(scope, wanted, tables),
            9 => self.windowed(scope, wanted, tables),
            10 => self.distinct_on(scope, wanted, tables),
            _ => self.plain(scope, wanted, tables),
        }
    }

    pub(crate) fn types(&mut self, scope: &Scope, wanted: Option<&[Type]>) -> Vec<Type> {
        match wanted {
            Some(types) => types.to_vec(),
            None => (0..1 + self.random.below(4)).map(|_| self.type_in(scope)).collect(),
        }
    }

    pub(crate) fn plain(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
        let (from, scope) = self.from(outer, tables);
        let types = self.types(&scope, wanted);
        let list: Vec<String> = types.iter().map(|of| self.expression(*of, &scope, 2)).collect();
        let filter = self.filter(&scope);
        let distinct = if self.random.chance(12) { "DISTINCT " } else { "" };
        let sql = format!("SELECT {distinct}{} FROM {from}{filter}", labelled(&list));
        if distinct.is_empty() && wanted.is_none() && self.random.chance(6) {
            // WITH TIES yields the same rows whatever the order of equals.
            let order = self.random.pick(&list);
            let many = 1 + self.random.below(12);
            let direction = self.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            if !order.starts_with(|first: char| first.is_ascii_digit() || first == '$') {
                let sql = format!(
                    "{sql} ORDER BY ({order}){direction} FETCH FIRST {many} ROWS WITH TIES"
                );
                return Query { sql, ordered: false };
            }
        }
        let first = if distinct.is_empty() && self.random.chance(40) {
            self.column_to_order_by(&scope)
        } else {
            None
        };
        self.finish(sql, types.len(), first)
    }

    pub(crate) fn column_to_order_by(&mut self, scope: &Scope) -> Option<String> {
        let of = self.type_in(scope);
        let column = scope.columns(of).next()?.to_owned();
        let collation = if of.is_text() {
            self.random.pick(&["", " COLLATE \"C\"", " COLLATE \"und-x-icu\""])
        } else {
            ""
        };
        Some(format!("{column}{collation}"))
    }

    /// Adds ORDER BY and LIMIT, perhaps.
    pub(crate) fn finish(&mut self, sql: String, columns: usize, first: Option<String>) -> Query {
        if columns == 0 || !self.random.chance(40) {
            return Query { sql, ordered: false };
        }
        let mut positions: Vec<usize> = (1..=columns).collect();
        if self.random.chance(50) {
            positions.reverse();
        }
        let mut order: Vec<String> = first.into_iter().collect();
        for position in positions {
            let direction =
                self.random.pick(&["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            order.push(format!("{position}{direction}"));
        }
        let limit = match self.random.below(5) {
            0 | 1 => String::new(),
            2 => format!(" LIMIT {}", self.random.below(30)),
            3 => format!(" LIMIT {} OFFSET {}", 1 + self.random.below(20), self.random.below(15)),
            _ => format!(" OFFSET {}", self.random.below(10)),
        };
        Query { sql: format!("{sql} ORDER BY {}{limit}", order.join(", ")), ordered: true }
    }

    pub(crate) fn filter(&mut self, scope: &Scope) -> String {
        if self.random.chance(30) {
            return String::new();
        }
        format!(" WHERE {}", self.condition(scope, 2))
    }

    /// An expression that is not constant, if that can be had.
    pub(crate) fn expression_with_columns(&mut self, of: Type, scope: &Scope) -> String {
        self.nesting += 5;
        let mut text = self.expression(of, scope, 2);
        for _ in 0..5 {
            if text.contains("r") && text.contains('.') {
                break;
            }
            text = self.expression(of, scope, 2);
        }
        self.nesting -= 5;
        text
    }

    pub(crate) fn windowed(
        &mut self,
        outer: &Scope,
        wanted: Option<&[Type]>,
        tables: usize,
    ) -> Query {
        let (from, scope) = self.from(outer, tables);
        let types = self.types(&scope, wanted);
        let filter = self.filter(&scope);
        let key = scope.key();
        let mut list = Vec::new();
        for of in &types {
            if self.random.chance(40) {
                list.push(self.expression(*of, &scope, 1));
                continue;
            }
            let partition = if self.random.chance(75) {
                let by = self.type_in(&scope);
                format!("PARTITION BY {}", self.distribution_or_column(by, &scope))
            } else {
                String::new()
            };
            // Constants in a window's ORDER BY are no positions: they are harmless.
            let by = self.type_in(&scope);
            let by = self.expression(by, &scope, 1);
            let peers = format!("({partition} ORDER BY ({by}))");
            let total = key
                .as_ref()
                .map(|key| format!("({partition} ORDER BY ({by}), {})", key.join(", ")));
            list.push(match (*of, total) {
                (Type::Int8, Some(total)) if self.random.chance(50) => {
                    format!("row_number() OVER {total}")
                }
                (Type::Int8, _) => {
                    let call = self.random.pick(&["rank()", "dense_rank()", "count(*)"]);
                    format!("{call} OVER {peers}")
                }
                (Type::Numeric, Some(total)) if self.random.chance(50) => {
                    let value = self.expression(Type::Numeric, &scope, 1);
                    let total = total.strip_suffix(')').unwrap_or(&total);
                    let frame = self.random.pick(&[
                        "ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING",
                        "ROWS 2 PRECEDING",
                        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW",
                        "GROUPS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES",
                        "GROUPS BETWEEN 2 FOLLOWING AND 3 FOLLOWING",
                        "RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE GROUP",
                    ]);
                    format!("sum({value}) OVER {total} {frame})")
                }
                (Type::Numeric, _) => {
                    format!("avg({}) OVER {peers}", self.expression(Type::Int4, &scope, 1))
                }
                (of, Some(total)) => {
                    let call = self.random.pick(&["lag", "lead", "first_value", "last_value"]);
                    format!("{call}({}) OVER {total}", self.expression(of, &scope, 1))
                }
                (of, None) if of.has_extremes() && of != Type::Varchar => {
                    format!("max({}) OVER {peers}", self.expression(of, &scope, 1))
                }
                (of, None) => self.expression(of, &scope, 1),
            });
        }
        let sql = format!("SELECT {} FROM {from}{filter}", labelled(&list));
        self.finish(sql, types.len(), None)
    }

    /// The first rows of each partition: the planner makes run conditions of the filter.
    pub(crate) fn first_of_each(
        &mut self,
        outer: &Scope,
        wanted: Option<&[Type]>,
        tables: usize,
    ) -> Query {
        let (from, scope) = self.from(outer, tables);
        let types = self.types(&scope, wanted);
        let Some(key) = scope.key() else {
            return self.plain(outer, wanted, tables);
        };
        let list: Vec<String> = types.iter().map(|of| self.expression(*of, &scope, 1)).collect();
        let filter = self.filter(&scope);
        let by = self.type_in(&scope);
        let partition = self.distribution_or_column(by, &scope);
        let by = self.type_in(&scope);
        let by = self.expression(by, &scope, 1);
        let direction = self.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let (function, order) = self.random.pick(&[
            ("row_number()", true),
            ("rank()", false),
            ("dense_rank()", false),
            ("count(*)", false),
        ]);
        let order = if order {
            format!("({by}){direction}, {}", key.join(", "))
        } else {
            format!("({by}){direction}")
        };
        let condition =
            self.random.pick(&["place <= 2", "3 > place", "place = 1", "place BETWEEN 2 AND 4"]);
        let columns: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let alias = self.alias();
        let sql = format!(
            "SELECT {} FROM (SELECT {}, {function} OVER (PARTITION BY {partition} ORDER BY {order}) AS place \
             FROM {from}{filter}) AS {alias} WHERE {condition}",
            columns.join(", "),
            labelled(&list)
        );
        self.finish(sql, types.len(), None)
    }

    pub(crate) fn distinct_on(
        &mut self,
        outer: &Scope,
        wanted: Option<&[Type]>,
        tables: usize,
    ) -> Query {
        let (from, scope) = self.from(outer, tables);
        let types = self.types(&scope, wanted);
        let Some(key) = scope.key() else {
            return self.plain(outer, wanted, tables);
        };
        let of = self.type_in(&scope);
        let on = self.distribution_or_column(of, &scope);
        let list: Vec<String> = types.iter().map(|of| self.expression(*of, &scope, 1)).collect();
        let filter = self.filter(&scope);
        let direction = self.random.pick(&["", " DESC", " NULLS FIRST"]);
        let sql = format!(
            "SELECT DISTINCT ON (({on})) {} FROM {from}{filter} ORDER BY ({on}){direction}, {}",
            labelled(&list),
            key.join(" DESC, ")
        );
        Query { sql, ordered: false }
    }

    pub(crate) fn set_operation(
        &mut self,
        outer: &Scope,
        wanted: Option<&[Type]>,
        tables: usize,
    ) -> Query {
        let types = match wanted {
            Some(types) => types.to_vec(),
            None => (0..1 + self.random.below(3)).map(|_| self.usual_type()).collect(),
        };
        let operator = self.random.pick(&[
            "UNION",
            "UNION ALL",
            "UNION ALL",
            "INTERSECT",
            "EXCEPT",
            "EXCEPT ALL",
            "INTERSECT ALL",
        ]);
        let left = self.query(outer, Some(&types), tables - 1);
        let right = self.query(outer, Some(&types), tables - 1);
        let sql = format!("({}) {operator} ({})", left.sql, right.sql);
        self.finish(sql, types.len(), None)
    }

    /// `WITH RECURSIVE`: chains through links, or counting.
    pub(crate) fn recursive(&mut self) -> Query {
        let start = self.condition_on_links();
        let sql = match self.random.below(3) {
            0 => format!(
                "WITH RECURSIVE chain (node, depth) AS (SELECT \"Key\", 0 FROM links AS r0 WHERE {start} \
                 UNION SELECT l.\"to\", depth + 1 FROM chain JOIN links AS l ON l.\"Key\" = chain.node WHERE depth < 4) \
                 SELECT node, min(depth), count(*) FROM chain GROUP BY node"
            ),
            1 => format!(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {}) \
                 SELECT n, (SELECT count(*) FROM orders AS o WHERE o.customer = n.n) FROM n",
                5 + self.random.below(20)
            ),
            _ => format!(
                "WITH RECURSIVE chain (node, \"to\", depth) AS (SELECT \"Key\", \"to\", 0 FROM links AS r0 WHERE {start} \
                 UNION ALL SELECT l.\"Key\", l.\"to\", depth + 1 FROM chain JOIN links AS l ON l.\"Key\" = chain.\"to\" \
                 WHERE depth < 2) SELECT c.node, depth, o.\"select\" FROM chain AS c LEFT JOIN \"Odd Names\" AS o ON o.\"Key\" = c.\"to\""
            ),
        };
        Query { sql, ordered: false }
    }

    pub(crate) fn condition_on_links(&mut self) -> String {
        match self.random.below(3) {
            0 => format!("\"Key\" = {}", self.constant(Type::Int8)),
            1 => format!("weight < {}", self.random.below(9)),
            _ => "feel = 'happy'".to_owned(),
        }
    }

    /// A SELECT with row locks: of one table, or of an inner join of two.
    pub(crate) fn locking(&mut self) -> Query {
        let first = self.distributed_table();
        let (mut from, relation) = self.table(first);
        let alias = relation.alias.clone();
        let mut scope = Scope { relations: vec![relation], outer: Vec::new() };
        if self.random.chance(50) {
            let second = self.distributed_table();
            let (text, other) = self.table(second);
            let condition = self.join_condition(&scope, &other);
            scope.relations.push(other);
            from = format!("{from} JOIN {text} ON {condition}");
        }
        self.nesting += 5;
        let condition = self.condition(&scope, 1);
        let types = self.types(&scope, None);
        let list: Vec<String> = types.iter().map(|of| self.expression(*of, &scope, 1)).collect();
        self.nesting -= 5;
        let strength = self.random.pick(&[
            "UPDATE",
            "SHARE",
            "NO KEY UPDATE",
            "KEY SHARE",
            "UPDATE SKIP LOCKED",
            "SHARE NOWAIT",
        ]);
        let (strength, wait) = strength
            .split_once(' ')
            .filter(|(first, _)| *first != "NO" && *first != "KEY")
            .unwrap_or((strength, ""));
        let sql = format!(
            "SELECT {} FROM {from} WHERE {condition} FOR {strength} OF {alias} {wait}",
            labelled(&list)
        );
        Query { sql, ordered: false }
    }

    /// Whole rows, `tableoid`, `t.*`, TABLESAMPLE.
    pub(crate) fn whole_rows(&mut self) -> Query {
        let table = self.distributed_table();
        let alias = self.alias();
        let sql = match self.random.below(6) {
            0 => format!("SELECT {alias} FROM {} AS {alias}", table.name),
            1 => format!(
                "SELECT {alias}.*, {alias}.tableoid::regclass FROM {} AS {alias}",
                table.name
            ),
            2 => format!(
                "SELECT count({alias}), count(DISTINCT {alias}.tableoid) FROM {} AS {alias}",
                table.name
            ),
            3 => format!(
                "SELECT {alias} IS NULL, {alias}::text FROM places LEFT JOIN {} AS {alias} ON false",
                table.name
            ),
            4 => format!(
                "SELECT to_jsonb({alias}) FROM {} AS {alias} TABLESAMPLE BERNOULLI (100)",
                table.name
            ),
            _ => format!(
                "SELECT * FROM {} AS {alias} TABLESAMPLE SYSTEM (100) REPEATABLE (3)",
                table.name
            ),
        };
        Query { sql, ordered: false }
    }

    /// Tables that are read by keys out of VALUES and sub-queries.
    pub(crate) fn values_joined(&mut self) -> Query {
        let rows = |it: &mut Self, of: Type| {
            let count = 1 + it.random.below(6);
            let rows: Vec<String> = (0..count).map(|_| format!("({})", it.constant(of))).collect();
            format!("(VALUES {}) AS v (v)", rows.join(", "))
        };
        if self.random.chance(40) {
            let table = self.distributed_table();
            let (text, relation) = self.table(table);
            let (key, of, _) = relation.distribution.clone().expect("the table is distributed");
            let scope = Scope { relations: vec![relation], outer: Vec::new() };
            let types = self.types(&scope, None);
            let list: Vec<String> =
                types.iter().map(|of| self.expression(*of, &scope, 1)).collect();
            let kind = self.random.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let (source, list) = (rows(self, of), list.join(", "));
            let sql = format!("SELECT v.v, {list} FROM {source} {kind} {text} ON {key} = v.v");
            return Query { sql, ordered: false };
        }
        let tables = 1 + self.random.below(3);
        let (mut text, scope) = self.from(&Scope::default(), tables);
        let keys: Vec<(String, Type)> = scope
            .relations
            .iter()
            .filter_map(|relation| relation.distribution.clone())
            .map(|(key, of, _)| (key, of))
            .collect();
        if keys.is_empty() {
            return self.values_joined();
        }
        let (key, of) = self.random.pick(&keys);
        let source = rows(self, of);
        let condition = match self.random.below(6) {
            0 => {
                text = format!("{text}, {source}");
                format!("{key} = v.v")
            }
            1 => format!("{key} IN (SELECT v.v FROM {source})"),
            2 => format!("{key} = ANY (ARRAY(SELECT v.v FROM {source}))"),
            3 => format!("{key} = (SELECT v.v FROM {source} ORDER BY v.v LIMIT 1)"),
            4 => format!("EXISTS (SELECT FROM {source} WHERE v.v = {key})"),
            _ => format!("NOT EXISTS (SELECT FROM {source} WHERE v.v = {key})"),
        };
        let types = self.types(&scope, None);
        let list: Vec<String> = types.iter().map(|of| self.expression(*of, &scope, 1)).collect();
        let list = match self.random.below(3) {
            0 => "count(*)".to_owned(),
            _ => list.join(", "),
        };
        let others = if self.random.chance(50) {
            String::new()
        } else {
            format!(" AND ({})", self.condition(&scope, 2))
        };
        let sql = format!("SELECT {list} FROM {text} WHERE {condition}{others}");
        Query { sql, ordered: false }
    }

    /// A side that is local or filtered hard, joined with a table by something else than the table's key.
    pub(crate) fn small_side_joined(&mut self) -> Query {
        let local = TABLES.iter().find(|table| table.shards.is_none());
        let small = local.filter(|_| self.random.chance(50));
        let small = small.unwrap_or_else(|| self.distributed_table());
        let (small, first) = self.table(small);
        let (large, other) = {
            let table = self.distributed_table();
            self.table(table)
        };
        let scope = Scope { relations: vec![first], outer: Vec::new() };
        let both =
            Scope { relations: vec![scope.relations[0].clone(), other.clone()], outer: Vec::new() };
        let mut pairs = Vec::new();
        for (column, of) in other.columns.iter().skip(1) {
            if !matches!(of, Type::Bool | Type::Jsonb | Type::Mood) {
                pairs.extend(scope.columns(*of).map(|there| format!("{there} = {column}")));
            }
        }
        self.nesting += 5;
        let mut on = if pairs.is_empty() {
            self.join_condition(&scope, &other)
        } else {
            self.random.pick(&pairs)
        };
        if self.random.chance(35) {
            on = format!("{on} AND {}", self.condition(&both, 1));
        }
        let hard = {
            let of = self.type_in(&scope);
            self.random.chance(50).then(|| {
                format!("{} = {}", self.distribution_or_column(of, &scope), self.constant(of))
            })
        };
        let hard = hard.filter(|it| it.starts_with('r')).unwrap_or_else(|| "true".to_owned());
        let kind = self.random.below(5);
        let seen = if kind < 3 { &scope } else { &both };
        let types = self.types(seen, None);
        let list: Vec<String> = types.iter().map(|of| self.expression(*of, seen, 1)).collect();
        let after = if self.random.chance(25) { self.condition(seen, 1) } else { hard.clone() };
        self.nesting -= 5;
        let list = labelled(&list);
        let sql = match kind {
            0 => {
                format!(
                    "SELECT {list} FROM {small} WHERE {hard} AND EXISTS (SELECT FROM {large} WHERE {on})"
                )
            }
            1 | 2 => {
                format!(
                    "SELECT {list} FROM {small} WHERE {hard} AND NOT EXISTS (SELECT FROM {large} WHERE {on})"
                )
            }
            3 => {
                format!("SELECT {list} FROM {small} LEFT JOIN {large} ON {on} WHERE {after}")
            }
            _ => {
                format!("SELECT {list} FROM {large} RIGHT JOIN {small} ON {on} WHERE {after}")
            }
        };
        self.finish(sql, types.len(), None)
    }
}

pub(crate) fn labelled(list: &[String]) -> String {
    let list: Vec<String> =
        list.iter().enumerate().map(|(at, text)| format!("{text} AS c{at}")).collect();
    list.join(", ")
}
