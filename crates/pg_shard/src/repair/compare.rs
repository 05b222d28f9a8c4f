//! Comparing placements of a shard: what they are, what they hold, and which rows make one equal to another.
//!
//! The nodes do the work in plain SQL (no library is needed there), both at the same time. No code of users runs: only types of a
//! superuser's making have output functions of their own.

use crate::catalog::{DistributedTable, quote};
use crate::functions::literal;
use crate::naming::tell_as_table;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request, Sql};
use crate::transaction::{self, NodeFailure};
use pg::PgError;
use pg::catalog::table::{column_type, columns};
use pg::server::transaction::Isolation;
use protocol::Arguments;
use shardmap::NodeAddress;
use shardmap::difference::{Difference, Digest, Row, buckets_for};

/// A shard, and the nodes of two of its placements.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) table: &'a DistributedTable,
    pub(super) index: usize,
    pub(super) source: &'a NodeAddress,
    pub(super) target: &'a NodeAddress,
    /// For a snapshot that holds over several statements.
    pub(super) isolation: Option<(u32, Isolation)>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// A failure, and whose it was.
pub(super) type Failed = (Side, NodeFailure);

/// What the two placements are to each other.
pub(super) enum Comparison {
    /// They hold the same rows but for these.
    Rows(Difference),
    /// They cannot be compared row by row, or it would not pay: the target is made anew.
    Whole,
}

/// What a placement is, as one line: how many rows it may have, whether its rows can be changed without any effect beside it, and
/// a digest of its definition. No line if there is no such table.
const DEFINITION: &str = "SELECT concat_ws(' ', \
    pg_relation_size(c.oid) / 128, \
    c.relkind = 'r' AND NOT c.relrowsecurity AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid), \
    md5(concat_ws(E'\\n', c.relpersistence, c.reloptions, \
      pg_get_userbyid(c.relowner), c.relacl, c.relreplident, \
      (SELECT string_agg(concat_ws(' ', quote_ident(attname), format_type(atttypid, atttypmod), attcollation::regcollation, \
                attnotnull, attidentity, attgenerated, attstorage, attcompression, attoptions, attacl, \
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
    pub(super) fn node(&self, side: Side) -> &NodeAddress {
        match side {
            Side::Source => self.source,
            Side::Target => self.target,
        }
    }

    /// Compares what the two placements hold now.
    pub(super) fn compare(&self) -> Result<Comparison, Failed> {
        let shard = self.table.shard_name(self.index);
        let question = format!("{DEFINITION}{})", literal(&shard));
        let [source, target] = self.ask_both(&question, &question)?.map(|lines| {
            lines.first().and_then(|line| Description::parse(line)).filter(|it| it.is_plain)
        });
        let (Some(source), Some(target)) = (source, target) else { return Ok(Comparison::Whole) };
        if source.definition != target.definition {
            return Ok(Comparison::Whole);
        }
        let mask = buckets_for(source.rows.max(target.rows)) - 1;
        let question = format!(
            "SELECT concat_ws(' ', h & {mask}, count(*), sum(h)) FROM ({}) AS r GROUP BY h & {mask}",
            hashed(self.table, &shard)
        );
        let [source, target] = self.ask_both(&question, &question)?.map(|lines| {
            let mut digest = Digest::default();
            lines.iter().all(|line| digest.add(line)).then_some(digest)
        });
        let (Some(source), Some(target)) = (source, target) else { return Ok(Comparison::Whole) };
        let differing = source.differing(&target);
        if differing.is_empty() {
            return Ok(Comparison::Rows(Difference::default()));
        }
        // To name rows and to look for them costs more than to copy them when it is about many.
        if source.rows_in(&differing) > 1000 + source.rows() / 4 {
            return Ok(Comparison::Whole);
        }
        let list: Vec<String> = differing.iter().map(u64::to_string).collect();
        let question = format!(
            "SELECT concat_ws(' ', h, place) FROM ({}) AS r WHERE h & {mask} = ANY ('{{{}}}')",
            hashed(self.table, &shard),
            list.join(",")
        );
        let [source, target] = self
            .ask_both(&question, &question)?
            .map(|lines| lines.iter().filter_map(|line| Row::parse(line)).collect::<Vec<Row>>());
        Ok(Comparison::Rows(Difference::of(source, target)))
    }

    /// Asks both nodes; each answers by lines.
    fn ask_both(&self, source: &str, target: &str) -> Result<[Vec<String>; 2], Failed> {
        let first = self.ask(Side::Source, source)?;
        let second = self.ask(Side::Target, target)?;
        Ok([self.answer(Side::Source, &first)?, self.answer(Side::Target, &second)?])
    }

    fn ask(&self, side: Side, sql: &str) -> Result<SessionRef, Failed> {
        let session = pool::session(self.node(side), Stale::Matters).map_err(|reason| {
            let failure = match reason {
                NoSession::Unreachable(error) => NodeFailure::Unreachable(error),
                NoSession::Refused(error) => NodeFailure::Error(error),
            };
            (side, failure)
        })?;
        let arguments = Arguments::none();
        let request = Request { sql: Sql::Once(sql), types: &[], arguments: &arguments };
        let level = self.isolation.or_else(|| transaction::level_for_read(&session.borrow()));
        let sent = session.borrow_mut().send(&request, level);
        sent.map_err(|failure| self.failed(side, failure))?;
        Ok(session)
    }

    fn answer(&self, side: Side, session: &SessionRef) -> Result<Vec<String>, Failed> {
        let mut lines = Vec::new();
        let outcome = session.borrow_mut().finish(&mut |row| {
            lines.extend(row.first_text());
            Ok(())
        });
        outcome.map_err(|failure| self.failed(side, failure))?;
        Ok(lines)
    }

    /// What a COPY of the source yields.
    pub(super) fn copy_out(&self, sql: &str) -> Result<Vec<u8>, NodeFailure> {
        let session = self.ask(Side::Source, "SELECT").map_err(|(_, failure)| failure)?;
        self.answer(Side::Source, &session).map_err(|(_, failure)| failure)?;
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
        read().map_err(|failure| self.failed(Side::Source, failure).1)?;
        Ok(rows)
    }

    fn failed(&self, side: Side, failure: Failure) -> Failed {
        let failure = match failure {
            Failure::Lost(error) => {
                pool::discard_broken();
                NodeFailure::Unreachable(error)
            }
            Failure::Statement(error) => NodeFailure::Error(self.tell(error, side)),
        };
        (side, failure)
    }

    fn tell(&self, error: PgError, side: Side) -> PgError {
        tell_as_table(error, &[(self.table, self.index)], self.node(side))
    }
}

/// Types whose hash tells values apart that look different, by OID: bool, bytea, "char", name, int8, int2, int4, text, oid,
/// date, time, timestamp, timestamptz, varchar, uuid. Not numeric, say: 1.0 and 1.00 are equal, and so are their hashes.
const EXACT: [u32; 15] = [16, 17, 18, 19, 20, 21, 23, 25, 26, 1082, 1083, 1114, 1184, 1043, 2950];

/// Collations in which only texts of the same bytes are equal: none, default, C, POSIX.
const EXACT_COLLATIONS: [u32; 4] = [0, 100, 950, 951];

/// Each row's hash and place.
///
/// Values are hashed as they are where that is exact, and as text otherwise, which takes twice as long.
fn hashed(table: &DistributedTable, shard: &str) -> String {
    let (mut exact, mut others) = (Vec::new(), Vec::new());
    for column in columns(table.oid) {
        let (type_oid, _, collation) = column_type(table.oid, column.number);
        let is_exact =
            EXACT.contains(&type_oid.to_u32()) && EXACT_COLLATIONS.contains(&collation.to_u32());
        let list = if is_exact { &mut exact } else { &mut others };
        list.push(format!("pgs_row.{}", quote(&column.name)));
    }
    let of_others = match others.is_empty() {
        true => "0".to_owned(),
        false => format!("hashtextextended(ROW({})::text, 0)", others.join(", ")),
    };
    let hash = match exact.is_empty() {
        true => of_others,
        false => format!("hash_record_extended(ROW({}), {of_others})", exact.join(", ")),
    };
    format!("SELECT {hash} AS h, pgs_row.ctid AS place FROM ONLY {shard} AS pgs_row")
}
