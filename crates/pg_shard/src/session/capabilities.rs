//! What nodes answer to a question about themselves, kept per backend for a while.
//!
//! The planner wants to know whether the nodes have what the coordinator has: a function, an aggregate, the extension. It asks
//! in SQL, a question that yields one row with one column, reads catalogs only and cannot raise an error. A kept
//! answer may be out of date by [`FRESH`]: who acts on it has the node check again, and calls [`forget`] if it has proved wrong.
//!
//! Asking never fails the statement and leaves no trace in its transaction. A session with nothing under way is asked. One
//! that is in a transaction or delivers rows is left in peace: the question has a connection of its own then, closed after it,
//! so that neither its snapshot nor its savepoints nor its loss are the transaction's.

use super::pool::{self, SessionRef, Stale};
use super::{Failure, Request, Session, Sql};
use pg::net::wait::clock;
use protocol::Arguments;
use shardmap::NodeAddress;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// How long an answer is kept.
const FRESH: Duration = Duration::from_secs(60);

/// How long a node that could not be asked is not asked again.
const SILENT: Duration = Duration::from_secs(10);

/// With more answers than this, those that are too old are thrown away.
const MANY: usize = 1000;

/// Who asks whom: rights may differ, and so may answers.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    role: String,
    node: NodeAddress,
}

struct Answer {
    /// None: the node could not be asked, or refused.
    text: Option<String>,
    until: Duration,
}

thread_local!(static KNOWN: RefCell<HashMap<String, HashMap<Asked, Answer>>> = RefCell::default());

/// What the nodes answer to `question`, in their order; an answer of no row or NULL is empty. None if one of them
/// cannot be reached or refuses.
pub(crate) fn of_nodes(nodes: &[NodeAddress], question: &str) -> Option<Vec<String>> {
    let role = pool::user();
    let asked = |node: &NodeAddress| Asked { role: role.clone(), node: node.clone() };
    let unknown: Vec<&NodeAddress> =
        nodes.iter().filter(|node| kept(question, &asked(node)).is_none()).collect();
    if !unknown.is_empty() {
        let texts = ask(&unknown, question);
        keep(question, unknown.into_iter().map(asked).zip(texts));
    }
    nodes.iter().map(|node| kept(question, &asked(node)).flatten()).collect()
}

/// Forgets all answers, and has plans made anew that may rely on them: one has turned out wrong.
pub(crate) fn forget() {
    KNOWN.with_borrow_mut(HashMap::clear);
    pg::path::plan::forget_cached();
}

/// The kept answer, if it is not too old.
fn kept(question: &str, asked: &Asked) -> Option<Option<String>> {
    KNOWN.with_borrow(|known| {
        let answer = known.get(question)?.get(asked)?;
        (answer.until > clock()).then(|| answer.text.clone())
    })
}

fn keep(question: &str, answers: impl Iterator<Item = (Asked, Option<String>)>) {
    let now = clock();
    KNOWN.with_borrow_mut(|known| {
        if known.values().map(HashMap::len).sum::<usize>() > MANY {
            for answers in known.values_mut() {
                answers.retain(|_, answer| answer.until > now);
            }
            known.retain(|_, answers| !answers.is_empty());
        }
        let place = known.entry(question.to_owned()).or_default();
        for (asked, text) in answers {
            let until = now + if text.is_some() { FRESH } else { SILENT };
            place.insert(asked, Answer { text, until });
        }
    });
}

/// Asks all nodes at once.
fn ask(nodes: &[&NodeAddress], question: &str) -> Vec<Option<String>> {
    let free = nodes.iter().filter(|node| !pool::seems_silent(node) && !pool::is_occupied(node));
    pool::open_missing(free.copied());
    let sent: Vec<Option<SessionRef>> = nodes
        .iter()
        .map(|node| {
            let session = session(node)?;
            send(&session, question).is_ok().then_some(session)
        })
        .collect();
    let answers = sent.iter().zip(nodes).map(|(session, node)| {
        match read(session.as_ref()?) {
            Ok(text) => Some(text),
            // A kept connection that the node had closed meanwhile: once more, with another.
            Err(Failure::Lost(_)) => {
                pool::discard_broken();
                let session = self::session(node)?;
                send(&session, question).ok()?;
                read(&session).ok()
            }
            Err(Failure::Statement(_)) => None,
        }
    });
    let answers = answers.collect();
    pool::discard_broken();
    answers
}

/// The pooled session if nothing of the transaction's is on it, else one for the question alone.
fn session(node: &NodeAddress) -> Option<SessionRef> {
    if pool::seems_silent(node) {
        return None;
    }
    if pool::is_occupied(node) {
        return Session::open(node).ok().map(|session| Rc::new(RefCell::new(session)));
    }
    pool::session(node, Stale::Matters).ok()
}

fn send(session: &SessionRef, question: &str) -> Result<(), Failure> {
    let arguments = Arguments::none();
    let request = Request::new(Sql::Once(question), &[], &arguments);
    session.borrow_mut().send(&request, None)
}

fn read(session: &SessionRef) -> Result<String, Failure> {
    let mut text = None;
    session.borrow_mut().finish(&mut |row| {
        text = row.first_text();
        Ok(())
    })?;
    Ok(text.unwrap_or_default())
}
