//! One finding of `tcptrace check`.

use serde::Serialize;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it belongs to.
    pub topic: Topic,
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, or what the kernel answered.
    pub found: String,
    /// What that buys, costs, or asks to be done; `None` where nothing follows.
    pub means: Option<String>,
}

/// What a finding belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// What the kernel has.
    Kernel,
    /// What this process may do.
    Privileges,
    /// What could be attached.
    Hooks,
    /// What the traces will tell, by the best hook that attaches.
    Truth,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not there, which costs something or may.
    Lacks,
    /// Tried, and the kernel refused.
    Refused,
    /// Cannot be told.
    Unknown,
}

impl Verdict {
    /// The word for it in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lacks => "lacks",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl Row {
    pub(super) fn new(
        topic: Topic,
        name: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
    ) -> Self {
        Self { topic, name: name.into(), verdict, found: found.into(), means: None }
    }

    pub(super) fn means(mut self, text: impl Into<String>) -> Self {
        self.means = Some(text.into());
        self
    }
}
