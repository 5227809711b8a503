//! An incident as a script, for the tests of all who judge: they must say the same of it.

use std::fmt::Write as _;

/// A host that is scanned each 10 s and is well at first. From `from_s` until before `until_s`, `count`
/// connections that the process `leaky` (pid 77) holds are in CLOSE_WAIT, in the network namespace 5; it
/// ends with a tick at `end_s`. Seconds, multiples of 10.
pub fn late_leak(count: u64, from_s: u64, until_s: u64, end_s: u64) -> String {
    let mut text = "0ms begin\n0ms clock 1700000000000000000\n".to_owned();
    let of = |n: u64| format!("10.0.0.1:443 10.0.0.2:{} cookie={:x} netns=5", 2000 + n, 256 + n);
    for s in (0..=end_s).step_by(10) {
        let ms = s * 1000;
        // Writing to memory does not fail.
        if s == from_s {
            for n in 0..count {
                let (at, of, sk) = (ms - 1000, of(n), 256 + n);
                let _ = writeln!(text, "{at}ms sk={sk:x} ESTABLISHED>CLOSE_WAIT {of}");
            }
        }
        if s == until_s {
            for n in 0..count {
                let (at, of, sk) = (ms - 1000, of(n), 256 + n);
                let _ = writeln!(text, "{at}ms sk={sk:x} CLOSE_WAIT>LAST_ACK {of}");
                let _ = writeln!(text, "{at}ms sk={sk:x} LAST_ACK>CLOSE {of}");
            }
        }
        let _ = writeln!(text, "{ms}ms snapshot open\n{ms}ms sysctls 5");
        let _ =
            writeln!(text, "{ms}ms counters 5 ActiveOpens={s} PassiveOpens={s} ListenOverflows=0");
        let _ = writeln!(text, "{ms}ms snapshot 5");
        if (from_s..until_s).contains(&s) {
            for n in 0..count {
                let (cookie, port) = (256 + n, 2000 + n);
                let _ = writeln!(
                    text,
                    "{ms}ms socket CLOSE_WAIT {cookie:x} 10.0.0.1:443 10.0.0.2:{port} pid=77 comm=leaky"
                );
            }
        }
        let _ = writeln!(text, "{ms}ms snapshot end\n{ms}ms snapshot over\n{ms}ms tick");
    }
    text
}
