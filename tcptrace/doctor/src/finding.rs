//! What a rule says.

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing to say.
    Ok,
    /// Good to know.
    Info,
    /// It costs something, or soon will.
    Warning,
    /// Connections fail or are lost now.
    Critical,
}

impl Severity {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What one rule says of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It looked, and all is well.
    Fine,
    /// What is to be said.
    Found(About),
    /// It could not look: why.
    Unseen(String),
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// How bad it is.
    pub severity: Severity,
    /// What is seen, with the numbers of this host. Names in it are escaped.
    pub seen: String,
    /// By what mechanism.
    pub why: &'static str,
    /// What can be done, the best first.
    pub helps: Vec<Help>,
    /// What is often advised and does not help, and why not.
    pub useless: &'static [&'static str],
    /// Where the kernel's own documentation speaks of it.
    pub docs: &'static str,
}

/// Something that helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Help {
    /// A command, or a change of the program.
    pub what: String,
    /// What it costs or risks.
    pub cost: &'static str,
}

impl Help {
    /// `what`, at this `cost`.
    pub fn new(what: impl Into<String>, cost: &'static str) -> Self {
        Self { what: what.into(), cost }
    }
}

/// What a rule found, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// Inode of the network namespace.
    pub netns: u32,
    /// What is to be said.
    pub about: About,
}
