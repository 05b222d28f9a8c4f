//! Grouped queries and aggregates, made up from a seed.

use crate::generator::{Generator, Query, Scope, labelled};
use crate::schema::Type;

impl Generator {
    pub(crate) fn grouped(
        &mut self,
        outer: &Scope,
        wanted: Option<&[Type]>,
        tables: usize,
    ) -> Query {
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

    pub(crate) fn distribution_or_column(&mut self, of: Type, scope: &Scope) -> String {
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

    /// An aggregate that yields this type.
    pub(crate) fn aggregate(&mut self, of: Type, scope: &Scope) -> String {
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

    pub(crate) fn aggregate_call(&mut self, of: Type, scope: &Scope) -> String {
        self.nesting += 5;
        let call = self.aggregate_call_nested(of, scope);
        self.nesting -= 5;
        call
    }

    pub(crate) fn aggregate_call_nested(&mut self, of: Type, scope: &Scope) -> String {
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
}
