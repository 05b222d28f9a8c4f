//! The identity of a coordinator's backend, as the name of the application in its sessions to nodes tells it.
//!
//! `pg_stat_activity` shows that name to every role. A role can give a session of its own any name: whoever it has wait for it, it can so
//! have seem to wait in a circle, and give way instead of waiting.

use std::fmt;

/// A backend of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The coordinator's system identifier.
    pub coordinator: u64,
    /// The backend's process.
    pub pid: i32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.coordinator, self.pid)
    }
}

impl Identity {
    /// The bytes of an application's name that PostgreSQL keeps (`NAMEDATALEN`).
    const MOST: usize = 63;

    /// The name of the application of a session that serves it, which begins with `name`.
    pub fn application(&self, name: &str) -> String {
        let own = format!(" {self}");
        let room = Self::MOST.saturating_sub(own.len());
        format!("{}{own}", &name[..name.floor_char_boundary(room.min(name.len()))])
    }

    /// The identity at the end of an application's name, if there is one.
    pub fn of_application(name: &str) -> Option<Self> {
        let (_, own) = name.rsplit_once(' ')?;
        let (coordinator, pid) = own.split_once(':')?;
        let coordinator = u64::from_str_radix(coordinator, 16).ok()?;
        Some(Self { coordinator, pid: pid.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_without_an_identity_has_none() {
        for name in ["", "psql", "pg_shard", "a b", "a b:c", "a 1:", "a :1", "a:1"] {
            assert_eq!(Identity::of_application(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_identity_is_read_as_it_is_written(name in ".{0,80}", coordinator: u64, pid: i32) {
            let identity = Identity { coordinator, pid };
            let application = identity.application(&name);
            prop_assert!(application.len() <= Identity::MOST);
            prop_assert_eq!(Identity::of_application(&application), Some(identity));
        }

        #[test]
        fn any_name_is_read(name in ".{0,80}") {
            let _ = Identity::of_application(&name);
        }
    }
}
