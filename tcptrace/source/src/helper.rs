//! The helper process: it alone can enter network namespaces and look at the files of other
//! processes, so it reads the socket tables; the process that reads the ring and answers asks it.
//!
//! ```text
//!  tcptrace serve                         tcptrace-tables (forked before anything else is opened)
//!  ──────────────                         ──────────────
//!  reconcile ── Order ──► Link ══ socket ══► serve ──► tables: sock_diag, sysctls, owners
//!            ◄─ Round ──       ◄══ pieces ══
//!  cgroups ──── id ─────► Names ═ socket ══► serve ──► host/cgroup      (a thread of its own, so
//!            ◄─ path ──        ◄══════════              that a name does not wait for a dump)
//! ```
//! What passes between them is bounded (`helper/wire`). It cannot be started again, since who would
//! start it has given up the rights for it. Must not hold the ring, the listeners or the output.

mod link;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::{ffi::CStr, io, os::unix::net::UnixStream, sync::Arc};

pub use link::{Link, Names, Tally};

use super::{
    owners::Owners,
    tables::{Scope, Tables},
};
use tcptrace_host::{child::Child, netns::Netns};
use tcptrace_model::filter::Filter;

/// What `ps -e` and `top` show.
const NAME: &CStr = c"tcptrace-tables";

/// The helper process, which ends with this.
#[derive(Debug)]
pub struct Helper {
    child: Arc<Child>,
    link: Option<Link>,
    names: Option<Names>,
    tally: Arc<Tally>,
}

impl Helper {
    /// Starts it, to read the tables of `only`, or of every namespace, and keep what `filter` does.
    /// It keeps the right to enter namespaces if these are `elsewhere` than here.
    ///
    /// To be called before there are other threads, and before anything is opened that is none of
    /// its business.
    ///
    /// # Errors
    /// There are other threads, or the kernel refuses.
    pub fn start(only: Option<Netns>, filter: Filter, elsewhere: bool) -> io::Result<Self> {
        let is_of_one = only.is_some();
        let scope = Scope { only, filter, owners: Some(Owners::default()), infos_of_all: false };
        let (tables, asked) = UnixStream::pair()?;
        let (names, asked_names) = UnixStream::pair()?;
        let child = Child::start(NAME, [asked, asked_names], |[asked, asked_names]| {
            serve::run(Tables::new(scope), elsewhere, asked, asked_names);
        })?;
        let child = Arc::new(child);
        let tally = Arc::new(Tally::default());
        let link = Link::new(tables, Arc::clone(&child), Arc::clone(&tally), is_of_one)?;
        Ok(Self { child, link: Some(link), names: Some(Names::new(names)?), tally })
    }

    /// Who reads the tables, the first time that it is asked for.
    pub(super) fn take_link(&mut self) -> Option<Link> {
        self.link.take()
    }

    /// Who finds the names of cgroups, the first time that it is asked for.
    pub(super) fn take_names(&mut self) -> Option<Names> {
        self.names.take()
    }

    /// What it uses, and whether it lives.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}

impl Drop for Helper {
    /// A thread may be waiting for an answer: it gets none then.
    fn drop(&mut self) {
        self.child.end();
    }
}
