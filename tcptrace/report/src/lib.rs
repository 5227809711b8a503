//! `tcptrace report`: an incident on one page.
//!
//! A view like the others: it gathers facts from changes and inputs, and at the end writes the page.
//! `facts` are plain values, `figures` says what is plotted of them, `chart` draws that and `html`
//! is the page. `recent` has the facts of a host that runs, of which `serve` shows the same page. Must
//! not conclude anything that
//! the other views do not.

mod chart;
pub mod facts;
mod figures;
mod gather;
mod html;
mod recent;
mod timeline;

use bytes::{BufMut as _, BytesMut};

pub use gather::Gather;
pub use html::page;
pub use recent::{Looked, Recent};

use tcptrace_model::{Change, Input};
use tcptrace_record::Header;
use tcptrace_track::Tracker;
use tcptrace_view::View;

/// The view.
pub struct ReportView {
    gather: Gather,
    written: bool,
}

impl ReportView {
    /// A view of a recording with this `header`.
    pub fn new(header: Header) -> Self {
        Self { gather: Gather::new(header), written: false }
    }

    /// Whether the page was written.
    pub fn written(&self) -> bool {
        self.written
    }
}

impl View for ReportView {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.gather.input(input, tracker);
        if let Input::End(accounts) = input {
            let facts = self.gather.facts(accounts, tracker);
            out.put_slice(html::page(&facts).as_bytes());
            self.written = true;
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.gather.change(change);
    }

    fn is_done(&self) -> bool {
        self.written
    }
}
