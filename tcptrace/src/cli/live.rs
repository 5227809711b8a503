//! `tcptrace live`.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Usage,
    args::{ColorChoice, FilterArgs, LiveArgs, OutputFormat, ProbeArgs},
    log::{ToStderr, say},
};
use crate::{
    model::{Accounts, StateSet, filter::Filter},
    output::Output,
    pipeline::{self, Analysis, Ended},
    probe::{self, Options},
    source::live::Live,
    track::Tracker,
    view::live::{Columns, Format, LiveView, Selection},
};

pub(super) fn run(args: LiveArgs) -> Result<ExitCode> {
    let options = options(&args.probe, &args.filter)?;
    let (to, name): (Box<dyn Write + Send>, String) = match &args.out {
        Some(path) => {
            let file = File::create(path)
                .with_context(|| format!("cannot write to {}", path.display()))?;
            (Box::new(file), path.display().to_string())
        }
        None => (Box::new(io::stdout()), "stdout".to_owned()),
    };
    let view = LiveView::new(format(&args), selection(&args));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before the hooks: a Ctrl-C at any moment from here on ends in order.
        let mut signals = Signals::install().context("cannot catch signals")?;
        let mut live = Live::start(&options)?;
        let mut kernel_log = options
            .kernel_log
            .then(|| EbpfLogger::init_with_logger(live.probe().ebpf(), ToStderr))
            .transpose()
            .context("cannot open the kernel side's log")?;
        announce(&mut live, options.backend.is_none());
        let mut analysis = Analysis::new(Tracker::default(), view);
        let output = Output::new(to).context("cannot start the writer")?;
        let stop = async {
            match args.duration {
                Some(duration) => tokio::select! {
                    () = signals.any() => {}
                    () = tokio::time::sleep(duration) => {}
                },
                None => signals.any().await,
            }
        };
        let ended = pipeline::run_live(&mut live, &mut analysis, &output, stop, |_| {
            if let Some(log) = &mut kernel_log {
                log.flush();
            }
        })
        .await?;
        summary(&ended, &analysis);
        // Whoever reads our output may have stopped; a second signal leaves all the same.
        let finish = tokio::task::spawn_blocking(move || output.finish());
        tokio::select! {
            written = finish => {
                written
                    .context("the writer failed")?
                    .map_err(|error| anyhow::anyhow!(pipeline::describe_output_error(&error, &name)))?;
                Ok(ExitCode::SUCCESS)
            }
            () = signals.any() => {
                say("interrupted again: what was still to be written is not");
                std::process::exit(130)
            }
        }
    })
}

/// The signals that ask for an end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

fn options(probe: &ProbeArgs, filter: &FilterArgs) -> Result<Options> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096);
    let ring_bytes = probe::parse_ring_size(&probe.ring_size, page).map_err(|error| {
        Usage(format!("--ring-size {}: {error}", probe.ring_size.escape_default()))
    })?;
    Ok(Options {
        backend: probe.hook.0,
        ring_bytes,
        filter: build_filter(filter)?,
        kernel_log: probe.verbose,
        time_wait: probe.time_wait_hook,
    })
}

fn build_filter(args: &FilterArgs) -> Result<Filter> {
    let netns = match &args.netns {
        None => None,
        Some(word) => Some(
            word.parse()
                .map_err(|_| Usage(format!("-N {}: not an inode", word.escape_default())))?,
        ),
    };
    Ok(Filter {
        v4: args.ipv4,
        v6: args.ipv6,
        lports: args.localport.clone(),
        rports: args.remoteport.clone(),
        netns,
        nets: args.net.clone(),
    })
}

fn format(args: &LiveArgs) -> Format {
    match args.output {
        _ if args.csv => Format::Csv,
        OutputFormat::Csv => Format::Csv,
        OutputFormat::Json => Format::Json,
        OutputFormat::Table => Format::Table(Columns {
            wide: args.wide,
            time: args.time,
            timestamp: args.timestamp,
            color: match args.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => {
                    // https://no-color.org: set and not empty.
                    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                    args.out.is_none() && !no_color && io::stdout().is_terminal()
                }
            },
        }),
    }
}

fn selection(args: &LiveArgs) -> Selection {
    let states = match args.state.as_slice() {
        [] => StateSet::all(),
        some => some.iter().fold(StateSet::EMPTY, |all, &one| all.union(one)),
    };
    Selection { states, rate_limit: args.rate_limit, count: args.count, header: !args.no_header }
}

/// Says how it listens, and what that costs in truth when it is not the best way.
fn announce(live: &mut Live, fell_back: bool) {
    let probe = live.probe();
    if fell_back {
        for refusal in probe.refusals() {
            say(&format!("not by {refusal}"));
        }
    }
    let lacking = match probe.backend() {
        probe::Backend::TpBtf if probe.cookies() => "",
        probe::Backend::TpBtf => "; socket cookies are not observable",
        probe::Backend::Tracepoint => {
            "; namespace, error, SO_LINGER, cgroup and cookie are not observable"
        }
    };
    say(&format!("listening by {}{lacking}; Ctrl-C ends", probe.backend()));
}

fn summary(ended: &Ended, analysis: &Analysis<LiveView>) {
    let Accounts { seconds, seen, delivered, filtered, lost, .. } = ended.accounts;
    let missed = match ended.accounts.missed {
        Some(missed) => format!("{missed} missed"),
        None => "missed not observable (before 5.12)".to_owned(),
    };
    say(&format!(
        "{seconds:.1} s: {seen} transitions seen, {delivered} delivered, {filtered} filtered, \
         {lost} lost, {missed}"
    ));
    if ended.accounts.balance() != 0 {
        say(&format!("the account is open by {}: please report it", ended.accounts.balance()));
    }
    if ended.accounts.malformed > 0 {
        say(&format!("{} records could not be understood", ended.accounts.malformed));
    }
    if lost > 0 {
        say("lost to a full ring: take a larger --ring-size, or filter");
    }
    if analysis.view().left_out() > 0 {
        say(&format!("{} left out by --rate-limit", analysis.view().left_out()));
    }
    let counts = analysis.tracker().counts();
    if counts.anomalies > 0 {
        say(&format!("{} transitions did not follow from what was known", counts.anomalies));
    }
    if counts.evicted > 0 {
        say(&format!("{} sockets forgotten to bound memory", counts.evicted));
    }
}
