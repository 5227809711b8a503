//! `tcptrace doctor`: what the sysctls of a host mean for what is happening on it.
//!
//! Pure: facts are gathered from inputs and changes ([`collect`]), each rule is a function of them
//! ([`rules`]) that is asked again and again ([`watch`]), and so is what is said of a sysctl ([`sysctls`]) and of a line of a sysctl file
//! ([`sysctl_file`]). How it is shown is not decided here.

pub mod collect;
pub mod facts;
pub mod finding;
pub mod rules;
pub mod sysctl_file;
pub mod sysctls;
pub mod watch;

use finding::{Finding, Severity};

/// What all rules say of a host.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// Rules that found nothing wrong in any namespace.
    pub fine: Vec<&'static str>,
    /// Rules that could not look, the namespace, and why.
    pub unseen: Vec<(&'static str, u32, String)>,
    /// From when to when was watched: `CLOCK_MONOTONIC`, nanoseconds.
    pub window: (u64, u64),
}

impl Diagnosis {
    /// That of the worst finding.
    pub fn severity(&self) -> Severity {
        self.findings.first().map_or(Severity::Ok, |worst| worst.about.severity)
    }
}
