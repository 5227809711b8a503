//! Where a command's inputs come from: this host, or a recording.
//!
//! Whatever is wrong with the arguments is found here, before anything is opened or attached.

use anyhow::Result;

use super::{
    args::{FilterArgs, ProbeArgs, ReadArgs, RecordingArgs},
    options::{self, only, options},
    signals::OnHangup,
    usage::Usage,
};
use tcptrace_host::netns::Netns;
use tcptrace_model::filter::Filter;
use tcptrace_probe::{Options, Probe};
use tcptrace_record::NewFile;
use tcptrace_source::{
    helper::Helper,
    owners::Owners,
    recording::{Recording, Stretch},
    snapshot::Scope,
};

/// Where inputs come from.
pub(super) enum Origin {
    /// The running kernel.
    Host(Box<Host>),
    /// What was recorded.
    Recording(Box<Recording>),
}

/// How to listen to this host.
pub(super) struct Host {
    /// What to attach.
    pub(super) options: Options,
    /// The only namespace whose tables are read.
    pub(super) only: Option<Netns>,
    /// Where to record it too.
    pub(super) save: Option<NewFile>,
    /// Try the hooks first.
    pub(super) self_test: bool,
    /// Who reads the tables in place of this process.
    pub(super) helper: Option<Helper>,
    /// Done once the hooks are on, before anything is read from them.
    pub(super) attached: Option<Attached>,
    /// What SIGHUP does in place of ending the run.
    pub(super) on_hangup: Option<OnHangup>,
}

/// What a command does once its hooks are on.
pub(super) type Attached = Box<dyn FnOnce(&Probe) -> Result<()>>;

impl Origin {
    /// Where the arguments say.
    ///
    /// # Errors
    /// [`Usage`] for what was mistyped; else what the host refused.
    pub(super) fn new(
        probe: &ProbeArgs,
        filter: &FilterArgs,
        recording: &RecordingArgs,
    ) -> Result<Self> {
        Self::with(self::filter(filter, &recording.from)?, probe, filter, recording)
    }

    /// The same, keeping what `kept` says instead of what the arguments do.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn with(
        kept: Filter,
        probe: &ProbeArgs,
        filter: &FilterArgs,
        recording: &RecordingArgs,
    ) -> Result<Self> {
        if !recording.from.read.is_empty() {
            return Ok(Self::Recording(Box::new(open(kept, &recording.from)?)));
        }
        let options = Options { filter: kept, ..options(probe, filter)? };
        let save = match &recording.save {
            Some(path) => Some(NewFile::open(path, recording.force, None)?),
            None => None,
        };
        let self_test = !probe.no_self_test;
        let only = only(filter)?;
        Ok(Self::Host(Box::new(Host {
            options,
            only,
            save,
            self_test,
            helper: None,
            attached: None,
            on_hangup: None,
        })))
    }

    /// Whether what is asked for `once` is the end of a recording, which is then said.
    pub(super) fn at_end(&mut self, once: bool) -> bool {
        match self {
            Self::Recording(recording) if once => {
                recording.say_end();
                true
            }
            _ => false,
        }
    }

    /// With `at_once`, one look at the tables of this host in place of listening to it.
    ///
    /// # Errors
    /// [`Usage`]: that look is to be recorded.
    pub(super) fn look(self, at_once: bool, owners: bool) -> Result<Look, Usage> {
        match self {
            Self::Host(host) if at_once && host.save.is_none() => {
                let owners = owners.then(Owners::default);
                let Host { options, only, .. } = *host;
                let filter = options.filter;
                Ok(Look::Now(Box::new(Scope { only, filter, owners, infos_of_all: false })))
            }
            Self::Host(_) if at_once => {
                let misuse = "--save: give an interval; one look at the tables is no recording";
                Err(Usage(misuse.to_owned()))
            }
            origin => Ok(Look::Along(origin)),
        }
    }
}

#[cfg(any(feature = "export", feature = "report"))]
/// What was recorded, for a command that reads nothing else.
///
/// # Errors
/// As [`Origin::new`].
pub(super) fn recorded(filter: &FilterArgs, from: &ReadArgs) -> Result<Recording> {
    if from.read.is_empty() {
        return Err(Usage("it reads a recording: give one with -r FILE".to_owned()).into());
    }
    open(self::filter(filter, from)?, from)
}

fn open(kept: Filter, from: &ReadArgs) -> Result<Recording> {
    let stretch = Stretch { since: from.since, until: from.until };
    Ok(Recording::open(&from.read, kept, stretch)?)
}

/// How to answer what can be answered at once.
pub(super) enum Look {
    /// By one look at these tables.
    Now(Box<Scope>),
    /// By what goes on, or went on.
    Along(Origin),
}

/// What to keep.
///
/// # Errors
/// As [`Origin::new`].
pub(super) fn filter(args: &FilterArgs, from: &ReadArgs) -> Result<Filter> {
    filter_of(args, !from.read.is_empty())
}

/// What to keep of this host, or of a recording.
///
/// # Errors
/// As [`Origin::new`].
pub(super) fn filter_of(args: &FilterArgs, of_recording: bool) -> Result<Filter> {
    if !of_recording {
        return options::filter(args);
    }
    // Names and processes are those of the host that was recorded, which this one need not be.
    let netns = args.netns.as_deref().map(|text| {
        text.parse().map_err(|_| {
            Usage(format!(
                "-N {}: with -r a namespace is told by its inode number",
                text.escape_default()
            ))
        })
    });
    Ok(options::filter_with(args, netns.transpose()?))
}
