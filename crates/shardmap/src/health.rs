//! What is thought of a node, by whether it has answered.

use std::fmt;

/// So many questions in a row without an answer, and a node is down.
const MISSES: u32 = 3;

/// What is thought of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// It has not answered the last question.
    Suspected,
    /// It has not answered for long.
    Down,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Suspected => "suspected",
            Self::Down => "down",
        })
    }
}

/// The course of a node's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    health: Health,
    misses: u32,
}

impl Course {
    /// Goes on from what was thought of the node before.
    pub fn from(health: &str) -> Self {
        let (health, misses) = match health {
            "down" => (Health::Down, MISSES),
            "suspected" => (Health::Suspected, 1),
            _ => (Health::Up, 0),
        };
        Self { health, misses }
    }

    /// What is thought of it now.
    pub fn health(self) -> Health {
        self.health
    }

    /// Notes whether the node has answered; what is thought of it from now on, if that has changed.
    pub fn note(&mut self, has_answered: bool) -> Option<Health> {
        self.misses = if has_answered { 0 } else { self.misses.saturating_add(1) };
        let health = match self.misses {
            0 => Health::Up,
            misses if misses >= MISSES || self.health == Health::Down => Health::Down,
            _ => Health::Suspected,
        };
        let has_changed = health != self.health;
        self.health = health;
        has_changed.then_some(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(from: &str, answers: &[bool]) -> Vec<Option<Health>> {
        let mut course = Course::from(from);
        answers.iter().map(|answer| course.note(*answer)).collect()
    }

    #[test]
    fn a_node_that_falls_silent_is_suspected_and_then_down() {
        let expected = [None, Some(Health::Suspected), None, Some(Health::Down), None];
        assert_eq!(changes("up", &[true, false, false, false, false]), expected);
    }

    #[test]
    fn one_answer_brings_it_up() {
        assert_eq!(changes("down", &[true, true]), [Some(Health::Up), None]);
        assert_eq!(changes("up", &[false, true]), [Some(Health::Suspected), Some(Health::Up)]);
    }

    #[test]
    fn a_node_that_was_down_stays_so_until_it_answers() {
        assert_eq!(changes("down", &[false, false]), [None, None]);
    }
}
