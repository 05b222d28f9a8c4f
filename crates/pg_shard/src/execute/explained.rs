//! What EXPLAIN (VERBOSE) shows of a node.

use super::assignment::{assign, named, sharers};
use super::read::Read;
use crate::catalog::DistributedTable;
use crate::naming::tell_as_table;
use crate::session::pool::{self, Stale};
use crate::session::{Failure, Request, Sql};
use crate::transaction;
use pg::PgError;
use pg::exec::explain::Explain;
use pg::exec::scan_io::ScanIo;
use std::rc::Rc;

impl Read {
    /// The plan that the first node has for its part. Under ANALYZE the node executes its part once more.
    pub(super) fn explain_worker(
        &self,
        io: &mut ScanIo,
        explain: &mut Explain,
        tables: &[Rc<DistributedTable>],
        shards: &[usize],
    ) -> Result<(), PgError> {
        let groups = assign(tables, shards, &[], &pool::avoided())?;
        let Some((node, group)) = groups.first() else { return Ok(()) };
        let codecs = io.codecs();
        let arguments = io.arguments_for(group, &[], &|text| self.sealed(node, text));
        let options = explain.options(!self.locks());
        let (opening, closing) = self.around();
        let parts: Result<Vec<String>, PgError> =
            group.iter().map(|index| self.render_explained(*index)).collect();
        let parts = parts?.join(" UNION ALL ");
        let sql = format!("EXPLAIN ({options}) {opening}{parts}{closing}");
        let request = Request::new(Sql::Once(&sql), codecs.argument_types(), &arguments);
        let mut lines: Vec<String> = Vec::new();
        let found = pool::acting_as(self.user(), || pool::session(node, Stale::IsHarmless));
        if let Ok(session) = found {
            let level = transaction::level_for_read(&session.borrow());
            session.borrow_mut().sharers = sharers(&groups, node);
            let outcome = session.borrow_mut().execute(&request, level, &mut |row| {
                lines.extend(row.first_text());
                Ok(())
            });
            if let Err(Failure::Statement(error)) = outcome {
                return Err(tell_as_table(error, &named(tables, group), node));
            }
        }
        explain.lines(&format!("Plan on {node}"), &lines);
        Ok(())
    }
}
