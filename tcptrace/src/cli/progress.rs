//! How far reading a recording has come, for whom it takes more than a second.
//!
//! Where stderr is no terminal, or lines of the view come on the same one, nothing is shown.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less is not worth a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar on stderr. Dropping it takes it away.
pub(super) struct Progress {
    start: Instant,
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// One that appears when it has taken so long; never unless `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        Self { start: Instant::now(), wanted, bar: None }
    }

    /// So many bytes of so many have been read.
    pub(super) fn at(&mut self, bytes: u64, of: u64) {
        if !self.wanted || self.bar.is_none() && self.start.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            // Hides itself where stderr is no terminal.
            let bar = ProgressBar::with_draw_target(Some(of), ProgressDrawTarget::stderr());
            let style = "{bar:30} {percent:>3} % of {total_bytes}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            // The rate is of the whole, not of what came since the bar appeared.
            bar.with_elapsed(self.start.elapsed())
        });
        bar.set_length(of);
        bar.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
