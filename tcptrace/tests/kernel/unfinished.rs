//! That nothing is said to be known while a record in the ring is begun and not finished: what is
//! behind it, of other CPUs too, has happened and cannot be read yet.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{Event, Input, filter::Filter},
    probe::{Backend, Options},
    source::live::Live,
};
use tcptrace_common::record::{self, RecordKind};

use crate::{checks::settle, trace::by, unsupported::Unsupported, wait::DEADLINE};

/// Records that are to be met half-way.
const MET: usize = 20;

/// A program writes the time into a record, calls a helper so often, and then finishes the record:
/// a millisecond or two. The verifier walks a million instructions, four for each call.
const CALLS: i32 = 50_000;

/// One instruction, `struct bpf_insn`.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    [code, registers, o0, o1, i0, i1, i2, i3]
}

/// Reserves a record of an accept in `ring`, and is slow to finish it.
fn dawdle(ring: i32) -> Vec<u8> {
    const LD_IMM64: u8 = 0x18;
    const ST_DW: u8 = 0x7a;
    const ST_B: u8 = 0x72;
    const STX_DW: u8 = 0x7b;
    const MOV: u8 = 0xb7;
    const MOV_REGISTER: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const JEQ: u8 = 0x15;
    const JLT: u8 = 0xa5;
    const MAP_FD: u8 = 1; // BPF_PSEUDO_MAP_FD
    const KTIME_GET_NS: i32 = 5;
    const RINGBUF_RESERVE: i32 = 131;
    const RINGBUF_SUBMIT: i32 = 132;
    const NO_WAKEUP: i32 = 1; // BPF_RB_NO_WAKEUP
    const SIZE: i16 = size_of::<record::Accept>() as i16;
    const TIME: i16 = offset_of!(record::Accept, mono_ns) as i16;

    let mut program = vec![
        instruction(LD_IMM64, 1, MAP_FD, 0, ring),
        instruction(0, 0, 0, 0, 0),
        instruction(MOV, 2, 0, 0, SIZE.into()),
        instruction(MOV, 3, 0, 0, 0),
        instruction(CALL, 0, 0, 0, RINGBUF_RESERVE),
        instruction(MOV_REGISTER, 6, 0, 0, 0),
    ];
    let mut rest: Vec<_> =
        (0..SIZE).step_by(8).map(|offset| instruction(ST_DW, 6, 0, offset, 0)).collect();
    rest.extend([
        instruction(ST_B, 6, 0, 0, RecordKind::Accept as i32),
        instruction(CALL, 0, 0, 0, KTIME_GET_NS),
        instruction(STX_DW, 6, 0, TIME, 0),
        instruction(MOV, 7, 0, 0, 0),
        // Three steps back.
        instruction(CALL, 0, 0, 0, KTIME_GET_NS),
        instruction(ADD, 7, 0, 0, 1),
        instruction(JLT, 7, 0, -3, CALLS),
        instruction(MOV_REGISTER, 1, 6, 0, 0),
        instruction(MOV, 2, 0, 0, NO_WAKEUP),
        instruction(CALL, 0, 0, 0, RINGBUF_SUBMIT),
    ]);
    program.push(instruction(JEQ, 6, 0, rest.len() as i16, 0));
    program.extend(rest);
    program.extend([instruction(MOV, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program.concat()
}

/// What `BPF_PROG_LOAD` reads of `union bpf_attr`; the kernel takes the rest for zeros.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// And `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    bytes_in: u32,
    bytes_out: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
}

/// bpf(2).
///
/// # Safety
/// Pointers in `attributes` are good for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the pointer and the length are those of `attributes`; as the caller says of those in it.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    i32::try_from(done).ok().filter(|done| *done >= 0).ok_or_else(io::Error::last_os_error)
}

fn load(program: &[u8]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    const SCHED_CLS: u32 = 3;
    let license = c"GPL";
    let mut load = Load {
        kind: SCHED_CLS,
        instructions: (program.len() / 8) as u32,
        program: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: both are read, as far as told and to the end of the string, and outlive the call.
    let fd = unsafe { bpf(PROG_LOAD, &mut load) }?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn run_once(program: &OwnedFd) -> io::Result<()> {
    const PROG_TEST_RUN: libc::c_long = 10;
    let frame = [0_u8; 64];
    let mut run = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        bytes_in: frame.len() as u32,
        input: frame.as_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    // SAFETY: the frame is read as far as told, and outlives the call; nothing is written.
    unsafe { bpf(PROG_TEST_RUN, &mut run) }.map(drop)
}

/// Reads until enough records were met half-way and then told, and sees that none is older than what
/// was said to be known. How many were, if time was up before.
fn read(live: &mut Live) -> Result<usize> {
    let start = Instant::now();
    let (mut known_ns, mut half_way, mut met) = (0, false, 0);
    while met < MET && start.elapsed() < DEADLINE {
        let begun = live.probe().reserved();
        let mut times = Vec::new();
        live.drain(usize::MAX, &mut |input| {
            if let Input::Event(Event::Accept(event)) = input {
                times.push(event.mono_ns);
            }
        });
        for time in times {
            ensure!(time >= known_ns, "{} ns after all was said to be told", known_ns - time);
            met += usize::from(std::mem::take(&mut half_way));
        }
        half_way = !live.probe().has_read(begun);
        live.check(true, &mut |input| {
            if let Input::Tick { mono_ns } = input {
                known_ns = *mono_ns;
            }
        })?;
    }
    ensure!(known_ns > 0, "nothing was said to be known");
    Ok(met)
}

#[test]
fn what_a_cpu_has_not_finished_is_waited_for() {
    let outcome = || -> Result<()> {
        if thread::available_parallelism()?.get() < 2 {
            // Who reads has the CPU, and so nobody is half-way: a guest's one CPU never shows it.
            return Err(Unsupported("there is one CPU".to_owned()).into());
        }
        // Nothing of the host but this.
        let filter = Filter { netns: Some(1), ..Filter::default() };
        let mut live = crate::known::live(&Options { filter, ..by(Backend::TpBtf) })?;
        let program = load(&dawdle(live.probe().ring_fd().as_raw_fd()))
            .context("the kernel refused the program that takes its time")?;
        let done = AtomicBool::new(false);
        let met = thread::scope(|scope| {
            let work = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    run_once(&program)?;
                }
                io::Result::Ok(())
            });
            let met = read(&mut live);
            done.store(true, Ordering::Relaxed);
            work.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            met
        })?;
        ensure!(met > 0, "no record was met half-way within {DEADLINE:?}");
        Ok(())
    };
    settle("unfinished", outcome());
}
