//! Comparing placements of a shard: what they are, what they hold, and which rows make one equal to another.
//!
//! The nodes do the work in plain SQL (no library is needed there), both at the same time. No code of users runs: only types of a
//! superuser's making have output functions of their own.

use super::hashing::Hashing;
use crate::catalog::DistributedTable;
use crate::functions::literal;
use crate::naming::tell_as_table;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request, Sql};
use crate::transaction::{self, NodeFailure};
use pg::server::transaction::Isolation;
use pg::{PgError, SqlState};
use protocol::Arguments;
use shardmap::NodeAddress;
use shardmap::difference::{Difference, Digest, Levels, Row};

/// Where more may be found.
pub(crate) const CONSULT_LOGS: &str = "Consult recent messages in the server logs for details.";

/// A shard, and the nodes of two of its placements.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) table: &'a DistributedTable,
    pub(crate) index: usize,
    pub(crate) source: &'a NodeAddress,
    pub(crate) target: &'a NodeAddress,
    /// What cannot be done if a node fails.
    pub(crate) problem: &'static str,
    /// For a snapshot that holds over several statements.
    pub(crate) isolation: Option<(u32, Isolation)>,
}

/// What a placement is, as one line: how many rows it may have, whether its rows can be changed without any effect beside it, and
/// a digest of its definition. No line if there is no such table. Late minor releases of PostgreSQL 15 keep a number of their own,
/// `pg_attver`, among a column's options, another one on each node.
const DEFINITION: &str = "SELECT concat_ws(' ', \
    pg_relation_size(c.oid) / 128, \
    c.relkind = 'r' AND NOT c.relrowsecurity AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid \
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype = 'f')), \
    md5(concat_ws(E'\\n', c.relpersistence, c.reloptions, \
      pg_get_userbyid(c.relowner), c.relacl, c.relreplident, \
      (SELECT string_agg(concat_ws(' ', quote_ident(attname), format_type(atttypid, atttypmod), attcollation::regcollation, \
                attnotnull, attidentity, attgenerated, attstorage, attcompression, attacl, \
                (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(attoptions) AS o WHERE o NOT LIKE 'pg@_attver=%' ESCAPE '@'), \
                pg_get_expr(adbin, adrelid)), E'\\n' ORDER BY attnum) \
         FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), \
      (SELECT string_agg(pg_get_indexdef(indexrelid) || indisvalid || indisreplident || indisclustered, E'\\n' \
                ORDER BY pg_get_indexdef(indexrelid) COLLATE \"C\") FROM pg_index WHERE indrelid = c.oid), \
      (SELECT string_agg(quote_ident(conname) || ' ' || pg_get_constraintdef(oid), E'\\n' ORDER BY conname) \
         FROM pg_constraint WHERE conrelid = c.oid), \
      (SELECT string_agg(pg_get_statisticsobjdef(oid), E'\\n' ORDER BY stxname) FROM pg_statistic_ext WHERE stxrelid = c.oid), \
      (SELECT string_agg(objsubid || description, E'\\n' ORDER BY objsubid) FROM pg_description \
        WHERE objoid = c.oid AND classoid = 'pg_class'::regclass)))) \
  FROM pg_class c WHERE c.oid = to_regclass(";

/// A placement, as its node describes it.
struct Description {
    rows: u64,
    is_plain: bool,
    definition: String,
}

impl Description {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let mut field = || fields.next();
        let (rows, is_plain) = (field()?.parse().ok()?, field()? == "t");
        Some(Self { rows, is_plain, definition: field()?.to_owned() })
    }
}

impl Pair<'_> {
    /// How many rows the placements may have; none if they cannot be compared row by row.
    pub(super) fn rows(&self) -> Result<Option<u64>, PgError> {
        let question = format!("{DEFINITION}{})", literal(&self.shard()));
        let [source, target] = self.ask_both(&question)?.map(|lines| {
            lines.first().and_then(|line| Description::parse(line)).filter(|it| it.is_plain)
        });
        let (Some(source), Some(target)) = (source, target) else { return Ok(None) };
        let is_alike = source.definition == target.definition;
        Ok(is_alike.then_some(source.rows.max(target.rows)))
    }

    /// How many rows the source may have.
    pub(crate) fn source_rows(&self) -> Result<u64, PgError> {
        let question =
            format!("SELECT pg_relation_size({}::regclass) / 128", literal(&self.shard()));
        let of_source = |failure| failed(self.problem, self.source, failure);
        let session = self.ask(self.source, &question).map_err(of_source)?;
        let lines = self.answer(self.source, &session).map_err(of_source)?;
        Ok(lines.first().and_then(|line| line.parse().ok()).unwrap_or(0))
    }

    /// Compares what the two placements hold now, which are about so many rows; none if too many differ.
    ///
    /// The sessions act as the owner: whatever stands in the shard's place by now runs functions of nobody else.
    pub(crate) fn difference(&self, rows: u64) -> Result<Option<Difference>, PgError> {
        let hashing = Hashing::of(self.table, self.shard());
        let Levels { first, last } = hashing.levels(rows);
        let Some([mut source, mut target]) = self.digests(&hashing.digest(first, None))? else {
            return Ok(None);
        };
        let mut differing = source.differing(&target);
        let all = source.rows();
        if !differing.is_empty() && first < last {
            let finer = hashing.digest(last, Some((first, &differing)));
            let Some(digests) = self.digests(&finer)? else { return Ok(None) };
            [source, target] = digests;
            differing = source.differing(&target);
        }
        if differing.is_empty() {
            return Ok(Some(Difference::default()));
        }
        // To name rows and to look for them costs more than to copy them when it is about many.
        if source.rows_in(&differing) > 1000 + all / 4 {
            return Ok(None);
        }
        let [source, target] = self
            .ask_both(&hashing.rows_in(last, &differing))?
            .map(|lines| lines.iter().filter_map(|line| Row::parse(line)).collect::<Vec<Row>>());
        Ok(Some(Difference::of(source, target)))
    }

    /// The digests of the two placements; none if one cannot be read.
    fn digests(&self, question: &str) -> Result<Option<[Digest; 2]>, PgError> {
        let [source, target] = self.ask_both(question)?.map(|lines| {
            let mut digest = Digest::default();
            lines.iter().all(|line| digest.add(line)).then_some(digest)
        });
        Ok(source.zip(target).map(|(source, target)| [source, target]))
    }

    fn shard(&self) -> String {
        self.table.shard_name(self.index)
    }

    /// Asks both nodes; each answers by lines.
    fn ask_both(&self, question: &str) -> Result<[Vec<String>; 2], PgError> {
        let ask =
            |node| self.ask(node, question).map_err(|failure| failed(self.problem, node, failure));
        let (first, second) = (ask(self.source)?, ask(self.target)?);
        let answer = |node, session| {
            self.answer(node, session).map_err(|failure| failed(self.problem, node, failure))
        };
        Ok([answer(self.source, &first)?, answer(self.target, &second)?])
    }

    fn ask(&self, node: &NodeAddress, sql: &str) -> Result<SessionRef, NodeFailure> {
        let session = pool::session(node, Stale::Matters).map_err(|reason| match reason {
            NoSession::Unreachable(error) => NodeFailure::Unreachable(error),
            NoSession::Refused(error) => NodeFailure::Error(error),
        })?;
        let arguments = Arguments::none();
        let request = Request::new(Sql::Once(sql), &[], &arguments);
        let level = self.isolation.or_else(|| transaction::level_for_read(&session.borrow()));
        let sent = session.borrow_mut().send(&request, level);
        sent.map_err(|failure| self.failed(node, failure))?;
        Ok(session)
    }

    fn answer(&self, node: &NodeAddress, session: &SessionRef) -> Result<Vec<String>, NodeFailure> {
        let mut lines = Vec::new();
        let outcome = session.borrow_mut().finish(&mut |row| {
            if let Some(text) = row.first_text() {
                lines.extend(text.lines().map(str::to_owned));
            }
            Ok(())
        });
        outcome.map_err(|failure| self.failed(node, failure))?;
        Ok(lines)
    }

    /// What a COPY of the source yields.
    pub(crate) fn copy_out(&self, sql: &str) -> Result<Vec<u8>, NodeFailure> {
        let session = self.ask(self.source, "SELECT")?;
        self.answer(self.source, &session)?;
        let mut session = session.borrow_mut();
        let mut rows = Vec::new();
        let mut read = || {
            session.start_copy_out(sql)?;
            loop {
                let piece = session.get_copy()?;
                if piece.is_empty() {
                    return Ok(());
                }
                rows.extend(piece);
            }
        };
        read().map_err(|failure| self.failed(self.source, failure))?;
        Ok(rows)
    }

    fn failed(&self, node: &NodeAddress, failure: Failure) -> NodeFailure {
        match failure {
            Failure::Lost(error) => {
                pool::discard_broken();
                NodeFailure::Unreachable(error)
            }
            Failure::Statement(error) => {
                NodeFailure::Error(tell_as_table(error, &[(self.table, self.index)], node))
            }
        }
    }
}

/// What a node's failure is to whoever wants a placement repaired or compared.
pub(super) fn failed(what: &str, node: &NodeAddress, failure: NodeFailure) -> PgError {
    let error = match failure {
        NodeFailure::Unreachable(error) => {
            pg::sys::error::warning(pool::connection_failed(node, &error));
            error
        }
        NodeFailure::Error(error) => error,
    };
    PgError::new(SqlState::INTERNAL_ERROR, what)
        .detail(format!("Node \"{node}\" said: {}", error.message()))
        .hint(CONSULT_LOGS)
}
