//! The user side of the floor program (`tcptrace-ebpf/src/bin/floor.rs`): a reader that only
//! drains. Once every 10 ms it walks over what is in the ring, and counts it.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData, PerCpuArray, RingBuf},
    programs::BtfTracePoint,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use serde::{Deserialize, Serialize};
use tcptrace_common::record::Transition;

/// Made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = include_bytes_aligned!("../../../bpf/floor.bpf.o");

/// How long the reader sleeps, in milliseconds.
const TICK_MS: u8 = 10;

/// Trace with the floor program until SIGINT or SIGTERM, and say how many records came.
#[derive(clap::Args)]
pub struct Args {
    /// Bytes of the ring: a power of two, and a multiple of the page size
    #[arg(long, default_value_t = 8 << 20)]
    ring_size: u32,
}

/// What came through the ring. One JSON object on stdout.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Records read.
    pub delivered: u64,
    /// Events for which the ring was full.
    pub lost: u64,
}

/// Traces until told to stop and prints the [`Report`].
pub fn main(args: &Args) -> Result<()> {
    let stop = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    stop.thread_block()?;
    let stopped = SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC)?;

    let mut ebpf = load(args.ring_size)?;
    let mut ring = RingBuf::try_from(take_map(&mut ebpf, "RING")?)?;
    let lost = PerCpuArray::<MapData, u64>::try_from(take_map(&mut ebpf, "LOST")?)?;
    let program = program(&mut ebpf)?;
    let link = program.attach().context("cannot attach to inet_sock_set_state")?;

    let mut delivered = 0;
    let mut told = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
    while poll(&mut told, PollTimeout::from(TICK_MS))? == 0 {
        delivered += drain(&mut ring)?;
    }
    program.detach(link)?;
    delivered += drain(&mut ring)?;

    let report = Report { delivered, lost: lost.get(&0, 0)?.iter().sum() };
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// The parsed BTF of a kernel takes some 24 MiB; it is gone before the ring is mapped.
fn load(ring_size: u32) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("RING", ring_size)
        .load(OBJECT)
        .context("cannot load the floor program")?;
    let btf = Btf::from_sys_fs().context("the floor program needs the kernel's BTF")?;
    program(&mut ebpf)?
        .load("inet_sock_set_state", &btf)
        .context("the kernel refuses the floor program")?;
    Ok(ebpf)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut BtfTracePoint> {
    let program = ebpf.program_mut("floor").context("no program floor in its object")?;
    Ok(program.try_into()?)
}

fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("no map {name} in the floor program's object"))
}

fn drain(ring: &mut RingBuf<MapData>) -> Result<u64> {
    let mut count = 0;
    while let Some(record) = ring.next() {
        let length = record.len();
        ensure!(
            length == size_of::<Transition>(),
            "the floor program's record has {length} bytes, a Transition {}: it is out of date, \
             run cargo xtask build-ebpf",
            size_of::<Transition>(),
        );
        count += 1;
    }
    Ok(count)
}
