//! Views that print once show of a recording its end, or that of `--until`, and say which moment that is.

use std::path::Path;

use serde_json::Value;
use tcptrace::{
    model::{Accounts, Input, script},
    record::{Header, NewFile, Tap},
};

use crate::run::{Ended, run, tcptrace};

/// One connection a second is taken for 30 s, whose peer closes at once: a leak of CLOSE_WAITs, and a
/// connect() to one peer each.
fn recording(path: &Path) {
    let header = Header {
        host: "web1".to_owned(),
        run: "boot/1/2".to_owned(),
        part: 1,
        realtime_offset_ns: 1_795_330_800_000_000_000,
        ..Header::default()
    };
    let files = NewFile::open(path, false, None).unwrap().begin(header).unwrap();
    let mut tap = Tap::start(files).unwrap();
    let mut text = String::from(
        "0ms begin\n0ms clock 1795330800000000000\n1ms snapshot open\n1ms snapshot 5\n\
         1ms snapshot end\n1ms snapshot over\n2ms tick\n",
    );
    for second in 1..=30_u32 {
        let (ms, port) = (second * 1000, 1024 + second);
        let ends = format!("10.0.0.1:80 10.0.0.2:{port} netns=5");
        let out = format!("10.0.0.1:{port} 10.0.0.9:443 netns=5");
        text += &format!(
            "{ms}ms sk={port:x} LISTEN>SYN_RECV {ends} cookie={port:x}\n\
             {ms}.1ms sk={port:x} SYN_RECV>ESTABLISHED {ends} cookie={port:x}\n\
             {ms}.2ms sk={port:x} ESTABLISHED>CLOSE_WAIT {ends} cookie={port:x}\n\
             {ms}.3ms sk={port:x}f CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.9:443 netns=5 pid=7 comm=app\n\
             {ms}.4ms sk={port:x}f SYN_SENT>ESTABLISHED {out}\n\
             {ms}.5ms tick\n",
        );
    }
    script::inputs(&text).unwrap().iter().for_each(|input| tap.put(input));
    let accounts = Accounts { mono_ns: 31_000_000_000, seconds: 31.0, ..Accounts::default() };
    tap.put(&Input::End(Accounts { seen: 150, delivered: 150, ..accounts }));
    tap.finish().unwrap();
}

fn of(path: &Path, arguments: &[&str]) -> Ended {
    let ended = run(tcptrace(&[arguments, &["-r", path.to_str().unwrap()]].concat()));
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended
}

fn lines(ended: &Ended, kind: &str) -> Vec<Value> {
    let all = ended.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["type"] == kind).collect()
}

#[test]
fn what_is_printed_once_is_of_the_end_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rec");
    recording(&path);
    for (until, second, left) in [(None, 31, 30), (Some("10.2s"), 10, 10)] {
        let until = until.map_or(vec![], |until| vec!["--until", until]);
        let asked = |arguments: &[&str]| of(&path, &[arguments, &until[..]].concat());
        for (view, format) in
            [("states", "json"), ("stuck", "json"), ("ports", "json"), ("states", "table")]
        {
            let ended = asked(&[view, "-o", format]);
            let says = format!("as of 2026-11-22T07:00:{second}");
            assert!(ended.stderr.contains(&says), "{view} {says}: {}", ended.stderr);
        }
        let states = lines(&asked(&["states", "-o", "json"]), "states");
        assert_eq!(states.len(), 1);
        let waiting = states[0]["rows"].as_array().unwrap().iter();
        let waiting = waiting.clone().find(|row| row["state"] == "CLOSE_WAIT").unwrap().clone();
        assert_eq!(waiting["count"], left, "{states:?}");
        let by = lines(&asked(&["states", "--by", "port", "-o", "json"]), "states");
        assert_eq!(by.len(), 1, "{by:?}");
        let stuck = lines(&asked(&["stuck", "--older", "0", "-o", "json"]), "stuck");
        assert_eq!(stuck.len(), 1);
        let text = stuck[0].to_string();
        assert!(text.contains(&format!("\"all\":{left}")), "{text}");
        let ports = lines(&asked(&["ports", "-o", "json"]), "ports");
        assert_eq!(ports.len(), 1);
        assert_eq!(ports[0]["rows"][0]["live"], left, "{ports:?}");
        // Intervals are as before.
        assert!(lines(&asked(&["states", "1", "-o", "json"]), "states").len() >= left);
    }
}
