//! `tcptrace serve`.
//!
//! Whatever is wrong with addresses and files is found before anything is attached. The process
//! that reads the socket tables is started before anything else, see [`tcptrace_source::helper`].

mod export_dir;
mod otlp;
mod rights;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{Backlog, listen as set_backlog},
};
use tcptrace_common::counters::Hook;

use super::{
    args::{RecordingArgs, ServeArgs},
    doctor,
    header::header,
    listen::{self, Snapshots},
    log::say,
    origin::{Host, Origin},
    target::Target,
    usage::Usage,
};
use rights::{give_up, give_up_but_tracing, told};
use tcptrace_host::{confine, netns::NetnsId};
use tcptrace_probe::{Probe, TimeWaitChoice};
use tcptrace_record::Header;
use tcptrace_serve::{
    Attached, HookBy, LabelOptions, Limits, Listeners, SecretFiles, Secrets, Server, Shelf,
    book::Book, otlp::Pusher,
};
use tcptrace_source::helper::Helper;
use tcptrace_stats::group::By;

/// Where it listens unless told otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9718);

/// Connections that may wait to be accepted.
const QUEUE: i32 = 1024;

/// Groups with a label, at most.
const LABELS: u64 = 1000;

/// Starts the process that reads the tables of `host`.
fn helper(host: &Host) -> Result<Helper> {
    let own = NetnsId::own().ok();
    let elsewhere = host.only.as_ref().is_none_or(|only| Some(only.id) != own);
    Helper::start(host.only.clone(), host.options.filter.clone(), elsewhere).context(
        "cannot start the helper process that reads the socket tables (--no-sandbox does without, \
         and keeps all rights in one process)",
    )
}

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let label = label(args)?;
    if args.interval < Duration::from_secs(1) {
        return Err(Usage("--interval: at least 1s".to_owned()).into());
    }
    if args.probe.time_wait_hook == TimeWaitChoice::Off {
        let misuse = "--time-wait-hook off: TIME_WAIT is what it is about; leave it out";
        return Err(Usage(misuse.to_owned()).into());
    }
    let address = args.listen.or(args.unix.is_none().then_some(DEFAULT));
    if let Some(address) = address.filter(|address| !address.ip().is_loopback())
        && !args.allow_remote
    {
        let misuse = format!(
            "--listen {address}: not an address of loopback, so others may reach it: \
             --allow-remote allows that, best with --token-file and --tls-cert"
        );
        return Err(Usage(misuse).into());
    }
    if args.tls_cert.is_some() && address.is_none() {
        return Err(Usage("--tls-cert: is for --listen".to_owned()).into());
    }
    let mut origin = Origin::new(&args.probe, &args.filter, &RecordingArgs::default())?;
    let shelf = Shelf::new();
    let sandbox = !args.no_sandbox;
    if sandbox {
        told("new privileges are not ruled out", confine::no_new_privileges());
        // While there is one thread, and nothing is open that the helper must not hold.
        if let Origin::Host(host) = &mut origin {
            let helper = helper(host)?;
            shelf.help(helper.tally());
            host.helper = Some(helper);
        }
    }

    let token = args.token_file.clone();
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let open = token.is_none();
    let secrets = Secrets::read(SecretFiles { token, tls })?;
    let tcp = address.map(bind).transpose()?;
    let mut places: Vec<String> = Vec::new();
    if let Some(listener) = &tcp {
        let address = listener.local_addr().context("cannot tell where it listens")?;
        places.push(format!("{scheme}://{address}"));
        if !address.ip().is_loopback() && open {
            say(&format!("whoever reaches {address} may ask: there is no --token-file"));
        }
    }
    let unix = args.unix.as_deref().map(bind_unix).transpose()?;
    places.extend(unix.as_ref().map(|(_, path)| format!("unix:{}", path.0.display())));
    let listeners = Listeners { tcp, unix: unix.as_ref().map(|u| u.0.try_clone()).transpose()? };

    let push = otlp::push(&args.otlp)?;
    let export = export_dir::export_dir(&args.export)?;
    let prepare = move || {
        if sandbox {
            give_up(confine::only_answer);
        }
    };
    let limits = Limits::default().with_files(files());
    let server = Server::start(listeners, Arc::clone(&shelf), secrets, limits, prepare, say)
        .context("cannot start the HTTP thread")?;
    let pusher = push.map(|push| otlp::start(push, &shelf, sandbox)).transpose()?;
    let export = export.map(|to| export_dir::start(to, &shelf, sandbox)).transpose()?;
    let (exporter, stream, way) = match export {
        Some((exporter, stream, way)) => (Some(exporter), Some(stream), Some(way)),
        None => (None, None, None),
    };
    if let Origin::Host(host) = &mut origin {
        let shelf = Arc::clone(&shelf);
        let filter = host.options.filter.clone();
        host.on_hangup = Some(Box::new(server.reload()));
        host.attached = Some(Box::new(move |probe| {
            let header = header(probe, &filter)?;
            if sandbox {
                give_up_but_tracing(probe);
            }
            if let Some(way) = way {
                way.begin(header.clone());
            }
            shelf.attach(attached(probe, header));
            say(&format!("serving at {}", places.join(" and ")));
            Ok(())
        }));
    }
    let book = Book::new(shelf, label, args.interval, doctor::host_setup());
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    let ended = listen::run(origin, snapshots, Target::none(), None, (book, stream), |_| {});
    // Answers that are on their way, the last push and the last files take their time at once.
    server.stop();
    pusher.iter().for_each(Pusher::stop);
    let exported = exporter.map_or(Ok(()), |exporter| {
        exporter.finish().context("the last files of --export-dir are not closed")
    });
    let pushed = pusher.map_or(Ok(()), |pusher| pusher.finish().context("cannot push metrics"));
    let served = server.finish().context("cannot serve");
    ended.and_then(|code| served.and(pushed).and(exported).map(|()| code))
}

fn label(args: &ServeArgs) -> Result<Option<LabelOptions>, Usage> {
    let Some(by) = args.label else { return Ok(None) };
    if !matches!(by, By::Owner | By::Port | By::Unit) {
        let misuse = format!(
            "--label {}: owner, port or unit: of others there may be any number",
            by.name()
        );
        return Err(Usage(misuse));
    }
    if args.label_top > LABELS {
        return Err(Usage(format!("--label-top: at most {LABELS}")));
    }
    let top = usize::try_from(args.label_top).unwrap_or(usize::MAX);
    Ok(Some(LabelOptions { by, top }))
}

/// How many files this process may have open at a time, once raised to what connections may need.
/// A shell gives 1024 as a rule, and lets whoever needs more ask for it.
fn files() -> u64 {
    const WANTED: u64 = 4096;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let raised = soft.max(WANTED.min(hard));
    match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        set_backlog(&listener, Backlog::new(QUEUE)?)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another process listens there (ss -ltnp says which): give another --listen"
            }
            io::ErrorKind::AddrNotAvailable => "; this host has no such address (ip addr)",
            io::ErrorKind::PermissionDenied => {
                "; a port below ip_unprivileged_port_start (1024) takes CAP_NET_BIND_SERVICE: give \
                 another --listen"
            }
            _ => "",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}{hint}")
    })
}

/// The file of a Unix socket, which goes with the listener.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let context = || format!("cannot listen at {}", path.display());
    // What a killed run has left behind: a socket that nobody listens at.
    let left = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if left {
        fs::remove_file(path).with_context(context)?;
    }
    let listener = UnixListener::bind(path).with_context(context)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(context)?;
    set_backlog(&listener, Backlog::new(QUEUE).with_context(context)?).with_context(context)?;
    Ok((listener, file))
}

/// How the hooks are on, as metrics tell it.
fn attached(probe: &Probe, header: Header) -> Attached {
    let by = |hook, backend: Option<String>| HookBy { hook, backend };
    Attached {
        hooks: vec![
            by(Hook::SetState, Some(probe.backend().to_string())),
            by(Hook::TimeWait, probe.time_wait().map(|way| way.to_string())),
            by(Hook::Reset, probe.resets().is_ok().then(|| probe.backend().to_string())),
            by(Hook::Accept, probe.accept().map(|way| way.to_string())),
        ],
        header,
        missed_counted: probe.missed().is_some(),
    }
}
