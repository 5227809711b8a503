//! From arguments to what the kernel side is to do. Shared by every command that listens.
//!
//! Whatever is wrong with the arguments is found here, before anything is opened or attached.

use std::{io, sync::Once};

use anyhow::Result;

use super::{
    args::{FilterArgs, ProbeArgs, SelectArgs},
    log::say,
    usage::Usage,
};
use tcptrace_host::{
    cgroup,
    netns::{self, Netns},
};
use tcptrace_model::{
    Comm,
    filter::Filter,
    select::{HowSet, Wanted},
    task::escape,
};
use tcptrace_probe::{Backend, Options, ProbeError};

/// What to attach, from `probe` and `filter`.
///
/// # Errors
/// [`Usage`] for what was mistyped; else what the host refused when it was asked about a
/// namespace.
pub(super) fn options(probe: &ProbeArgs, filter: &FilterArgs) -> Result<Options> {
    let ring_bytes =
        tcptrace_probe::parse_ring_size(&probe.ring_size, tcptrace_probe::page_bytes().into())
            .map_err(|error| Usage(format!("--ring-size {}: {error}", probe.ring_size)))?;
    if filter.netns.is_some() && probe.hook.0 == Some(Backend::Tracepoint) {
        // The same as the probe would say, but this one is the user's own wish.
        let reason = "--hook tracepoint asked for".to_owned();
        return Err(Usage(ProbeError::NetnsUnseen { reason }.to_string()).into());
    }
    Ok(Options {
        backend: probe.hook.0,
        ring_bytes,
        filter: self::filter(filter)?,
        kernel_log: probe.verbose,
        time_wait: probe.time_wait_hook,
        accept: probe.accept_hook,
        trial: false,
    })
}

/// What to keep of what happens here.
///
/// # Errors
/// As [`options`].
pub(super) fn filter(args: &FilterArgs) -> Result<Filter> {
    let Some(netns) = only(args)? else { return Ok(filter_with(args, None)) };
    let cookie = netns.cookie();
    if let Some(line) = by_inode_alone(args.netns.as_deref().unwrap_or_default(), &cookie) {
        // Several parts of a command ask for the filter.
        static SAID: Once = Once::new();
        SAID.call_once(|| say(&line));
    }
    let netns_cookie = cookie.ok().flatten();
    Ok(Filter { netns_cookie, ..filter_with(args, Some(netns.id.inode)) })
}

/// What is to be said where the namespace that `-N` names has to be told by its inode, since its cookie
/// cannot be read: without the rights to enter it, and before 5.14.
fn by_inode_alone(name: &str, cookie: &io::Result<Option<u64>>) -> Option<String> {
    let why = match cookie {
        Ok(Some(_)) => return None,
        Ok(None) => "this kernel has no cookies of namespaces (5.14 has)".to_owned(),
        Err(error) => error.to_string(),
    };
    let name = escape(name.as_bytes());
    Some(format!(
        "-N {name} is matched by inode, which another namespace may get once {name} has ended: {why}"
    ))
}

/// What to keep, with this inode of the namespace that `-N` names.
pub(super) fn filter_with(args: &FilterArgs, netns: Option<u32>) -> Filter {
    Filter {
        v4: args.ipv4,
        v6: args.ipv6,
        lports: args.localport.clone(),
        rports: args.remoteport.clone(),
        netns,
        netns_cookie: None,
        nets: args.net.clone(),
    }
}

/// The namespace that `-N` names.
///
/// # Errors
/// As [`options`].
pub(super) fn only(args: &FilterArgs) -> Result<Option<Netns>> {
    let Some(text) = args.netns.as_deref() else { return Ok(None) };
    match netns::resolve(text) {
        Ok(netns) => Ok(Some(netns)),
        Err(error) if error.is_host() => Err(anyhow::anyhow!("-N {text}: {error}")),
        Err(error) => Err(Usage(format!("-N {text}: {error}")).into()),
    }
}

/// Which connections to show.
///
/// # Errors
/// As [`options`], of the cgroups.
pub(super) fn wanted(args: &SelectArgs) -> Result<Wanted> {
    Ok(Wanted {
        pids: args.pid.clone(),
        comms: args.comm.iter().map(|name| Comm::from(name.as_str())).collect(),
        uids: args.uid.clone(),
        cgroups: args.cgroup.iter().map(|text| cgroup_id(text)).collect::<Result<_>>()?,
        closed_by: args.closed_by.clone(),
        how: args.how.iter().copied().reduce(HowSet::union),
    })
}

fn cgroup_id(text: &str) -> Result<u64> {
    cgroup::resolve(text).map_err(|error| {
        let line = format!("--cgroup {}: {error}", escape(text.as_bytes()));
        if error.is_host() { anyhow::anyhow!(line) } else { Usage(line).into() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::HookChoice;
    use tcptrace_host::netns::NetnsId;
    use tcptrace_probe::{AcceptChoice, TimeWaitChoice};

    fn probe_args(hook: Option<Backend>, ring_size: &str) -> ProbeArgs {
        ProbeArgs {
            hook: HookChoice(hook),
            time_wait_hook: TimeWaitChoice::Auto,
            accept_hook: AcceptChoice::Auto,
            no_self_test: false,
            ring_size: ring_size.to_owned(),
            verbose: false,
        }
    }

    fn in_netns(netns: &str) -> FilterArgs {
        FilterArgs { netns: Some(netns.to_owned()), ..FilterArgs::default() }
    }

    #[test]
    fn a_namespace_that_is_told_by_its_inode_alone_is_said_to_be() {
        assert_eq!(by_inode_alone("web", &Ok(Some(7))), None);
        let old = by_inode_alone("web", &Ok(None)).unwrap();
        assert!(old.starts_with("-N web is matched by inode, ") && old.contains("5.14"), "{old}");
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let refused = by_inode_alone("\x1bweb", &Err(refused)).unwrap();
        assert!(refused.starts_with("-N \\x1bweb is") && refused.ends_with("denied"), "{refused}");
    }

    #[test]
    fn a_namespace_is_found_by_process_path_and_inode() {
        let inode = NetnsId::own().unwrap().inode;
        for netns in [&*std::process::id().to_string(), "/proc/self/ns/net", &inode.to_string()] {
            let options = options(&probe_args(None, "8M"), &in_netns(netns)).unwrap();
            assert_eq!(options.filter.netns, Some(inode), "{netns}");
        }
    }

    #[test]
    fn misuse_is_told_from_what_the_host_refuses() {
        let refusal = |probe: &ProbeArgs, filter: &FilterArgs| {
            let error = options(probe, filter).unwrap_err();
            (error.is::<Usage>(), error.to_string())
        };
        let auto = probe_args(None, "8M");
        let (misuse, text) = refusal(&auto, &in_netns("no-such"));
        assert!(misuse && text.starts_with("-N no-such: no network namespace"), "{text}");
        let (misuse, text) = refusal(&auto, &in_netns("/no/such"));
        assert!(!misuse && text.starts_with("-N /no/such: cannot look at"), "{text}");
        let (misuse, text) = refusal(&probe_args(None, "5000"), &FilterArgs::default());
        assert!(misuse && text.ends_with("the next one is 8192"), "{text}");
        let classic = probe_args(Some(Backend::Tracepoint), "8M");
        let (misuse, text) = refusal(&classic, &in_netns("/proc/self/ns/net"));
        assert!(misuse && text.contains("does not tell the namespace"), "{text}");
    }
}
