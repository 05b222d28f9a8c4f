//! In whose name the nodes are asked.
//!
//! A backend has one session for each node, whoever acts, so that all of a transaction sees what the transaction has written. It is opened
//! as the role that the client has logged in as; SET ROLE is repeated on it. Rights that are lent without a membership,
//! by the owner of a view or of a function that is SECURITY DEFINER, have a session of their own, opened as that owner. Such a
//! session sees nothing that the transaction has written on another one, so it is refused where that matters (`pool.rs`).
//!
//! SET ROLE on a node lets functions of users go back to the role of the log-in, as it does on one server. So it is used
//! where the client has said it, and no function that is SECURITY DEFINER is under way.

use pg::catalog::table::{self, OutputSettings};
use pg::server::identity::{Identity, identity};
use pgrx::pg_sys::Oid;
use std::cell::Cell;

thread_local! {
    /// Whose rights count for what is asked now, if not the current role's.
    static LENT: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    /// As whom connections are opened now, whoever acts.
    static LOGIN: Cell<Oid> = const { Cell::new(Oid::INVALID) };
}

/// What a session is to be before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The role of the log-in.
    pub(super) login: Oid,
    /// The role of SET ROLE; invalid for none.
    pub(super) set: Oid,
}

struct Before(&'static std::thread::LocalKey<Cell<Oid>>, Oid);

impl Drop for Before {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

fn with<T>(
    variable: &'static std::thread::LocalKey<Cell<Oid>>,
    role: Oid,
    body: impl FnOnce() -> T,
) -> T {
    let _before = Before(variable, variable.replace(role));
    body()
}

/// Runs `body`, which asks for sessions, on behalf of a role: the owner of a view, whose rights count for the tables
/// below it. Zero is the current user. `body` computes nothing for the client, who is still himself.
///
/// A superuser needs nobody's rights.
pub(crate) fn acting_as<T>(role: Oid, body: impl FnOnce() -> T) -> T {
    if role == Oid::INVALID || role == table::current_role() || table::is_superuser() {
        return body();
    }
    with(&LENT, role, body)
}

/// Runs `body`, which opens connections, as a role, whoever acts.
pub(crate) fn logged_in_as<T>(role: Oid, body: impl FnOnce() -> T) -> T {
    with(&LOGIN, role, body)
}

/// Who acts, and the role whose rights count for what is asked now.
fn acting() -> (Identity, Oid) {
    let who = identity();
    let role = match LENT.get() {
        Oid::INVALID => who.current,
        role => role,
    };
    (who, role)
}

/// The name of the role whose rights count.
pub(crate) fn user() -> String {
    table::role_name(acting().1)
}

/// What the session is to be that is asked next.
pub(super) fn wanted() -> Wanted {
    if LOGIN.get() != Oid::INVALID {
        return Wanted { login: LOGIN.get(), set: Oid::INVALID };
    }
    let (who, role) = acting();
    let outer = if who.set == Oid::INVALID { who.session } else { who.set };
    // With rights that are lent to it nothing is computed that users have made.
    let is_lent = LENT.get() != Oid::INVALID;
    if role == outer && (is_lent || !who.is_fixed) {
        Wanted { login: who.session, set: who.set }
    } else {
        Wanted { login: role, set: Oid::INVALID }
    }
}

/// The name of the role as which connections are opened.
pub(super) fn login() -> String {
    table::role_name(wanted().login)
}

/// What a session has been told to be, and what it is to be.
#[derive(Debug)]
pub(super) struct Standing {
    /// The role that the next statement is to set; invalid for none.
    set: Oid,
    /// The role that the node has been told to set; none if it may have forgotten.
    known: Option<Oid>,
    /// The settings that it has been told, likewise.
    settings: Option<OutputSettings>,
    /// Something has been told in the remote transaction, and is forgotten with it.
    pub(super) is_local: bool,
}

impl Standing {
    /// That of a session that has just been opened.
    pub(super) fn new() -> Self {
        Self { set: wanted().set, known: Some(Oid::INVALID), settings: None, is_local: false }
    }

    /// What the session is to be for whoever asks it next.
    pub(super) fn stand_in(&mut self, wanted: Wanted) {
        self.set = wanted.set;
    }

    /// The session has the role and the settings that it is to have.
    pub(super) fn is_told(&self) -> bool {
        self.known == Some(self.set) && self.settings == Some(table::output_settings())
    }

    /// What was told in a transaction that was rolled back is forgotten.
    pub(super) fn forget(&mut self) {
        (self.known, self.settings) = (None, None);
    }

    /// The statement that tells what has changed.
    pub(super) fn tell(&mut self) -> Option<String> {
        let mut calls = Vec::new();
        if self.known != Some(self.set) {
            let name = match self.set {
                Oid::INVALID => "none".to_owned(),
                role => table::role_name(role),
            };
            calls.push(set_config("role", &name));
            self.known = Some(self.set);
        }
        let now = table::output_settings();
        if self.settings != Some(now) {
            let followed = table::FOLLOWED.into_iter();
            calls.extend(followed.map(|it| set_config(&it.to_string_lossy(), &table::setting(it))));
            self.settings = Some(now);
        }
        if calls.is_empty() {
            return None;
        }
        self.is_local = true;
        Some(format!("SELECT {}", calls.join(", ")))
    }
}

fn set_config(name: &str, value: &str) -> String {
    format!("pg_catalog.set_config('{name}', '{}', false)", value.replace('\'', "''"))
}
