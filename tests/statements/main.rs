//! Statements of every kind, by every way that PostgreSQL has of sending one.

/// Keys of every type, in names and schemas of every kind.
mod keys;

/// Simple and extended protocol, PREPARE, PL/pgSQL, cursors.
mod protocols;

/// What is refused, and how it is said.
mod refusals;

/// Roles and what they may.
mod rights;

/// Transaction blocks and savepoints.
mod transactions;

/// INSERT, UPDATE, DELETE and their clauses; values that are computed once.
mod writes;
