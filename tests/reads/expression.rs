//! Expressions over the columns in scope.
//!
//! Nothing here fails at execution, whatever the order in which conditions are evaluated: divisors are never zero, numbers
//! stay small, and no text is made a number.

use crate::generator::{Generator, Scope};
use crate::schema::Type;

impl Generator {
    /// A column of this type in scope, if there is one.
    pub(crate) fn column(&mut self, of: Type, scope: &Scope) -> Option<String> {
        let here: Vec<&str> = scope.columns(of).collect();
        let outer: Vec<&str> = scope.outer_columns(of).collect();
        let columns = if here.is_empty() || (!outer.is_empty() && self.random.chance(25)) {
            outer
        } else {
            here
        };
        if columns.is_empty() { None } else { Some(self.random.pick(&columns).to_owned()) }
    }

    /// A constant, or a parameter with its value.
    pub(crate) fn constant(&mut self, of: Type) -> String {
        let value = self.random.pick(of.constants());
        if self.takes_parameters && self.random.chance(60) {
            let value = if self.random.chance(4) { "NULL" } else { value };
            self.parameters.push((of, value.to_owned()));
            return format!("${}", self.parameters.len());
        }
        if self.random.chance(2) {
            return format!("NULL::{}", of.name());
        }
        format!("{value}::{}", of.name())
    }

    /// A column if possible, else a constant.
    pub(crate) fn leaf(&mut self, of: Type, scope: &Scope) -> String {
        if self.random.chance(85)
            && let Some(column) = self.column(of, scope)
        {
            return column;
        }
        self.constant(of)
    }

    /// An expression of this type; `depth` is how much more may be nested.
    pub(crate) fn expression(&mut self, of: Type, scope: &Scope, depth: usize) -> String {
        if depth == 0 || self.random.chance(45) {
            return self.leaf(of, scope);
        }
        let less = depth - 1;
        // What there is for any type.
        match self.random.below(12) {
            0 => {
                let (first, second) = (self.expression(of, scope, less), self.constant(of));
                return format!("coalesce({first}, {second})");
            }
            1 => {
                let condition = self.condition(scope, less);
                let (first, second) =
                    (self.expression(of, scope, less), self.expression(of, scope, less));
                return format!("CASE WHEN {condition} THEN {first} ELSE {second} END");
            }
            2 if of != Type::Jsonb => {
                let (first, second) = (self.expression(of, scope, less), self.constant(of));
                return format!("nullif({first}, {second})");
            }
            3 if self.nesting < 1 || self.nesting < 2 && self.random.chance(30) => {
                return self.scalar_query(of, scope);
            }
            _ => {}
        }
        match of {
            Type::Int2 => {
                let inner = self.expression(Type::Int4, scope, less);
                format!("({inner} % 50)::int2")
            }
            Type::Int4 => self.whole_number(scope, less),
            Type::Int8 => match self.random.below(3) {
                0 => format!("({})::int8", self.expression(Type::Int4, scope, less)),
                1 => {
                    let first = self.expression(Type::Int8, scope, less);
                    format!("({first} + {})", self.expression(Type::Int4, scope, less))
                }
                _ => format!("({} % 1000)", self.expression(Type::Int8, scope, less)),
            },
            Type::Numeric => {
                let first = self.expression(Type::Numeric, scope, less);
                match self.random.below(5) {
                    0 => format!("({first} + {})", self.expression(Type::Numeric, scope, less)),
                    1 => format!("({first} * {})", self.expression(Type::Int4, scope, less)),
                    2 => format!("round({first}, 1)"),
                    3 => format!("({})::numeric", self.expression(Type::Int4, scope, less)),
                    _ => format!("abs(- {first})"),
                }
            }
            Type::Float => {
                let first = self.expression(Type::Float, scope, less);
                match self.random.below(4) {
                    0 => format!("({first} + {})", self.expression(Type::Float, scope, less)),
                    1 => format!("({first} * 2)"),
                    2 => format!("({})::float8", self.expression(Type::Int4, scope, less)),
                    _ => format!("floor({first})"),
                }
            }
            Type::Text => self.text(scope, less),
            Type::Varchar => format!("({})::varchar(8)", self.expression(Type::Text, scope, less)),
            Type::Char => format!("({})::char(5)", self.expression(Type::Text, scope, less)),
            Type::Bool => format!("({})", self.condition(scope, less)),
            Type::Date => match self.random.below(3) {
                0 => {
                    let first = self.expression(Type::Date, scope, less);
                    format!("({first} + {} % 9)", self.expression(Type::Int4, scope, less))
                }
                1 => format!(
                    "({} AT TIME ZONE 'UTC')::date",
                    self.expression(Type::Timestamptz, scope, less)
                ),
                _ => format!(
                    "greatest({}, {})",
                    self.expression(Type::Date, scope, less),
                    self.constant(Type::Date)
                ),
            },
            Type::Timestamptz => match self.random.below(3) {
                0 => format!(
                    "date_trunc('day', {})",
                    self.expression(Type::Timestamptz, scope, less)
                ),
                1 => {
                    let first = self.expression(Type::Timestamptz, scope, less);
                    format!("({first} + {})", self.leaf(Type::Interval, scope))
                }
                _ => format!("({})::timestamptz", self.expression(Type::Date, scope, less)),
            },
            Type::Jsonb => match self.random.below(4) {
                0 => format!("({} -> 'k')", self.leaf(Type::Jsonb, scope)),
                1 => format!("({} -> 'l' -> 0)", self.leaf(Type::Jsonb, scope)),
                2 => {
                    format!("jsonb_build_object('a', {})", self.expression(Type::Int4, scope, less))
                }
                _ => format!("to_jsonb({}::text)", self.expression(Type::Text, scope, less)),
            },
            Type::Ints => match self.random.below(3) {
                0 => {
                    let first = self.expression(Type::Int4, scope, less);
                    format!("ARRAY[{first}, {}]", self.expression(Type::Int4, scope, less))
                }
                1 => format!("({} || {})", self.leaf(Type::Ints, scope), self.constant(Type::Int4)),
                _ => format!("({})[1:2]", self.leaf(Type::Ints, scope)),
            },
            Type::Interval | Type::Uuid | Type::Bytea | Type::Mood => self.leaf(of, scope),
        }
    }

    fn whole_number(&mut self, scope: &Scope, depth: usize) -> String {
        match self.random.below(12) {
            0 => {
                let first = self.expression(Type::Int4, scope, depth);
                format!("({first} + {})", self.expression(Type::Int4, scope, depth))
            }
            1 => format!("({} % 5)", self.expression(Type::Int4, scope, depth)),
            2 => format!("length({})", self.expression(Type::Text, scope, depth)),
            3 => format!("extract(month from {})::int4", self.expression(Type::Date, scope, depth)),
            4 => format!("cardinality({})", self.expression(Type::Ints, scope, depth)),
            5 => format!("({})[1]", self.leaf(Type::Ints, scope)),
            6 => format!(
                "({} ->> 'n')::int4",
                self.column(Type::Jsonb, scope).unwrap_or_else(|| "'{\"n\": 3}'::jsonb".to_owned())
            ),
            7 => format!("({})::int4", self.expression(Type::Int2, scope, depth)),
            8 => format!("twice({})", self.leaf(Type::Int4, scope)),
            9 => format!("ascii({})", self.expression(Type::Text, scope, depth)),
            10 => format!(
                "({} - {})",
                self.expression(Type::Date, scope, depth),
                self.constant(Type::Date)
            ),
            _ => format!("abs({})", self.expression(Type::Int4, scope, depth)),
        }
    }

    fn text(&mut self, scope: &Scope, depth: usize) -> String {
        let first = self.expression(Type::Text, scope, depth);
        match self.random.below(13) {
            0 => format!("upper({first})"),
            1 => format!("({first} || {})", self.expression(Type::Text, scope, depth)),
            2 => format!("substr({first}, 2, 4)"),
            3 => format!("({})::text", self.expression(Type::Varchar, scope, depth)),
            4 => format!("({})::text", self.leaf(Type::Char, scope)),
            5 => format!("({})::text", self.leaf(Type::Mood, scope)),
            6 => format!("({})::text", self.expression(Type::Int4, scope, depth)),
            7 => format!("({} ->> 'k')", self.leaf(Type::Jsonb, scope)),
            8 => format!("concat({first}, '-', {})", self.expression(Type::Int4, scope, depth)),
            9 => format!("replace({first}, 'e', 'E')"),
            10 => format!("to_char({}, 'YYYY-MM')", self.expression(Type::Date, scope, depth)),
            11 => format!("left(md5({first}), 2)"),
            _ => format!("lower({first})"),
        }
    }

    /// A condition; `depth` is how much more may be nested.
    pub(crate) fn condition(&mut self, scope: &Scope, depth: usize) -> String {
        if depth > 0 {
            let less = depth - 1;
            match self.random.below(14) {
                0 | 1 => {
                    return format!(
                        "({} AND {})",
                        self.condition(scope, less),
                        self.condition(scope, less)
                    );
                }
                2 | 3 => {
                    return format!(
                        "({} OR {})",
                        self.condition(scope, less),
                        self.condition(scope, less)
                    );
                }
                4 => return format!("NOT ({})", self.condition(scope, less)),
                5..=6 if self.nesting < 1 || self.nesting < 2 && self.random.chance(40) => {
                    return self.query_condition(scope);
                }
                _ => {}
            }
        }
        let of = self.type_in(scope);
        self.comparison(of, scope, depth)
    }

    /// A type of which there is a column in scope, more often one of the usual ones.
    pub(crate) fn type_in(&mut self, scope: &Scope) -> Type {
        for _ in 0..8 {
            let of = self.random.pick(&Type::ALL);
            if scope.columns(of).next().is_some() {
                return of;
            }
        }
        let all: Vec<Type> =
            Type::ALL.into_iter().filter(|of| scope.columns(*of).next().is_some()).collect();
        if all.is_empty() { Type::Int4 } else { self.random.pick(&all) }
    }

    fn comparison(&mut self, of: Type, scope: &Scope, depth: usize) -> String {
        let value = self.expression(of, scope, depth);
        match self.random.below(16) {
            0 => return format!("{value} IS NULL"),
            1 => return format!("{value} IS NOT NULL"),
            2 | 3 => {
                let many = 1 + self.random.below(3);
                let list: Vec<String> = (0..many).map(|_| self.constant(of)).collect();
                return if self.random.chance(70) {
                    format!("{value} IN ({})", list.join(", "))
                } else if of == Type::Ints || self.random.chance(50) {
                    format!("{value} NOT IN ({})", list.join(", "))
                } else {
                    format!("{value} = ANY (ARRAY[{}])", list.join(", "))
                };
            }
            4 => return format!("{value} IS DISTINCT FROM {}", self.expression(of, scope, depth)),
            5 if of != Type::Jsonb => {
                return format!("{value} BETWEEN {} AND {}", self.constant(of), self.constant(of));
            }
            6 if of.is_text() => {
                let pattern = self.random.pick(&["'n%'", "'%e%'", "'%3'", "'_o%'", "''"]);
                return format!("{value} LIKE {pattern}");
            }
            7 if of.is_text() => {
                let pattern = self.random.pick(&["'^[m-s]'", "'[2-4]$'", "'o'"]);
                return format!("{value} ~ {pattern}");
            }
            8 => {
                let other = self.type_in(scope);
                let (left, right) = (self.leaf(other, scope), self.leaf(other, scope));
                let second = self.constant(of);
                return format!("({value}, {left}) = ({second}, {right})");
            }
            _ => {}
        }
        match of {
            Type::Bool => {
                let test = self.random.pick(&["", " IS TRUE", " IS NOT TRUE", " IS UNKNOWN"]);
                format!("{value}{test}")
            }
            Type::Jsonb => match self.random.below(3) {
                0 => format!("{value} ? 'k'"),
                1 => format!("{value} @> {}", self.constant(Type::Jsonb)),
                _ => format!("{value} = {}", self.expression(Type::Jsonb, scope, depth)),
            },
            Type::Ints if self.random.chance(60) => {
                let operator = self.random.pick(&["@>", "<@", "&&"]);
                format!("{value} {operator} {}", self.leaf(Type::Ints, scope))
            }
            Type::Int2
            | Type::Int4
            | Type::Int8
            | Type::Numeric
            | Type::Float
            | Type::Text
            | Type::Varchar
            | Type::Char
            | Type::Bytea
            | Type::Date
            | Type::Timestamptz
            | Type::Interval
            | Type::Uuid
            | Type::Ints
            | Type::Mood => {
                let operator = self.random.pick(&["=", "=", "=", "<", "<=", ">", ">=", "<>"]);
                let other = if of.is_whole() && self.random.chance(25) {
                    self.random.pick(&[Type::Int2, Type::Int4, Type::Int8, Type::Numeric])
                } else {
                    of
                };
                let right = if self.random.chance(55) {
                    self.constant(other)
                } else {
                    self.expression(other, scope, depth)
                };
                let collation =
                    if of.is_text() && self.random.chance(10) { " COLLATE \"C\"" } else { "" };
                format!("{value} {operator} {right}{collation}")
            }
        }
    }
}
