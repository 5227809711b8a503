use super::*;
use tcptrace_model::script;

const TEXT: Format = Format::Text { color: false, sysctls: false };

/// What is shown of `script`, by a view that watches for 2 s.
fn shown(script: &str, format: Format, events: Result<(), String>) -> (String, Option<Severity>) {
    let setup =
        Setup { defaults: Ok(script::fresh_sysctls()), files: Vec::new(), events, own_netns: None };
    let view = DoctorView::new(setup, format, Watches::For(Duration::from_secs(2)));
    let (mut view, mut tracker, mut out) = (view, Tracker::default(), BytesMut::new());
    view.begin(&mut out);
    for input in script::inputs(script).unwrap() {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        if !matches!(input, Input::Event(_)) {
            view.input(&input, &tracker, &mut out);
        }
    }
    (String::from_utf8(out.to_vec()).unwrap(), view.severity())
}

/// Two looks at a namespace 2 s apart, with so many in CLOSE_WAIT in both and as many in the second
/// alone.
fn leak(count: usize) -> String {
    let sockets = |from: usize| {
        let socket = |n: usize| {
            format!(
                "100001ms socket CLOSE_WAIT {:x} 10.0.0.1:{} 10.0.0.2:443 pid=7 comm=\x1b[31mapp\n",
                100 + n,
                1000 + n
            )
        };
        (from..from + count).map(socket).collect::<String>()
    };
    let look = |at: u32, sockets: &str| {
        format!(
            "{at}ms snapshot open\n\
             {at}ms sysctls 5 tcp_fin_timeout=30\n\
             {at}ms counters 5 ListenOverflows=7 ActiveOpens=1 PassiveOpens=1\n\
             {at}ms snapshot 5\n{sockets}{at}ms snapshot end\n{at}ms snapshot over\n\
             {at}ms tick\n"
        )
    };
    let both = sockets(0) + &sockets(500);
    format!("0ms begin\n{}{}", look(100_001, &sockets(0)), look(102_001, &both))
}

#[test]
fn what_was_in_both_looks_stayed() {
    let (text, severity) = shown(&leak(12), TEXT, Ok(()));
    assert_eq!(severity, Some(Severity::Warning));
    let says = "1 warning, 2 notes; network namespace 5, watched for 2.0 s\n\n\
        WARNING   close-wait        12 connections stay in CLOSE_WAIT: \\x1b[31mapp, p...\n";
    assert!(text.starts_with(says), "{text}");
    assert!(text.contains("INFO  accept-queue") && text.contains("INFO  fin-timeout"), "{text}");
    assert!(text.contains("net.ipv4.tcp_fin_timeout           30 (default 60)\n"), "{text}");
    assert!(text.contains("UNSEEN"), "the other sysctls were not told: {text}");
    assert!(!text.contains('\x1b'));
    assert_eq!(text.lines().find(|line| line.chars().count() > 80), None);
}

#[test]
fn few_are_no_leak_and_one_look_says_nothing_of_staying() {
    let (text, severity) = shown(&leak(9), TEXT, Ok(()));
    assert_eq!(severity, Some(Severity::Info), "{text}");
    let once: String = leak(50).lines().take(58).map(|line| line.to_owned() + "\n").collect();
    let (text, severity) = shown(&once, TEXT, Ok(()));
    assert_eq!((text.as_str(), severity), ("", None), "not watched for long enough");
}

#[test]
fn json_has_what_is_documented_and_says_what_was_not_seen() {
    let (text, _) = shown(&leak(12), Format::Json, Err("not root".to_owned()));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["v"], &report["type"]), (&2.into(), &"doctor".into()));
    assert_eq!((&report["severity"], &report["seconds"]), (&"warning".into(), &2.0.into()));
    assert_eq!((&report["events"], &report["events_why"]), (&false.into(), &"not root".into()));
    let finding = &report["findings"][0];
    assert_eq!((&finding["rule"], &finding["netns"]), (&"close-wait".into(), &5.into()));
    assert!(finding["helps"][0]["cost"].is_string() && finding["useless"][0].is_string());
    let sysctls = report["namespaces"][0]["sysctls"].as_array().unwrap();
    let fin = sysctls.iter().find(|sysctl| sysctl["name"] == "net.ipv4.tcp_fin_timeout").unwrap();
    assert_eq!((&fin["value"], &fin["default"]), (&"30".into(), &"60".into()));
    assert_eq!((&fin["there"], &fin["default_from"]), (&true.into(), &"kernel".into()));
    let recycle =
        sysctls.iter().find(|sysctl| sysctl["name"] == "net.ipv4.tcp_tw_recycle").unwrap();
    assert_eq!((&recycle["there"], &recycle["value"]), (&false.into(), &().into()));
}

#[test]
fn ages_that_the_kernel_remembers_are_told() {
    // The first socket of the first look, for a minute by then.
    let script = leak(12).replacen("pid=7", "in-state-ms=60000 pid=7", 1);
    let (text, _) = shown(&script, TEXT, Ok(()));
    let says = "12 connections stay in CLOSE_WAIT: \\x1b[31mapp, pid 7 (12); the oldest\n         for at least 62 s";
    assert!(text.contains(says), "{text}");
}

#[test]
fn what_the_classic_hook_cannot_tell_is_not_taken_for_nothing() {
    // A reset of which nobody knows the namespace, between two looks.
    let ends = "101000ms sk=a ESTABLISHED>CLOSE 10.0.0.1:1 10.0.0.2:443 classic\n";
    let opened = "ActiveOpens=40 PassiveOpens=1 TCPAbortOnData=30";
    let script =
        leak(1).replace("102001ms snapshot open", &format!("{ends}102001ms snapshot open"));
    let first = "ActiveOpens=1 PassiveOpens=1";
    let counted = script.replacen(first, "ActiveOpens=1 PassiveOpens=1 TCPAbortOnData=0", 1);
    let counted = counted.replacen("ActiveOpens=1 PassiveOpens=1\n", &format!("{opened}\n"), 1);
    let (text, severity) = shown(&counted, TEXT, Ok(()));
    assert_eq!(severity, Some(Severity::Warning), "{text}");
    assert!(text.contains("WARNING  linger-zero\nseen     30 in 2.0 s closed by a RST"), "{text}");
    assert!(text.contains("(tracepoint) does not tell the\nnamespace"), "{text}");
    // Without the counter, nothing at all is known.
    let (text, _) = shown(&script, TEXT, Ok(()));
    let unseen = text.split_once("UNSEEN").map(|(_, unseen)| unseen).unwrap_or_default();
    assert!(unseen.contains("linger-zero"), "{text}");
}
