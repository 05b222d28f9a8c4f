//! In whose name the nodes are asked.
//!
//! A backend has one session for each node, whoever acts, so that all of a transaction sees what the transaction has written. It is opened
//! as the role that the client has logged in as; SET ROLE is repeated on it. Rights that are lent without a membership,
//! by the owner of a view or of a function that is SECURITY DEFINER, are lent to the node too, for a flight (`acting.rs`). Where
//! a node cannot be lent rights, the owner has a session of his own. That one sees nothing of what the transaction has written on another,
//! so it is refused where that matters (`pool.rs`).
//!
//! SET ROLE on a node lets functions of users go back to the role of the log-in, as it does on one server. So it is used
//! where the client has said it, and no function that is SECURITY DEFINER is under way: then rights are lent even if they are the caller's own.

use super::known_secrets::seconds;
use pg::catalog::table;
use pg::server::identity::{Identity, identity};
use pg::server::settings::{self, Settings};
use pgrx::pg_sys::Oid;
use shardmap::instruction::{Purpose, Secret};
use shardmap::lending::Lending;
use sharing::{Digest, digest};
use std::cell::{Cell, RefCell};

thread_local! {
    /// Whose rights count for what is asked now, if not the current role's.
    static LENT: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    /// Who acts on the nodes now, restricted, whoever asks.
    static MAINTAINER: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    /// What is opened now has the name of no backend.
    static FOR_ALL: Cell<bool> = const { Cell::new(false) };
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
    /// Who acts beyond that.
    pub(super) acting: Option<Acting>,
}

/// A role that acts without being set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acting {
    pub(super) role: Oid,
    /// For maintenance.
    pub(super) is_restricted: bool,
}

impl Acting {
    /// What a session of the role's own is to be.
    pub(super) fn apart(self) -> Wanted {
        Wanted { login: self.role, set: Oid::INVALID, acting: None }
    }
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

/// Runs `body`, which opens connections that others may use too.
pub(super) fn opening_for_all<T>(is_for_all: bool, body: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            FOR_ALL.set(self.0);
        }
    }
    let _before = Before(FOR_ALL.replace(is_for_all));
    body()
}

/// What is opened now others may use too.
pub(super) fn opens_for_all() -> bool {
    FOR_ALL.get()
}

/// Runs `body`, for which the nodes act as a table's owner under the restrictions of maintenance.
pub(crate) fn maintaining_as<T>(owner: Oid, body: impl FnOnce() -> T) -> T {
    with(&MAINTAINER, owner, body)
}

/// No function that runs now may take on another role.
pub(crate) fn is_fixed() -> bool {
    identity().is_fixed
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
        return Wanted { login: LOGIN.get(), set: Oid::INVALID, acting: None };
    }
    let (who, role) = acting();
    let mut wanted = Wanted { login: who.session, set: who.set, acting: None };
    let outer = if who.set == Oid::INVALID { who.session } else { who.set };
    // With rights that are lent to it nothing is computed that users have made.
    let is_lent = LENT.get() != Oid::INVALID;
    if MAINTAINER.get() != Oid::INVALID {
        wanted.acting = Some(Acting { role: MAINTAINER.get(), is_restricted: true });
    } else if role != outer || who.is_fixed && !is_lent {
        wanted.acting = Some(Acting { role, is_restricted: who.is_restricted });
    }
    wanted
}

/// What a session is to be that is opened for one purpose, beside those that there are.
fn apart() -> Wanted {
    let wanted = wanted();
    wanted.acting.map_or(wanted, Acting::apart)
}

/// The name of the role as which connections are opened.
pub(super) fn login() -> String {
    table::role_name(apart().login)
}

/// What the server's backends know together of what a session has been told; zero is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    /// One more than the role that it has been told to set.
    pub(super) role: u64,
    /// Of the settings that it has been told.
    pub(super) settings: Digest,
    /// Of the client's own settings.
    pub(super) own: Digest,
    /// Of whom it has the name; see [`Standing::holder`].
    pub(super) holder: u64,
}

const UNKNOWN: Digest = Digest(0, 0);

/// A session that was never told settings of a client's own.
const NONE: Digest = Digest(0, 1);

/// A session that has the name of no backend.
pub(super) const NOBODY: u64 = 1;

/// The name of this backend.
pub(super) fn myself() -> u64 {
    u64::from(pg::server::transaction::backend_pid().cast_unsigned()) + 2
}

thread_local! {
    /// Digests of settings that were told. Other processes do not know the numbers of which [`Settings`] consists.
    static DIGESTS: RefCell<Vec<(Settings, Digest)>> = const { RefCell::new(Vec::new()) };
}

/// So many of them are kept.
const MOST_DIGESTS: usize = 16;

/// What all processes take for these settings, which are the client's now.
fn settings_digest(now: Settings) -> Digest {
    DIGESTS.with_borrow_mut(|known| {
        if let Some((_, digest)) = known.iter().find(|(settings, _)| *settings == now) {
            return *digest;
        }
        let values: Vec<String> =
            settings::FOLLOWED.into_iter().map(settings::told_value).collect();
        let found = digest(values.iter().map(String::as_bytes));
        if known.len() >= MOST_DIGESTS {
            known.remove(0);
        }
        known.push((now, found));
        found
    })
}

/// Of the client's own settings: of their names, and of all.
fn own_digests(values: &[(String, String)]) -> (Digest, Digest) {
    let mut sorted: Vec<&(String, String)> = values.iter().collect();
    sorted.sort();
    let names = digest(sorted.iter().map(|(name, _)| name.as_bytes()));
    let all = sorted.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    (names, digest(all))
}

/// What a session has been told to be, and what it is to be.
#[derive(Debug)]
pub(super) struct Standing {
    /// The role that the next statement is to set; invalid for none.
    set: Oid,
    /// Whose rights are lent for the next flight, by the secret of the node.
    lent: Option<(Acting, Secret)>,
    /// The node's number for the session, none if it does not lend; outside, that nobody has asked.
    session: Option<Option<u64>>,
    /// The number of the last instruction.
    number: u64,
    /// The role that the node has been told to set; none if it may have forgotten.
    known: Option<Oid>,
    /// The settings that it has been told, likewise.
    settings: Option<Settings>,
    /// The fingerprint of the client's own settings that it has been told, likewise.
    own_settings: Option<u64>,
    /// Digests of what it has been told of both.
    told: (Digest, Digest),
    /// Of the names of own settings under which the session is shared.
    names: Option<Digest>,
    /// It has been told settings under other names: they would be found by others.
    strays: bool,
    /// Of whom the session has the name, by which nodes tell who waits for whom: one of [`NOBODY`] and [`myself`], or another's.
    pub(super) holder: u64,
    /// Something has been told in the remote transaction, and is forgotten with it.
    pub(super) is_local: bool,
    /// `holder` was told in the remote transaction: a rollback takes it back.
    pub(super) is_holder_local: bool,
    /// The remote transaction has been told what SET CONSTRAINTS has said.
    pub(super) knows_constraints: bool,
}

impl Standing {
    /// That of a session that has just been opened.
    pub(super) fn new() -> Self {
        Self {
            set: apart().set,
            lent: None,
            session: None,
            number: 0,
            known: Some(Oid::INVALID),
            settings: None,
            own_settings: Some(0),
            told: (UNKNOWN, NONE),
            names: None,
            strays: false,
            holder: if opens_for_all() { NOBODY } else { myself() },
            is_local: false,
            is_holder_local: false,
            knows_constraints: false,
        }
    }

    /// The session is shared, among those who have own settings of these names.
    pub(super) fn share(&mut self, names: Option<Digest>) {
        (self.names, self.strays) = (names, self.own_settings != Some(0));
    }

    /// Others have had the session meanwhile.
    pub(super) fn take_over(&mut self, remembered: &Remembered, names: Option<Digest>) {
        *self = Self { set: Oid::INVALID, holder: remembered.holder, names, ..Self::new() };
        self.known = remembered.role.checked_sub(1).map(|role| Oid::from(role as u32));
        let now = settings::settings();
        let told = settings_digest(now);
        (self.settings, self.told.0) = (None, UNKNOWN);
        if told == remembered.settings {
            (self.settings, self.told.0) = (Some(now), told);
        }
        let own = settings::own_settings();
        let told = match own {
            0 => NONE,
            // From now on this backend is to tell if one of them is set back.
            _ => own_digests(&settings::own_setting_values()).1,
        };
        (self.own_settings, self.told.1) = (None, remembered.own);
        if told == remembered.own {
            self.own_settings = Some(own);
        }
    }

    /// What others are to know of it.
    pub(super) fn hand_over(&self) -> Remembered {
        let own = match (self.own_settings, self.names) {
            (Some(_), _) => self.told.1,
            (None, None) => NONE,
            (None, Some(_)) => UNKNOWN,
        };
        Remembered {
            role: self.known.map_or(0, |role| u64::from(role.to_u32()) + 1),
            settings: if self.settings.is_some() { self.told.0 } else { UNKNOWN },
            own,
            holder: self.holder,
        }
    }

    /// Nothing that it was told is found by others who do not know of it.
    pub(super) fn can_be_shared(&self) -> bool {
        !self.strays
    }

    /// What the session is to be for whoever asks it next, with its own rights.
    pub(super) fn stand_in(&mut self, wanted: Wanted) {
        (self.set, self.lent) = (wanted.set, None);
    }

    /// Whose rights it is lent besides, by the secret of the node.
    pub(super) fn lend(&mut self, acting: Acting, secret: Secret) {
        self.lent = Some((acting, secret));
    }

    /// The session stands as it is wanted.
    pub(super) fn is(&self, wanted: Wanted) -> bool {
        self.set == wanted.set && self.lent.as_ref().map(|(acting, _)| *acting) == wanted.acting
    }

    /// Rights are lent.
    pub(super) fn is_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// Whether the node can be lent rights; none if nobody has asked.
    pub(super) fn can_be_lent(&self) -> Option<bool> {
        self.session.map(|number| number.is_some())
    }

    /// What the node has answered to that.
    pub(super) fn note_session(&mut self, number: Option<u64>) {
        self.session = Some(number);
    }

    /// The instruction for the next flight, if rights are lent.
    pub(super) fn instruction(&mut self, statements: impl Iterator<Item = u32>) -> Option<String> {
        let (acting, secret) = self.lent.as_ref()?;
        self.number += 1;
        let lending = Lending {
            session: self.session.flatten()?,
            number: self.number,
            is_restricted: acting.is_restricted,
            statements: statements.collect(),
            role: table::role_name(acting.role),
            settings: settings::FOLLOWED.into_iter().map(settings::told_value).collect(),
        };
        Some(secret.seal(Purpose::Lend, "", &lending.to_text(), seconds()))
    }

    /// The session has the role and the settings that it is to have.
    pub(super) fn is_told(&self) -> bool {
        self.known == Some(self.set)
            && self.settings == Some(settings::settings())
            && self.own_settings == Some(settings::own_settings())
    }

    /// A remote transaction begins.
    pub(super) fn begin(&mut self) {
        (self.is_local, self.is_holder_local, self.knows_constraints) = (false, false, false);
    }

    /// The node's settings are others than it was told.
    pub(super) fn forget_settings(&mut self) {
        (self.settings, self.told.0) = (None, UNKNOWN);
    }

    /// What was told in a transaction that was rolled back is forgotten.
    pub(super) fn forget(&mut self) {
        (self.known, self.settings, self.own_settings) = (None, None, None);
        if self.is_holder_local {
            self.holder = 0;
        }
        self.knows_constraints = false;
    }

    fn note_own(&mut self, values: &[(String, String)]) {
        if values.is_empty() {
            // None were told before, or they are under names that the session is not shared by.
            self.told.1 = NONE;
            return;
        }
        let (names, all) = own_digests(values);
        self.strays |= self.names != Some(names);
        self.told.1 = all;
    }

    /// The statement that tells what has changed.
    pub(super) fn tell(&mut self) -> Option<String> {
        let mut calls = Vec::new();
        let now = settings::settings();
        let has_other_settings = self.settings != Some(now);
        if has_other_settings {
            // This one is for superusers: the client has set it in its own name, and not in that of another role.
            if (self.known, self.set) != (Some(Oid::INVALID), Oid::INVALID) {
                calls.push(set_config("role", "none"));
                self.known = Some(Oid::INVALID);
            }
            calls.push(set_replication_role());
        }
        if self.known != Some(self.set) {
            let name = match self.set {
                Oid::INVALID => "none".to_owned(),
                role => table::role_name(role),
            };
            calls.push(set_config("role", &name));
            self.known = Some(self.set);
        }
        if has_other_settings {
            let others = |name: &&std::ffi::CStr| *name != settings::REPLICATION_ROLE;
            let followed = settings::FOLLOWED.into_iter().filter(others);
            calls.extend(
                followed.map(|it| set_config(&it.to_string_lossy(), &settings::told_value(it))),
            );
            (self.settings, self.told.0) = (Some(now), settings_digest(now));
        }
        let now = settings::own_settings();
        if self.own_settings != Some(now) {
            let own = settings::own_setting_values();
            self.note_own(&own);
            calls.extend(own.iter().map(|(name, value)| set_config(name, value)));
            self.own_settings = Some(now);
        }
        if calls.is_empty() {
            return None;
        }
        self.is_local = true;
        Some(format!("SELECT {}", calls.join(", ")))
    }
}

/// Sets what only superusers may set, if it is not so already.
fn set_replication_role() -> String {
    let name = settings::REPLICATION_ROLE;
    let value = settings::told_value(name);
    let name = name.to_string_lossy();
    format!(
        "CASE WHEN pg_catalog.current_setting('{name}') OPERATOR(pg_catalog.<>) '{value}' THEN {} END",
        set_config(&name, &value)
    )
}

pub(super) fn set_config(name: &str, value: &str) -> String {
    let quoted = |text: &str| text.replace('\'', "''");
    format!("pg_catalog.set_config('{}', '{}', false)", quoted(name), quoted(value))
}
