//! What `doctor` advises, applied as it is written, and the symptom watched until it is gone. (What
//! else its texts claim of sysctls is held to the kernel in `sysctls`.)

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    doctor::{diagnose, open},
    net::{Netns, sysctl as set},
    scenario::{
        conn::{Family, Listener, expect_end},
        ending::deafen,
    },
    wait::until,
    witness::{Counters, State, count},
};

/// Sets what the finding of `rule` advises for the sysctl `name`, in the namespace of the calling thread:
/// the advice has to be a command that can be pasted, and nothing else.
fn apply(report: &Value, rule: &str, name: &str) -> Result<()> {
    let findings = report["findings"].as_array().context("no findings")?;
    let finding = findings.iter().find(|finding| finding["rule"] == rule);
    let finding = finding.with_context(|| format!("no {rule}: {findings:?}"))?;
    let helps = finding["helps"].as_array().context("no helps")?;
    let commands =
        helps.iter().filter_map(|help| help["what"].as_str()?.strip_prefix("sysctl -w "));
    for command in commands {
        let (key, value) = command.split_once('=').with_context(|| command.to_owned())?;
        if key == name {
            let bare = value.trim_matches('"');
            ensure!(!bare.contains(['"', ',', ';']), "not one command: {command}");
            let quoted = value.starts_with('"') && value.ends_with('"');
            ensure!(quoted || !bare.contains(' '), "a shell takes that apart: {command}");
            return set(&key.replace('.', "/"), bare);
        }
    }
    bail!("{rule} does not advise {name}: {helps:?}")
}

fn in_front_of_20_ports() -> Result<(Netns, Listener)> {
    let netns = Netns::new()?;
    let listener = netns.run(|| -> Result<_> {
        set("net/ipv4/ip_local_port_range", "20000 20019")?;
        // The kernel's default is 2 (loopback), which would help by itself here.
        set("net/ipv4/tcp_tw_reuse", "0")?;
        Listener::open(Family::V4, 5000)
    })?;
    Ok((netns, listener))
}

fn connects(listener: &Listener) -> Result<bool> {
    match listener.family.socket()?.connect(&listener.address.into()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_wider_port_range_lets_connect_find_one() -> Result<()> {
    let (netns, listener) = in_front_of_20_ports()?;
    let mut kept = Vec::new();
    let report = diagnose(&netns, || {
        kept = open(&listener, 20)?;
        ensure!(!connects(&listener)?, "a port was left");
        Ok(())
    })?;
    netns.run(|| {
        ensure!(!connects(&listener)?, "a port was left before the advice was followed");
        apply(&report, "ports", "net.ipv4.ip_local_port_range")?;
        ensure!(connects(&listener)?, "still no port");
        Ok(())
    })
}

#[test]
fn tcp_tw_reuse_gives_ports_of_time_waits_back() -> Result<()> {
    let (netns, listener) = in_front_of_20_ports()?;
    let report = diagnose(&netns, || {
        for connection in open(&listener, 20)? {
            connection.close_by_client()?;
        }
        ensure!(!connects(&listener)?, "a port was left");
        Ok(())
    })?;
    netns.run(|| {
        ensure!(!connects(&listener)?, "a port was left before the advice was followed");
        apply(&report, "ports", "net.ipv4.tcp_tw_reuse")?;
        until("a port", || Ok(connects(&listener)?.then_some(())))
    })
}

#[test]
fn more_tw_buckets_keep_every_time_wait() -> Result<()> {
    const OVERFLOW: &str = "TcpExt:TCPTimeWaitOverflow";
    let netns = Netns::new()?;
    let listener = netns.run(|| -> Result<_> {
        set("net/ipv4/tcp_max_tw_buckets", "1")?;
        Listener::open(Family::V4, 5000)
    })?;
    let close = |count: usize| -> Result<i64> {
        let before = Counters::read()?;
        for connection in open(&listener, count)? {
            drop(connection.client);
            expect_end(&connection.server)?;
        }
        before.growth(OVERFLOW)
    };
    let report = diagnose(&netns, || {
        ensure!(close(6)? > 0, "there was room");
        Ok(())
    })?;
    netns.run(|| {
        apply(&report, "tw-overflow", "net.ipv4.tcp_max_tw_buckets")?;
        ensure!(close(6)? == 0, "still no room");
        Ok(())
    })
}

#[test]
fn fewer_orphan_retries_end_orphans_that_nobody_acknowledges() -> Result<()> {
    // "Some 6 s" after the last try began: the timers of those that are there count too.
    const SOON: Duration = Duration::from_secs(30);
    let netns = Netns::new()?;
    let listener = netns.run(|| Listener::open(Family::V4, 5000))?;
    let mut deaf = Vec::new();
    let report = diagnose(&netns, || {
        for connection in open(&listener, 12)? {
            deafen(&connection.server)?;
            drop(connection.client);
            deaf.push(connection.server);
        }
        Ok(())
    })?;
    netns.run(|| {
        ensure!(count(State::FinWait1)? == 12, "they were given up before the advice was followed");
        apply(&report, "unacked-fin", "net.ipv4.tcp_orphan_retries")?;
        let began = Instant::now();
        while count(State::FinWait1)? > 0 {
            ensure!(began.elapsed() < SOON, "{} are still there", count(State::FinWait1)?);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })
}
