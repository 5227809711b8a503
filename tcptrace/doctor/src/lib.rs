//! `tcptrace doctor`: what the sysctls of a host mean for what is happening on it.
//!
//! Pure: facts are gathered from inputs and changes ([`collect`]), each rule is a function of them
//! ([`rules`]), and so is what is said of a sysctl ([`knobs`]) and of a line of a sysctl file
//! ([`sysctl_file`]). How it is shown is not decided here.

pub mod collect;
pub mod facts;
pub mod finding;
pub mod knobs;
pub mod rules;
pub mod sysctl_file;

use facts::HostFacts;
use finding::{Finding, Outcome, Severity};

/// What all rules say of a host.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// Rules that found nothing wrong in any namespace.
    pub fine: Vec<&'static str>,
    /// Rules that could not look, the namespace, and why.
    pub unseen: Vec<(&'static str, u32, String)>,
}

impl Diagnosis {
    /// Asks every rule about every namespace.
    pub fn of(host: &HostFacts) -> Self {
        let (mut findings, mut fine, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
        for (rule, ask) in rules::ALL {
            let mut all_fine = !host.spaces.is_empty();
            for space in &host.spaces {
                match ask(host, space) {
                    Outcome::Fine => continue,
                    Outcome::Found(about) => {
                        findings.push(Finding { rule, netns: space.netns, about });
                    }
                    Outcome::Unseen(why) => unseen.push((*rule, space.netns, why)),
                }
                all_fine = false;
            }
            if all_fine {
                fine.push(*rule);
            }
        }
        // Stable: within a severity in the order of the rules, and of the namespaces.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.about.severity));
        Self { findings, fine, unseen }
    }

    /// That of the worst finding.
    pub fn severity(&self) -> Severity {
        self.findings.first().map_or(Severity::Ok, |worst| worst.about.severity)
    }
}
