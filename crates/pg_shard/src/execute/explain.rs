//! What EXPLAIN shows of a scan: nodes, SQL, arguments.

use super::assignment::common_nodes;
use super::render;
use crate::catalog::{self, DistributedTable};
use pg::PgError;
use pg::exec::explain::Explain;
use pg::exec::scan_io::ScanIo;
use pg::sys::plan::Piece;
use std::rc::Rc;

/// Nodes and SQL as EXPLAIN shows them.
pub(crate) fn explain_shards(
    explain: &mut Explain,
    io: &mut ScanIo,
    tables: &[Rc<DistributedTable>],
    shards: &[usize],
    (opening, closing): (&str, &str),
    template: &[Piece],
) -> Result<(), PgError> {
    let mut nodes: Vec<String> = Vec::new();
    for index in shards {
        if let Some(node) = common_nodes(tables, *index).first().map(ToString::to_string)
            && !nodes.contains(&node)
        {
            nodes.push(node);
        }
    }
    explain.text("Nodes", &nodes.join(", "));
    if let Some(first) = shards.first() {
        explain.text("Remote SQL", &format!("{opening}{}{closing}", render(template, *first)?));
        let arguments = io.describe_arguments();
        if !arguments.is_empty() {
            explain.text("Arguments", &arguments);
        }
    }
    Ok(())
}

/// The SQL with the tables' own names.
pub(crate) fn render_generic(template: &[Piece]) -> Result<String, PgError> {
    Ok(template
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Index => "n".to_owned(),
            Piece::Table(oid) => pg::print::template::qualified_name(*oid),
            Piece::Object(_, name) => catalog::quote(name),
        })
        .collect())
}
