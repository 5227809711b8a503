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
    /// Whether it is said of the future, and of the last scan alone: a forecast that no longer holds is no
    /// finding.
    pub is_forecast: bool,
    /// How much there is of it, in the rule's own unit: of two moments at which it is equally bad, the
    /// one with more was worse.
    pub amount: u64,
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
    /// What it is; empty where the command says it.
    pub what: String,
    /// A command that does it, to be pasted into a shell.
    pub command: Option<String>,
    /// What it costs or risks.
    pub cost: &'static str,
}

impl Help {
    /// `what`, at this `cost`.
    pub fn new(what: impl Into<String>, cost: &'static str) -> Self {
        Self { what: what.into(), command: None, cost }
    }

    /// What `command` does, at this `cost`.
    pub fn command(command: String, cost: &'static str) -> Self {
        Self { what: String::new(), command: Some(command), cost }
    }

    /// The same, and the command that does it.
    #[must_use]
    pub fn by(self, command: String) -> Self {
        Self { command: Some(command), ..self }
    }

    /// All of it in one line of text.
    pub fn words(&self) -> String {
        match &self.command {
            Some(command) if self.what.is_empty() => command.clone(),
            Some(command) => format!("{}: {command}", self.what),
            None => self.what.clone(),
        }
    }
}

/// When something was found. All are `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// The beginning of the window in which it was found first.
    pub began_ns: u64,
    /// When it was worst: [`About`] is of that moment.
    pub worst_ns: u64,
    /// When it was found for the last time, if it was not found at the last look any more.
    pub over_ns: Option<u64>,
}

impl When {
    /// Seconds by which two scans may be off what they were asked for.
    const SLACK_NS: u64 = 1_500_000_000;

    /// When it was found, in words, where that says more than that it was in all of `window`: from when
    /// to when was watched. Moments are written by `moment`.
    pub fn words(
        &self,
        window: (u64, u64),
        mut moment: impl FnMut(u64) -> String,
    ) -> Option<String> {
        let began_late = self.began_ns > window.0.saturating_add(Self::SLACK_NS);
        let was_worse = self.worst_ns.saturating_add(Self::SLACK_NS) < window.1;
        if !began_late && !was_worse && self.over_ns.is_none() {
            return None;
        }
        let mut words = match self.over_ns {
            Some(over_ns) => {
                format!("over: from {} to {}", moment(self.began_ns), moment(over_ns))
            }
            None => format!("since {}", moment(self.began_ns)),
        };
        if was_worse {
            words += &format!("; this is of {}, when it was worst", moment(self.worst_ns));
        }
        Some(words)
    }
}

/// What a rule found, where, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Its name, if it has one, escaped.
    pub netns_name: Option<Box<str>>,
    /// What it is called in a text.
    pub called: String,
    /// What is to be said: of when it was worst.
    pub about: About,
    /// When it was found.
    pub when: When,
}
