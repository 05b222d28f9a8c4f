//! What a scan says of itself in EXPLAIN.

use pgrx::pg_sys;
use std::ffi::CString;

/// EXPLAIN's output.
pub struct Explain(pub(super) *mut pg_sys::ExplainState);

impl Explain {
    /// Adds a property with a text.
    pub fn text(&mut self, label: &str, value: &str) {
        let (Ok(label), Ok(value)) = (CString::new(label), CString::new(value)) else { return };
        // SAFETY: EXPLAIN's live state; the texts are copied.
        unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), self.0) };
    }

    /// Adds a property with a text of several lines.
    pub fn lines(&mut self, label: &str, lines: &[String]) {
        // SAFETY: EXPLAIN's live state.
        let (format, indent) = unsafe { ((*self.0).format, (*self.0).indent) };
        if format != pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT {
            return self.text(label, &lines.join("\n"));
        }
        let indent = " ".repeat(usize::try_from(indent).unwrap_or(0) * 2 + 2);
        let text: String = lines.iter().map(|line| format!("\n{indent}{line}")).collect();
        self.text(label, &text);
    }

    /// The options that a worker's EXPLAIN is to have for the same picture; `may_execute` allows ANALYZE.
    pub fn options(&self, may_execute: bool) -> String {
        // SAFETY: EXPLAIN's live state.
        let state = unsafe { &*self.0 };
        let mut options = vec![format!("COSTS {}", state.costs)];
        if state.analyze && may_execute {
            options.push("ANALYZE".to_owned());
            options.push(format!("BUFFERS {}", state.buffers));
            options.push(format!("TIMING {}", state.timing));
            options.push(format!("SUMMARY {}", state.summary));
        }
        options.join(", ")
    }

    /// EXPLAIN (VERBOSE).
    pub fn is_verbose(&self) -> bool {
        // SAFETY: EXPLAIN's live state.
        unsafe { (*self.0).verbose }
    }
}
