//! A host in trouble, second by second: a client that leaves TIME_WAITs, a service that is left by
//! its clients, a program that leaks what its peers have closed, and a service that is not there.

use std::fmt::Write as _;

use jiff::{civil::date, tz::TimeZone};

/// When the last word comes, seconds.
const END_S: u64 = 70;

/// A line and when it is, microseconds.
type Lines = Vec<(u64, String)>;

/// As `source::script` reads it.
pub(super) fn script() -> String {
    let mut lines = Lines::new();
    for second in 0..END_S {
        for n in 0..3 {
            client(&mut lines, second * 1_000_000 + 100_000 * n + 5_000, second * 10 + n);
        }
        service(&mut lines, second * 1_000_000 + 400_000, second);
        if second >= 50 {
            for n in 0..2 {
                leak(&mut lines, second * 1_000_000 + 500_000 + n * 1000, second * 10 + n);
            }
        }
        if second % 5 == 0 {
            refused(&mut lines, second * 1_000_000 + 600_000, second);
        }
        lines.push(((second + 1) * 1_000_000, "tick".to_owned()));
    }
    lines.push((20_200_000, "missed 2".to_owned()));
    lines.push((33_300_000, "lost 7".to_owned()));
    lines.sort_by_key(|(at, _)| *at);
    let mut text = beginning();
    for (us, line) in lines.iter().filter(|(us, _)| *us <= END_S * 1_000_000) {
        if *us > 11_900_000 && !text.contains("11900ms snapshot open") {
            text += &second_look();
        }
        let _ = writeln!(text, "{}.{:03}ms {line}", us / 1000, us % 1000);
    }
    text
}

fn beginning() -> String {
    // So that it is noon where the tests run.
    let noon = date(2026, 11, 22).at(12, 0, 0, 0).to_zoned(TimeZone::system()).unwrap();
    let mut text = format!(
        "0ms begin\n0ms clock {}\n\
         0ms sysctls 5 ip_local_port_range=32768-60999 ip_local_reserved_ports=40000 \
         tcp_tw_reuse=2 tcp_tw_reuse_delay=1000 tcp_timestamps=1 tcp_fin_timeout=60\n\
         0ms cgroup 70 /system.slice/nginx.service\n\
         1ms snapshot open\n1ms snapshot 5\n",
        noon.timestamp().as_nanosecond()
    );
    text += &held(1, 3_600_000);
    text + "1ms snapshot end syn-queue=2\n1ms snapshot over\n2ms tick\n"
}

/// What is there all the time.
fn held(ms: u64, since_ms: u64) -> String {
    let mut text = format!(
        "{ms}ms socket LISTEN f1 10.0.0.2:80 0.0.0.0:0 inode=1 unsent=511 cgroup=70 pid=812 \
         comm=nginx\n\
         {ms}ms socket LISTEN f2 10.0.0.2:9000 0.0.0.0:0 inode=2 unsent=128 pid=77 comm=leaky\n"
    );
    for n in 0..12 {
        let _ = writeln!(
            text,
            "{ms}ms socket CLOSE_WAIT e{n:x} 10.0.0.2:9000 10.0.0.9:{} inode={} unread=1 pid=77 \
             comm=leaky in-state-ms={since_ms}",
            5000 + n,
            10 + n
        );
    }
    text
}

/// The same again, and the TIME_WAITs of the clients by then.
fn second_look() -> String {
    let mut text = "11900ms snapshot open\n11900ms snapshot 5\n".to_owned();
    text += &held(11_900, 3_611_900);
    for id in (0..12).flat_map(|second| (0..3).map(move |n| second * 10 + n)) {
        let _ = writeln!(
            text,
            "11900ms socket TIME_WAIT {:x} 10.0.0.2:{} 10.0.1.1:443 50000",
            0x1000 + id,
            33_000 + id
        );
    }
    text + "11900ms snapshot end syn-queue=2\n11900ms snapshot over\n11901ms tick\n"
}

/// curl asks a service elsewhere, and closes first.
fn client(lines: &mut Lines, us: u64, id: u64) {
    let ends = format!("10.0.0.2:{} 10.0.1.1:443", 33_000 + id);
    let sock = format!("cookie={:x} netns=5", 0x1000 + id);
    let sk = 0xa000 + id;
    let task = "pid=4711 uid=1000 comm=curl";
    let mut say = |after_us: u64, line: String| lines.push((us + after_us, line));
    say(0, format!("sk={sk:x} CLOSE>SYN_SENT 10.0.0.2:0 10.0.1.1:443 {task} {sock}"));
    say(800, format!("sk={sk:x} SYN_SENT>ESTABLISHED {ends} {sock}"));
    say(21_000 + id * 10, format!("sk={sk:x} ESTABLISHED>FIN_WAIT1 {ends} {task} {sock}"));
    say(31_000, format!("sk={sk:x} FIN_WAIT1>FIN_WAIT2 {ends} {sock}"));
    let expires_ms = (us + 32_000) / 1000 + 60_000;
    say(32_000, format!("tw={sk:x} started TIME_WAIT {ends} {sock} expires={expires_ms}ms"));
    let totals = "acked=500 received=20000 srtt-us=700";
    say(32_010, format!("sk={sk:x} FIN_WAIT2>CLOSE {ends} {sock} {totals}"));
    let expired = format!("tw={sk:x} expired TIME_WAIT {ends} {sock} expires={expires_ms}ms");
    say(60_036_000, expired);
}

/// nginx is asked, and left by the client.
fn service(lines: &mut Lines, us: u64, id: u64) {
    let ends = format!("10.0.0.2:80 10.0.2.{}:40000", id + 1);
    let sock = format!("cookie={:x} netns=5 cgroup=70", 0x3000 + id);
    let sk = 0xb000 + id;
    let mut say = |after_us: u64, line: String| lines.push((us + after_us, line));
    say(0, format!("sk={sk:x} LISTEN>SYN_RECV {ends} {sock}"));
    say(1, format!("sk={sk:x} SYN_RECV>ESTABLISHED {ends} {sock}"));
    say(90, format!("sk={sk:x} accept pid=812 uid=33 comm=nginx netns=5"));
    say(50_000, format!("sk={sk:x} ESTABLISHED>CLOSE_WAIT {ends} {sock}"));
    let task = "pid=812 uid=33 comm=nginx";
    say(50_200, format!("sk={sk:x} CLOSE_WAIT>LAST_ACK {ends} {task} {sock} peer-fin"));
    say(51_000, format!("sk={sk:x} LAST_ACK>CLOSE {ends} {sock} peer-fin shut=3 unacked=0"));
}

/// A client of a service that leaks is accepted and goes; nobody closes.
fn leak(lines: &mut Lines, us: u64, id: u64) {
    let ends = format!("10.0.0.2:9000 10.0.3.1:{}", 20_000 + id);
    let sock = format!("cookie={:x} netns=5", 0x5000 + id);
    let sk = 0xc000 + id;
    let mut say = |after_us: u64, line: String| lines.push((us + after_us, line));
    say(0, format!("sk={sk:x} LISTEN>SYN_RECV {ends} {sock}"));
    say(1, format!("sk={sk:x} SYN_RECV>ESTABLISHED {ends} {sock}"));
    say(90, format!("sk={sk:x} accept pid=77 uid=0 comm=leaky netns=5"));
    say(900, format!("sk={sk:x} ESTABLISHED>CLOSE_WAIT {ends} {sock}"));
}

/// Nobody listens there.
fn refused(lines: &mut Lines, us: u64, id: u64) {
    let sock = format!("cookie={:x} netns=5", 0x7000 + id);
    let sk = 0xd000 + id;
    let task = "pid=99 uid=0 comm=poller";
    let to = "10.0.0.7:5432";
    lines.push((us, format!("sk={sk:x} CLOSE>SYN_SENT 10.0.0.2:0 {to} {task} {sock}")));
    let ends = format!("10.0.0.2:{} {to}", 50_000 + id);
    lines.push((us + 300, format!("sk={sk:x} SYN_SENT>CLOSE {ends} err=111 {sock}")));
}
