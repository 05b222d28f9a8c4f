//! SELECTs made up from a seed.
//!
//! Each has one answer: what an unordered list yields is aggregated in order, and LIMIT comes with an ORDER BY that decides.

use crate::random::Random;
use crate::schema::{TABLES, Table, Type, VIEW_TABLES};

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
    aliases: usize,
    /// Names and columns of the WITH list.
    with: Vec<(String, Vec<(String, Type)>)>,
}

/// Something in FROM.
#[derive(Clone)]
pub(crate) struct Relation {
    alias: String,
    columns: Vec<(String, Type)>,
    /// Columns that no two rows share, if known.
    key: Option<Vec<String>>,
    /// The column that distributes, and the number of shards.
    distribution: Option<(String, Type, u32)>,
    /// Rows may be made up of NULLs by an outer join.
    nullable: bool,
}

/// What expressions may refer to.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    relations: Vec<Relation>,
    outer: Vec<Relation>,
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
    fn inside(&self) -> Scope {
        let outer = self.relations.iter().chain(&self.outer).cloned().collect();
        Scope { relations: Vec::new(), outer }
    }

    /// Columns that no two rows share.
    fn key(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for relation in &self.relations {
            all.extend(relation.key.clone()?);
        }
        Some(all)
    }
}

fn columns(relations: &[Relation], of: Type) -> impl Iterator<Item = &str> {
    let all = relations.iter().flat_map(|relation| &relation.columns);
    all.filter(move |(_, its)| *its == of).map(|(name, _)| name.as_str())
}

/// A query that may stand in parentheses.
struct Query {
    sql: String,
    ordered: bool,
}

/// The statement of a seed.
pub(crate) fn statement(seed: u64) -> Statement {
    let mut random = Random::new(seed);
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
    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    /// A whole statement.
    fn top(&mut self) -> Query {
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

    fn with_list(&mut self) -> String {
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

    fn usual_type(&mut self) -> Type {
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
    fn query(&mut self, scope: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
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

    fn types(&mut self, scope: &Scope, wanted: Option<&[Type]>) -> Vec<Type> {
        match wanted {
            Some(types) => types.to_vec(),
            None => (0..1 + self.random.below(4)).map(|_| self.type_in(scope)).collect(),
        }
    }

    fn plain(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
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

    fn column_to_order_by(&mut self, scope: &Scope) -> Option<String> {
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
    fn finish(&mut self, sql: String, columns: usize, first: Option<String>) -> Query {
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

    fn filter(&mut self, scope: &Scope) -> String {
        if self.random.chance(30) {
            return String::new();
        }
        format!(" WHERE {}", self.condition(scope, 2))
    }

    fn grouped(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
        let (from, scope) = self.from(outer, tables);
        let filter = self.filter(&scope);
        let types = self.types(&scope, wanted);
        // What is listed is a key or an aggregate; without keys all are aggregates.
        let has_keys = self.random.chance(80);
        let mut keys: Vec<String> = Vec::new();
        let mut list = Vec::new();
        let mut is_key = Vec::new();
        for of in &types {
            let key = has_keys && self.random.chance(if is_key.is_empty() { 80 } else { 40 });
            let text = if key {
                let text = if self.random.chance(75) {
                    self.distribution_or_column(*of, &scope)
                } else {
                    self.expression_with_columns(*of, &scope)
                };
                if !keys.contains(&text) {
                    keys.push(text.clone());
                }
                text
            } else {
                self.aggregate(*of, &scope)
            };
            is_key.push(key);
            list.push(text);
        }
        if has_keys && self.random.chance(20) {
            let of = self.type_in(&scope);
            let more = self.distribution_or_column(of, &scope);
            if !keys.contains(&more) && more.starts_with('r') {
                keys.push(more);
            }
        }
        // A key that is a constant or a parameter groups nothing and may be taken for a position.
        let group = if keys.is_empty() {
            String::new()
        } else {
            let keys: Vec<String> = keys.iter().map(|key| format!("({key})")).collect();
            let clause = match self.random.below(12) {
                0 => format!("ROLLUP ({})", keys.join(", ")),
                1 if keys.len() < 4 => format!("CUBE ({})", keys.join(", ")),
                2 => format!("GROUPING SETS ({}, ())", keys.join(", ")),
                3 => format!("GROUPING SETS (({}), ({}))", keys.join(", "), keys[0]),
                4 => format!("{}, ROLLUP ({})", keys[0], keys.join(", ")),
                _ => keys.join(", "),
            };
            if wanted.is_none() && self.random.chance(50) {
                list.push(format!("grouping({})", keys.join(", ")));
            }
            format!(" GROUP BY {clause}")
        };
        let having = if self.random.chance(25) {
            let of = self.random.pick(&[Type::Int8, Type::Numeric, Type::Date, Type::Int4]);
            let value = self.aggregate(of, &scope);
            let operator = self.random.pick(&["<", ">=", "<>"]);
            format!(" HAVING {value} {operator} {}", self.constant(of))
        } else {
            String::new()
        };
        let sql = format!("SELECT {} FROM {from}{filter}{group}{having}", labelled(&list));
        self.finish(sql, list.len(), None)
    }

    fn distribution_or_column(&mut self, of: Type, scope: &Scope) -> String {
        let distributed: Vec<String> = scope
            .relations
            .iter()
            .filter_map(|relation| relation.distribution.as_ref())
            .filter(|(_, its, _)| *its == of)
            .map(|(column, _, _)| column.clone())
            .collect();
        if !distributed.is_empty() && self.random.chance(50) {
            return self.random.pick(&distributed);
        }
        let columns: Vec<&str> = scope.columns(of).collect();
        if columns.is_empty() {
            return self.expression_with_columns(of, scope);
        }
        self.random.pick(&columns).to_owned()
    }

    /// An expression that is not constant, if that can be had.
    fn expression_with_columns(&mut self, of: Type, scope: &Scope) -> String {
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

    /// An aggregate that yields this type.
    fn aggregate(&mut self, of: Type, scope: &Scope) -> String {
        let call = self.aggregate_call(of, scope);
        if self.random.chance(12) && call.ends_with(')') && !call.contains("::") {
            self.nesting += 5;
            let filter =
                self.condition(&Scope { relations: scope.relations.clone(), outer: Vec::new() }, 1);
            self.nesting -= 5;
            return format!("{call} FILTER (WHERE {filter})");
        }
        call
    }

    fn aggregate_call(&mut self, of: Type, scope: &Scope) -> String {
        self.nesting += 5;
        let call = self.aggregate_call_nested(of, scope);
        self.nesting -= 5;
        call
    }

    fn aggregate_call_nested(&mut self, of: Type, scope: &Scope) -> String {
        // An aggregate of outer columns alone would be one of the query around.
        let scope = &Scope { relations: scope.relations.clone(), outer: Vec::new() };
        let distinct = if self.random.chance(20) { "DISTINCT " } else { "" };
        match of {
            Type::Int8 => match self.random.below(7) {
                0 | 1 => "count(*)".to_owned(),
                2 | 3 => {
                    let any = self.type_in(scope);
                    format!("count({distinct}{})", self.expression(any, scope, 1))
                }
                4 => match self.random.below(3) {
                    0 => {
                        let first = self.expression(Type::Int4, scope, 1);
                        format!("score_of({first}, {})", self.expression(Type::Int4, scope, 1))
                    }
                    1 => "rows_of(*)".to_owned(),
                    _ => format!("total_of({})", self.expression(Type::Int4, scope, 1)),
                },
                5 => format!("sum_without_combine({})", self.expression(Type::Int4, scope, 1)),
                _ => format!("sum({distinct}{})", self.expression(Type::Int4, scope, 1)),
            },
            Type::Numeric => match self.random.below(9) {
                0 => format!("avg({distinct}{})", self.expression(Type::Int4, scope, 1)),
                1 => {
                    let call = self.random.pick(&["avg", "mean_of"]);
                    format!("{call}({})", self.expression(Type::Numeric, scope, 1))
                }
                2 => format!("sum({distinct}{})", self.expression(Type::Int8, scope, 1)),
                3 => format!("stddev({})", self.expression(Type::Numeric, scope, 1)),
                4 => format!("var_pop({})", self.expression(Type::Int4, scope, 1)),
                5 => {
                    let call = self.random.pick(&["variance", "stddev_pop", "avg", "sum"]);
                    format!("round({call}({})::numeric, 9)", self.expression(Type::Float, scope, 1))
                }
                6 => {
                    let call = self.random.pick(&[
                        "corr",
                        "regr_slope",
                        "covar_pop",
                        "regr_count",
                        "regr_r2",
                        "covar_samp",
                        "regr_avgx",
                        "regr_sxy",
                    ]);
                    let second = self.expression(Type::Float, scope, 1);
                    format!(
                        "round({call}({}, {second})::numeric, 9)",
                        self.expression(Type::Float, scope, 1)
                    )
                }
                _ => format!("sum({distinct}{})", self.expression(Type::Numeric, scope, 1)),
            },
            Type::Float => match self.random.below(3) {
                0 => format!(
                    "percentile_cont(0.25) WITHIN GROUP (ORDER BY {})",
                    self.expression(Type::Float, scope, 1)
                ),
                1 => format!("sum({distinct}{})", self.leaf(Type::Float, scope)),
                _ => format!("max({})", self.expression(Type::Float, scope, 1)),
            },
            Type::Bool => {
                let call = self.random.pick(&["bool_and", "bool_or", "every"]);
                format!("{call}({})", self.expression(Type::Bool, scope, 1))
            }
            Type::Text => match self.random.below(4) {
                0 => {
                    let value = self.expression(Type::Text, scope, 1);
                    format!("string_agg({distinct}{value}, ',' ORDER BY {value})")
                }
                1 => {
                    // Arrays of arrays must agree in their dimensions.
                    let any = Some(self.type_in(scope)).filter(|any| *any != Type::Ints);
                    let value = self.expression(any.unwrap_or(Type::Text), scope, 1);
                    format!("array_agg({distinct}{value} ORDER BY {value})::text")
                }
                2 => {
                    let value = self.expression(Type::Text, scope, 1);
                    format!("mode() WITHIN GROUP (ORDER BY {value})")
                }
                _ => format!("min({})", self.expression(Type::Text, scope, 1)),
            },
            Type::Jsonb => {
                let any = self.type_in(scope);
                let value = self.expression(any, scope, 1);
                format!("jsonb_agg({value} ORDER BY {value} DESC)")
            }
            Type::Ints if self.random.chance(60) => {
                let value = self.expression(Type::Int4, scope, 1);
                let direction = self.random.pick(&["", " DESC", " NULLS FIRST"]);
                format!("array_agg({distinct}{value} ORDER BY {value}{direction})")
            }
            Type::Int4 if self.random.chance(30) => {
                let call = self.random.pick(&["bit_and", "bit_or", "bit_xor"]);
                format!("{call}({})", self.expression(Type::Int4, scope, 1))
            }
            _ if of.has_extremes() && (of == Type::Ints || self.random.chance(80)) => {
                let call = self.random.pick(&["min", "max", "largest_of"]);
                let value = self.expression(of, scope, 1);
                // Extremes of varchar are text.
                if of == Type::Varchar {
                    format!("({call}({value}))::varchar")
                } else {
                    format!("{call}({value})")
                }
            }
            _ => {
                let value = self.leaf(of, scope);
                format!("(array_agg({value} ORDER BY {value}))[1]")
            }
        }
    }

    fn windowed(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
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
    fn first_of_each(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
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

    fn distinct_on(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
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

    fn set_operation(&mut self, outer: &Scope, wanted: Option<&[Type]>, tables: usize) -> Query {
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
    fn recursive(&mut self) -> Query {
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

    fn condition_on_links(&mut self) -> String {
        match self.random.below(3) {
            0 => format!("\"Key\" = {}", self.constant(Type::Int8)),
            1 => format!("weight < {}", self.random.below(9)),
            _ => "feel = 'happy'".to_owned(),
        }
    }

    /// A SELECT with row locks: of one table, or of an inner join of two.
    fn locking(&mut self) -> Query {
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

    fn distributed_table(&mut self) -> &'static Table {
        let distributed: Vec<&'static Table> =
            TABLES.iter().filter(|table| table.shards.is_some()).collect();
        self.random.pick(&distributed)
    }

    /// Whole rows, `tableoid`, `t.*`, TABLESAMPLE.
    fn whole_rows(&mut self) -> Query {
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
    fn values_joined(&mut self) -> Query {
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
    fn small_side_joined(&mut self) -> Query {
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

    /// FROM, and what it brings in scope.
    fn from(&mut self, outer: &Scope, tables: usize) -> (String, Scope) {
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

    fn join_condition(&mut self, scope: &Scope, other: &Relation) -> String {
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
    fn equality(&mut self, scope: &Scope, other: &Relation) -> Option<String> {
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
    fn item(&mut self, scope: &Scope, tables: usize) -> (String, Relation) {
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
    fn summary(&mut self) -> (String, Relation) {
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

    fn table(&mut self, table: &'static Table) -> (String, Relation) {
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

    fn derived(&mut self, types: &[Type]) -> Relation {
        let alias = self.alias();
        let columns =
            types.iter().enumerate().map(|(at, of)| (format!("{alias}.c{at}"), *of)).collect();
        Relation { alias, columns, key: None, distribution: None, nullable: false }
    }

    /// A sub-query of one table's rows for an outer row: something of all of them, or of the first.
    fn query_for_a_row(&mut self, of: Type, scope: &Scope) -> Option<String> {
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
    fn rows_for_a_row(&mut self, types: &[Type], scope: &Scope) -> String {
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
    fn correlated_filter(&mut self, inner: &Scope) -> String {
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

fn labelled(list: &[String]) -> String {
    let list: Vec<String> =
        list.iter().enumerate().map(|(at, text)| format!("{text} AS c{at}")).collect();
    list.join(", ")
}

fn names(relation: &Relation) -> String {
    let names: Vec<&str> = relation
        .columns
        .iter()
        .filter_map(|(name, _)| name.rsplit_once('.'))
        .map(|(_, name)| name)
        .collect();
    names.join(", ")
}
