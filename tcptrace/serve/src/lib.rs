//! `tcptrace serve`: what the analysis knows, kept for those who ask for it by HTTP.
//!
//! ```text
//!  pipeline ── Input, Change ──► book ── Figures, once a second ──► shelf ──► http (a thread)
//!  (the ring's thread)           a View, pure                       a pointer   /metrics /api …
//!                                                               └─────────► otlp (a thread)
//! ```
//! The book is fed as every view is, and is as pure. What it publishes is complete in itself, so
//! whoever asks, and however many do, nothing of the tracing thread's is touched: it swaps a
//! pointer once a second and waits for nobody.

pub mod book;
mod families;
mod figures;
pub mod http;
mod labels;
mod metrics;
pub mod otlp;
mod pages;
mod routes;
mod seats;
mod secrets;
mod shelf;
mod tally;
mod text;
mod tls;
mod token;
mod trouble;

pub use figures::{Attached, Figures, HookBy};
pub use http::{Limits, Listeners, Server};
pub use labels::LabelOptions;
pub use secrets::{SecretFiles, Secrets, SecretsError};
pub use shelf::Shelf;
pub use tls::{TlsError, tls_to};
pub use token::{Token, TokenError};

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::{Figures, LabelOptions, Shelf, book::Book, families::Moment};
    use tcptrace_doctor::collect::Setup;
    use tcptrace_host::own::OwnUse;
    use tcptrace_model::script;
    use tcptrace_pipeline::Analysis;
    use tcptrace_track::Tracker;

    /// A host where all is known.
    pub(super) fn begun() -> &'static str {
        "0ms begin\n1ms snapshot open\n1ms snapshot 5\n1ms snapshot end\n1ms snapshot over\n2ms tick\n"
    }

    pub(super) fn shelf_with(text: &str, label: Option<LabelOptions>) -> Arc<Shelf> {
        let shelf = Shelf::new();
        let setup = Setup {
            defaults: Err("not asked".into()),
            files: Vec::new(),
            events: Ok(()),
            own_netns: None,
        };
        let book = Book::new(Arc::clone(&shelf), label, Duration::from_secs(10), setup);
        let mut analysis = Analysis::new(Tracker::default(), book);
        script::inputs(text).unwrap().iter().for_each(|input| analysis.feed(input));
        shelf
    }

    pub(super) fn shelf(text: &str) -> Arc<Shelf> {
        shelf_with(text, None)
    }

    /// `figures` and nothing else.
    pub(super) fn moment(figures: Arc<Figures>) -> Moment {
        let own = OwnUse::default();
        Moment { figures, attached: None, own, pushes: None, export: None, helper: None }
    }

    /// What a book that was told `text` has published.
    pub(super) fn figures(text: &str) -> Arc<Figures> {
        shelf(text).take().unwrap()
    }
}
