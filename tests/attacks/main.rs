//! Attacks by an ordinary role: with what it may create it tries to have its code run in somebody else's name.
//!
//! Each evil function writes down in whose name it runs ([`Spy`]); whoever is not the attacker there has been robbed.

mod coordinator;
mod crashes;
mod lending;
mod maintenance;
mod pools;
mod reach;
mod reading;
mod views;

use testkit::{NodeName, TestCluster};

/// An ordinary role with a schema of its own on every node, and functions that tell on whoever runs them.
pub struct Spy {
    /// Where it happens.
    pub cluster: TestCluster,
}

impl Spy {
    /// A cluster with role `mallory` and her schema `m`. `m.spy(anyelement)` notes the role, tries to become superuser, and
    /// gives its argument back; `m.seen` holds the notes of each node.
    pub fn up(workers: u16) -> Self {
        Self::up_with(workers, &[])
    }

    /// The same with settings for every node.
    pub fn up_with(workers: u16, settings: &[(&str, &str)]) -> Self {
        let cluster = TestCluster::up_with(workers, settings);
        let spy = Self { cluster };
        spy.cluster.on_all_nodes(
            "CREATE ROLE mallory LOGIN; CREATE SCHEMA m AUTHORIZATION mallory;
             CREATE TABLE m.seen (who text, restricted text);
             GRANT ALL ON m.seen TO PUBLIC; GRANT USAGE ON SCHEMA m TO PUBLIC",
        );
        spy.on_all_nodes_as_mallory(
            "CREATE FUNCTION m.note() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO m.seen VALUES (current_user, session_user);
                 BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
             END $$;
             CREATE FUNCTION m.spy(anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
             BEGIN PERFORM m.note(); RETURN $1; END $$",
        );
        spy
    }

    /// Runs the same on every node as the attacker.
    #[track_caller]
    pub fn on_all_nodes_as_mallory(&self, sql: &str) {
        for node in self.cluster.nodes() {
            self.cluster.session_on(node).sql(&format!("SET SESSION AUTHORIZATION mallory; {sql}"));
        }
    }

    /// Nobody but these roles has run the attacker's code since the last look, and the attacker has gained nothing.
    #[track_caller]
    pub fn assert_only(&self, allowed: &[&str], after: &str) {
        for node in self.cluster.nodes() {
            self.assert_only_on(node, allowed, after);
        }
    }

    #[track_caller]
    fn assert_only_on(&self, node: NodeName, allowed: &[&str], after: &str) {
        let mut session = self.cluster.session_on(node);
        let is_superuser = session.text("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'");
        assert_eq!(is_superuser, "f", "mallory has become superuser on {node} by {after}");
        let seen = session.sql("SELECT DISTINCT who FROM m.seen ORDER BY 1");
        for who in seen.into_iter().flatten() {
            assert!(allowed.contains(&who.as_str()), "{who} ran mallory's code on {node}: {after}");
        }
        session.sql("DELETE FROM m.seen");
    }

    /// The attacker's code has run on some node since the last look: the attack is one.
    #[track_caller]
    pub fn assert_ran(&self, after: &str) {
        let ran = self.cluster.nodes().into_iter().any(|node| {
            self.cluster.session_on(node).text("SELECT count(*) > 0 FROM m.seen") == "t"
        });
        assert!(ran, "nobody ran mallory's code: {after}");
    }
}
