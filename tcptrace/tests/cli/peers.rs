//! Peers that vanish, that do not read, and that do not close, and a listener that does not accept: what
//! `stuck`, `doctor` and `conns --open` say of them, held to `ss -tinoe`.

use std::{
    io::Write as _,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
};

use serde_json::Value;

use crate::{
    net::Netns,
    run::{can_trace, own_name, run, tcptrace, until},
    witness::{output, path},
};

/// Connections to the host that vanishes: `doctor` takes as many for an outage.
const VANISHED: usize = 12;
/// What each has written and nobody acknowledges.
const BYTES: usize = 1000;
/// Connections whose peer has closed and that nobody accepts.
const QUEUED: usize = 10;

/// Its port, as nftables drops what comes there.
const GONE: u16 = 7001;

/// nftables rules, in `netns`.
fn nft(netns: &Netns, rule: &str) -> Option<()> {
    let done = output(netns, "nft", &[rule])?;
    assert!(done.status.success(), "{rule}: {done:?}");
    Some(())
}

fn listener(port: u16) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of connections to a host that is there until they have been made.
fn vanished(netns: &Netns) -> Option<Vec<TcpStream>> {
    let ends = netns.run(|| {
        let (listener, address) = listener(GONE);
        let pair = |_| [TcpStream::connect(address).unwrap(), listener.accept().unwrap().0];
        (0..VANISHED).flat_map(pair).collect::<Vec<_>>()
    });
    nft(netns, "add table ip t")?;
    nft(netns, "add chain ip t in { type filter hook input priority 0; }")?;
    nft(netns, &format!("add rule ip t in tcp dport {GONE} drop"))?;
    for mut client in ends.iter().step_by(2) {
        client.write_all(&[b'x'; BYTES]).unwrap();
    }
    Some(ends)
}

/// What `ss -tinoe` says of the connections to [`GONE`]: how often their last segment was sent again,
/// and the bytes that are not acknowledged.
fn ss(netns: &Netns) -> Option<Vec<(u64, u64)>> {
    let filter = format!("dport = :{GONE}");
    let text = output(netns, "ss", &["-HtinoOe", &filter])?;
    let text = String::from_utf8(text.stdout).unwrap();
    let of = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // timer:(on,11sec,6)
        let timer = words.iter().find_map(|word| word.strip_prefix("timer:(on,"));
        let timer = timer.and_then(|timer| timer.strip_suffix(')')?.rsplit(',').next());
        (timer.map_or(0, |times| times.parse().unwrap()), words[2].parse().unwrap())
    };
    Some(text.lines().filter(|line| line.starts_with("ESTAB")).map(of).collect())
}

fn json(arguments: &[&str], netns: &Netns) -> Vec<Value> {
    let ended = run(tcptrace(&[arguments, &["-o", "json", "-N", &path(netns)]].concat()));
    assert!(matches!(ended.code, Some(0..=2)), "{ended:?}");
    ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_host_that_vanished_is_named_by_stuck_doctor_and_open_connections() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let Some(_ends) = vanished(&netns) else { return };
    let Some(_) = ss(&netns) else { return };
    let inside = path(&netns);
    // Too few seconds for `stuck` and `doctor` yet, but so many that it is said.
    until("a retransmission of each", || {
        ss(&netns).unwrap().iter().all(|(times, _)| *times > 0).then_some(())
    });
    let young = run(tcptrace(&["stuck", "-N", &inside]));
    assert!(young.text().contains("\nESTABLISHED <10s: no ACK: "), "{young:?}");
    // 0.2 + 0.4 + 0.8 + 1.6 + 3.2 s; then `stuck` takes it for too long.
    until("five timeouts", || {
        ss(&netns).unwrap().iter().all(|(times, _)| *times >= 5).then_some(())
    });
    let before = ss(&netns).unwrap();
    assert_eq!(before.len(), VANISHED, "{before:?}");
    let text = until("ten seconds", || {
        let ended = run(tcptrace(&["stuck", "-N", &inside]));
        ended.text().contains("\nESTABLISHED 10s: ").then_some(ended)
    });
    let stuck = json(&["stuck", "--top", "100"], &netns).remove(0);
    let open = json(&["conns", "--open", "--duration", "1s"], &netns);
    let doctor = run(tcptrace(&["doctor", "--duration", "1s", "-N", &inside]));
    let after = ss(&netns).unwrap();
    let times = |of: &[(u64, u64)]| of.iter().map(|(times, _)| *times).collect::<Vec<_>>();
    let (fewest, most) = (times(&before).into_iter().min(), times(&after).into_iter().max());
    let range = fewest.unwrap()..=most.unwrap();
    assert!(after.iter().all(|(_, bytes)| *bytes == BYTES as u64), "{after:?}");

    let text = text.text();
    let says = "\nESTABLISHED 10s: no ACK: the peer's host is gone, or the path drops segments\n";
    assert!(text.contains(says), "{text}");
    let detail = text.lines().find(|line| line.contains("resent ")).unwrap();
    assert!(detail.contains("; ends in ~") && detail.ends_with(" (tcp_retries2)"), "{detail}");
    assert!(
        text.ends_with("unless a program has set TCP_USER_TIMEOUT, which no scan shows)\n"),
        "{text}"
    );

    assert_eq!(stuck["stuck"], VANISHED, "{stuck}");
    let sockets = stuck["sockets"].as_array().unwrap();
    for socket in sockets {
        assert_eq!((&socket["state"], &socket["cause"]), (&"ESTABLISHED".into(), &"no-ack".into()));
        assert_eq!((&socket["unsent"], &socket["unread"]), (&BYTES.into(), &0.into()), "{socket}");
        assert_eq!(socket["pid"], std::process::id(), "{socket}");
        assert!(range.contains(&socket["retransmits"].as_u64().unwrap()), "{socket}, {range:?}");
        assert!(socket["stuck_ms"].as_f64().unwrap() >= 10_000.0, "{socket}");
        // 924.6 s after the first retransmission, at a timeout of at most 120 s.
        let ends_ms = socket["gives_up_ms"].as_u64().unwrap();
        assert!((800_000..=924_600 + 150_000).contains(&ends_ms), "{socket}");
        assert_eq!(socket["gives_up_by"], "tcp_retries2");
    }
    assert_eq!(sockets.len(), VANISHED);

    let clients: Vec<_> = open.iter().filter(|line| line["rport"] == GONE).collect();
    assert_eq!(clients.len(), VANISHED, "{open:?}");
    for client in clients {
        // With the loss probes, of which the timer does not count.
        let total = client["retransmits"].as_u64().unwrap();
        assert!((*range.start()..=range.end() + 1).contains(&total), "{client}, {range:?}");
    }

    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    let words = doctor.text().split_whitespace().collect::<Vec<_>>().join(" ");
    let says = format!(
        "WARNING black-hole seen {VANISHED} open connections get no acknowledgement or no answer to \
         probes, the oldest for at least 1"
    );
    assert!(words.contains(&says), "{words}");
    let says = format!(
        ", to 127.0.0.1:{GONE} ({VANISHED}); {} bytes are not acknowledged; held by {}, pid {} \
         ({VANISHED})",
        VANISHED * BYTES,
        own_name(),
        std::process::id()
    );
    assert!(words.contains(&says), "{words}");
}

/// Connections that nobody accepts, whose clients have closed, and the listener.
fn queued(netns: &Netns) -> (TcpListener, SocketAddr) {
    netns.run(|| {
        let (listener, address) = listener(0);
        (0..QUEUED).for_each(|_| drop(TcpStream::connect(address).unwrap()));
        (listener, address)
    })
}

#[test]
fn what_nobody_accepts_is_named_by_its_listener() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let (_listener, address) = queued(&netns);
    until("the FINs", || {
        let counts = crate::witness::ss(&netns)?;
        (counts.get("CLOSE_WAIT") == Some(&(QUEUED as u64))).then_some(())
    });
    let (name, pid) = (own_name(), std::process::id());
    let stuck = run(tcptrace(&["stuck", "-N", &path(&netns)]));
    let group = format!("\n  (not accepted) {name} :{}", address.port());
    let short: String = group.chars().take(34).collect();
    assert!(stuck.text().contains(short.trim_end()), "{stuck:?}");
    assert!(stuck.text().contains("the listener has not accepted it"), "{stuck:?}");
    let doctor = run(tcptrace(&["doctor", "--duration", "1s", "-N", &path(&netns)]));
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    let words = doctor.text().split_whitespace().collect::<Vec<_>>().join(" ");
    let says = format!(": not accepted yet at :{} of {name}, pid {pid} ({QUEUED})", address.port());
    assert!(words.contains(&says), "{words}");
    assert!(!words.contains("each keeps a file descriptor"), "{words}");
}

/// Writes until nothing more goes.
fn fill(mut client: &TcpStream) {
    client.set_nonblocking(true).unwrap();
    while client.write(&[b'x'; 1 << 16]).is_ok() {}
}

#[test]
fn what_a_peers_program_does_not_do_is_told_from_what_was_not_done_here() {
    let netns = Netns::new().unwrap();
    let (_listener, ends) = netns.run(|| {
        let (listener, address) = listener(0);
        let pair = || (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
        let (full, deaf) = pair();
        fill(&full);
        deaf.shutdown(Shutdown::Write).unwrap();
        // Closed here, with all of it and the FIN to send.
        let (orphan, reader) = pair();
        fill(&orphan);
        drop(orphan);
        let (half, server) = pair();
        half.shutdown(Shutdown::Write).unwrap();
        (listener, [full, deaf, reader, half, server])
    });
    let [full, _, reader, half, _] = &ends;
    full.shutdown(Shutdown::Write).unwrap();
    let said = until("probes of both windows", || {
        let ended = run(tcptrace(&["stuck", "-N", &path(&netns), "--older", "0"]));
        let windows = ended.text().matches("window 0, ").count();
        (windows == 2).then_some(ended)
    });
    let text = said.text();
    for (state, says) in [
        ("LAST_ACK", "the peer's program does not read (window 0); the FIN waits"),
        ("FIN_WAIT1", "the peer's program does not read (window 0); the FIN waits"),
        ("FIN_WAIT2", "shut down here and still open; no FIN from the peer yet"),
    ] {
        assert!(text.contains(&format!("\n{state} 0s: {says}\n")), "{state}: {text}");
    }
    assert!(!text.contains("acknowledges no FIN") && !text.contains("closed here,"), "{text}");
    assert!(
        text.lines().any(|line| line.contains(" and FIN unsent; kept while it answers")),
        "{text}"
    );
    let orphan = text.lines().find(|line| line.contains("(tcp_orphan_retries)")).unwrap();
    assert!(orphan.contains(" and FIN unsent; ends in ~"), "{text}");

    let all = json(&["stuck", "--older", "0"], &netns).remove(0);
    let sockets = all["sockets"].as_array().unwrap();
    let of = |lport: u16| sockets.iter().find(|socket| socket["lport"] == lport).unwrap();
    let port = |stream: &TcpStream| stream.local_addr().unwrap().port();
    let last_ack = of(port(full));
    assert_eq!((&last_ack["fin_sent"], &last_ack["held"]), (&false.into(), &true.into()));
    let orphan = of(reader.peer_addr().unwrap().port());
    assert_eq!((&orphan["fin_sent"], &orphan["held"]), (&false.into(), &false.into()), "{orphan}");
    assert!(orphan["pid"].is_null(), "{orphan}");
    let half = of(port(half));
    assert_eq!((&half["cause"], &half["held"]), (&"half-closed".into(), &true.into()), "{half}");
    assert_eq!(half["pid"], std::process::id());
}
