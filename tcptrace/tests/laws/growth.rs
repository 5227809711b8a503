//! What an input costs does not depend on how many came before it.
//!
//! Proved by instructions and not by time: valgrind counts those that take in a flood of one kind, and
//! those that take in one of twice the size. All views take it in. What making the inputs costs is not
//! counted: a look through a table would be lost in it.

use std::{
    env,
    fmt::Write as _,
    hint::black_box,
    io::{self, Write as _},
    process::Command,
};

use crate::views::Views;
use tcptrace::model::{Input, script};

/// How many of a kind. What looks through all of them for each takes more than all else then.
const SIZE: usize = 2000;

/// How much more the second half of a flood of twice the size may take than the first: tables grow by
/// doubling. It is 0.9 to 1.1. With pending verdicts looked through for each RST, it was 1.7 (for all
/// inputs of the flood together); with births looked through for each minisock, 1.45.
const MOST: f64 = 1.3;

/// A kind of flood, of a size, as a script. Peers or local users set the rate of each.
type Flood = fn(usize) -> String;

const FLOODS: [(&str, Flood); 9] = [
    ("connections from start to end", connections),
    ("RSTs from one peer", resets),
    ("pending verdicts", pending),
    ("pending hand-overs", hand_overs),
    ("minisocks without a full socket", births),
    ("listeners of one port", listeners),
    ("one pair of ends in many namespaces", same_ends),
    ("ends while the tables are read", round),
    ("minisocks at one address", one_address),
];

fn ends(n: usize) -> String {
    format!("10.0.0.1:{} 10.1.{}.{}:443", 1 + n % 60_000, n / 256 % 256, n % 256)
}

fn lines(n: usize, line: impl Fn(usize) -> String) -> String {
    (0..n).map(line).collect()
}

/// Connections that are opened, closed here, and stay in TIME_WAIT.
fn connections(size: usize) -> String {
    let one = |n: usize| {
        let (ends, cookie) = (ends(n), n + 1);
        let of = format!("{ends} cookie={cookie:x} netns=5");
        let tw = n + 0x100_0000;
        format!(
            "1ms sk={n:x} CLOSE>SYN_SENT {of} pid={pid} comm=app\n\
             2ms sk={n:x} SYN_SENT>ESTABLISHED {of}\n\
             3ms sk={n:x} ESTABLISHED>FIN_WAIT1 {of} pid={pid} comm=app\n\
             4ms sk={n:x} FIN_WAIT1>FIN_WAIT2 {of}\n\
             5ms tw={tw:x} started TIME_WAIT {of} expires=60000ms\n\
             5ms sk={n:x} FIN_WAIT2>CLOSE {of}\n",
            pid = n + 1
        )
    };
    format!("0ms begin\n{}60001ms tick\n", lines(size, one))
}

/// One peer that resets what it has opened: accepted, reset, closed.
fn resets(size: usize) -> String {
    let one = |n: usize| {
        let of = format!("10.0.0.1:80 10.0.0.2:{} cookie={:x} netns=5", 1 + n % 60_000, n + 1);
        let (sk, ms) = (n + 0x100_0000, 1 + n);
        format!(
            "{ms}ms sk={sk:x} LISTEN>SYN_RECV {of}\n\
             {ms}ms sk={sk:x} SYN_RECV>ESTABLISHED {of}\n\
             {ms}ms sk={sk:x} reset-received ESTABLISHED\n\
             {ms}ms sk={sk:x} ESTABLISHED>CLOSE {of} err=104\n\
             {ms}ms tick\n"
        )
    };
    format!("0ms begin\n1ms sk=a CLOSE>LISTEN 10.0.0.1:80 0.0.0.0:0 netns=5\n{}", lines(size, one))
}

/// Closes that a RST may follow, and RSTs for each, the last first.
fn pending(size: usize) -> String {
    let close = |n: usize| {
        let ends = ends(n);
        format!(
            "1ms sk={n:x} ESTABLISHED>FIN_WAIT1 {ends}\n\
             1ms sk={n:x} FIN_WAIT1>CLOSE {ends} dead err=104 shut=3\n"
        )
    };
    let reset = |n: usize| format!("2ms sk={:x} reset-sent CLOSE other\n", size - 1 - n);
    format!("0ms begin\n{}{}", lines(size, close), lines(size, reset))
}

/// The same where minisocks are sampled.
fn hand_overs(size: usize) -> String {
    let close = |n: usize| {
        let (ends, cookie) = (ends(n), n + 1);
        format!(
            "1ms sk={n:x} FIN_WAIT1>FIN_WAIT2 {ends} cookie={cookie:x}\n\
             1ms sk={n:x} FIN_WAIT2>CLOSE {ends} cookie={cookie:x} dead\n"
        )
    };
    let reset = |n: usize| format!("2ms sk={n:x} reset-sent CLOSE other\n");
    format!("0ms begin sampled\n{}{}", lines(size, close), lines(size, reset))
}

/// Timers that look like births, with ticks in between, and full sockets without a namespace.
fn births(size: usize) -> String {
    let born = |n: usize| {
        let tick = if n.is_multiple_of(50) { "1ms tick\n" } else { "" };
        format!("1ms tw={:x} started TIME_WAIT {}\n{tick}", n + 0x10_0000, ends(n))
    };
    let close = |n: usize| {
        let ends = ends(n);
        format!(
            "2ms sk={n:x} FIN_WAIT1>FIN_WAIT2 {ends} classic\n\
             2ms sk={n:x} FIN_WAIT2>CLOSE {ends} classic\n"
        )
    };
    format!("0ms begin\n{}{}99ms tick\n", lines(size, born), lines(size, close))
}

/// Listeners with SO_REUSEPORT, and connections that they take.
fn listeners(size: usize) -> String {
    let listen = |n: usize| {
        format!("1ms sk={n:x} CLOSE>LISTEN 10.0.0.1:80 0.0.0.0:0 netns=5 pid=7 comm=app\n")
    };
    let accept = |n: usize| {
        let addr = n + 0x10_0000;
        format!("2ms sk={addr:x} LISTEN>SYN_RECV 10.0.0.1:80 10.0.0.2:{} netns=5\n", 1 + n % 60_000)
    };
    let close = |n: usize| format!("3ms sk={n:x} LISTEN>CLOSE 10.0.0.1:80 0.0.0.0:0 netns=5\n");
    format!("0ms begin\n{}{}{}", lines(size, listen), lines(size, accept), lines(size, close))
}

/// Containers that all use the same addresses, on a kernel that reports no cookies.
fn same_ends(size: usize) -> String {
    const ENDS: &str = "10.0.0.1:7 10.0.0.2:443";
    let mut text = "0ms begin\n1ms snapshot open\n".to_owned();
    for n in 1..=size {
        let _ = write!(
            text,
            "1ms snapshot {n}\n1ms socket ESTABLISHED {n:x} {ENDS}\n1ms snapshot end\n"
        );
    }
    let close =
        |n: usize| format!("3ms sk={n:x} ESTABLISHED>CLOSE_WAIT {ENDS} netns={}\n", size - n);
    text + "2ms snapshot over\n2ms tick\n" + &lines(size, close)
}

/// A round of snapshots, while everything in it ends.
fn round(size: usize) -> String {
    let open =
        |n: usize| format!("1ms sk={n:x} CLOSE>SYN_SENT {} cookie={:x} netns=5\n", ends(n), n + 1);
    let row = |n: usize| format!("2ms socket SYN_SENT {:x} {}\n", n + 1, ends(n));
    let close =
        |n: usize| format!("3ms sk={n:x} SYN_SENT>CLOSE {} cookie={:x} netns=5\n", ends(n), n + 1);
    format!(
        "0ms begin\n{}2ms snapshot open\n2ms snapshot 5\n{}{}4ms snapshot end\n4ms snapshot over\n5ms tick\n",
        lines(size, open),
        lines(size, row),
        lines(size, close)
    )
}

/// Minisocks in FIN_WAIT2, one after the other where the kernel puts them all.
fn one_address(size: usize) -> String {
    let one = |n: usize| {
        let ends = ends(n);
        let ms = 1 + n;
        format!(
            "{ms}ms sk=a FIN_WAIT1>FIN_WAIT2 {ends} netns=5\n\
             {ms}ms tw=b started FIN_WAIT2 {ends} netns=5\n\
             {ms}ms sk=a FIN_WAIT2>CLOSE {ends} netns=5 dead\n\
             {ms}ms tick\n\
             {ms}ms tw=b stopping-by-process FIN_WAIT2 {ends} netns=5\n"
        )
    };
    format!("0ms begin\n{}", lines(size, one))
}

const WHICH: &str = "TCPTRACE_TEST_FLOOD";
const HOW_MUCH: &str = "TCPTRACE_TEST_SIZE";

/// The one function whose instructions are counted, by its name.
#[inline(never)]
fn take_the_flood_in(views: &mut Views, inputs: &[Input]) {
    // No closure: valgrind would take it for the function, and stop counting in it.
    for input in inputs {
        views.feed(black_box(input));
    }
}

/// What the process does whose instructions are counted.
#[test]
#[ignore = "run by what_an_input_costs_does_not_depend_on_how_many_came_before"]
fn takes_a_flood_in() {
    let (Ok(which), Ok(size)) = (env::var(WHICH), env::var(HOW_MUCH)) else { return };
    let (_, flood) = FLOODS.iter().find(|(name, _)| *name == which).unwrap();
    let inputs = script::inputs(&flood(size.parse().unwrap())).unwrap();
    take_the_flood_in(&mut Views::default(), &inputs);
}

/// How many instructions a flood takes; `None` where there is no valgrind.
fn instructions(flood: &str, size: usize) -> Option<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.args(["--toggle-collect=*take_the_flood_in*"]);
    command.arg(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "growth::takes_a_flood_in", "--test-threads=1"]);
    command.env(WHICH, flood).env(HOW_MUCH, size.to_string());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => panic!("valgrind: {error}"),
    };
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flood}: {says}");
    // ==7== Collected : 12345678
    let collected = says.lines().find_map(|line| line.split_once("Collected :")).unwrap().1;
    Some(collected.trim().parse().unwrap())
}

#[test]
fn what_an_input_costs_does_not_depend_on_how_many_came_before() {
    for (flood, _) in FLOODS {
        let Some(one) = instructions(flood, SIZE) else {
            // Not by eprintln!, which libtest keeps to itself when the test passes.
            io::stderr().write_all(b"skipped: valgrind is not installed\n").unwrap();
            return;
        };
        let two = instructions(flood, 2 * SIZE).unwrap();
        // That the function was found, and not optimized away.
        assert!(one > 100 * SIZE as u64, "{flood}: {one} instructions for {SIZE}");
        let grows = (two - one) as f64 / one as f64;
        println!("{flood}: {} instructions each, then {grows:.2} times as many", one / SIZE as u64);
        assert!(grows < MOST, "{flood}: {one} instructions for {SIZE}, {two} for twice as many");
    }
}
