//! A list as it is shown: rows of text, and where Enter leads from each.

use tcptrace_model::TcpState;
use tcptrace_stats::{
    group::Key,
    ports::Path,
    stuck::{Cause, Whose},
};

/// How a piece of text is meant; what that looks like is the theme's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// Beside the point.
    Dim,
    /// The name of what follows.
    Head,
    Good,
    Warn,
    Bad,
}

/// Connections that have something in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// Of one owner with one service.
    Service(Key),
    /// In one state.
    State(TcpState),
    /// Of one owner in one state, for one cause.
    Stuck(TcpState, Cause, Whose),
    /// On one path.
    Path(Path),
}

/// What is behind a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// These connections.
    Among(Among),
    /// The connection with this id.
    Connection(u64),
    /// What a rule of the doctor says of a network namespace.
    Finding(&'static str, u32),
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) spans: Vec<(String, Tone)>,
    pub(super) goes: Option<Goes>,
    /// What is said below the list while it is on this row.
    pub(super) detail: Vec<String>,
}

impl Row {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { spans: vec![(text.into(), tone)], ..Self::default() }
    }

    pub(super) fn leading(mut self, to: Goes) -> Self {
        self.goes = Some(to);
        self
    }

    pub(super) fn and(mut self, text: impl Into<String>, tone: Tone) -> Self {
        self.spans.push((text.into(), tone));
        self
    }
}

/// A list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Listing {
    /// What the columns are.
    pub(super) head: String,
    pub(super) rows: Vec<Row>,
    /// What is to be said of it as a whole.
    pub(super) notes: Vec<String>,
}

/// At most `most` of `all`, and how many were left out.
pub(super) fn cut<T>(all: &mut Vec<T>, most: usize) -> usize {
    let more = all.len().saturating_sub(most);
    all.truncate(most);
    more
}
