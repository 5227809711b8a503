//! Each verdict, from what the kernel tells where it really happens (the kernel tests make it
//! happen).

mod table;

use crate::Tracker;
use tcptrace_model::{Change, How, TcpState, Verdict, script};

/// Runs a script and gives what each transition settled: `OLD>NEW initiator how`.
fn settled(lines: &str) -> Vec<String> {
    let (mut tracker, mut out) = (Tracker::default(), Vec::new());
    for input in script::inputs(lines).unwrap() {
        tracker.apply(&input, &mut |change| {
            let Change::Moved(moved) = change else { return };
            let Verdict { initiator, how, unknown_because } = moved.verdict;
            if initiator.is_none() && how.is_none() {
                return;
            }
            assert_eq!(unknown_because.is_some(), how == Some(How::Unknown), "{moved:?}");
            out.push(format!(
                "{}>{} {} {}",
                moved.old,
                moved.new,
                initiator.map_or("-", |initiator| initiator.name()),
                moved.verdict.in_full().map_or("-".to_owned(), |how| how.to_string()),
            ));
        });
    }
    out
}

/// The verdict on one →CLOSE of an established connection.
fn verdict(lines: &str) -> String {
    let all = settled(&format!(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n{lines}\n100ms tick\n"
    ));
    let last = all.last().expect("something is settled");
    last.split_once(' ').unwrap().1.to_owned()
}

const ENDS: &str = "10.0.0.1:7 10.0.0.2:443";

#[test]
fn fins() {
    let local = format!(
        "0ms begin\n\
         1ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n\
         2ms sk=a FIN_WAIT1>FIN_WAIT2 {ENDS}\n\
         3ms tw=b started TIME_WAIT {ENDS} expires=60000ms\n\
         3ms sk=a FIN_WAIT2>CLOSE {ENDS} dead shut=3 unread=1\n\
         60003ms tw=b expired TIME_WAIT {ENDS} expires=60000ms\n"
    );
    let expected = [
        "ESTABLISHED>FIN_WAIT1 local -",
        "FIN_WAIT2>TIME_WAIT local fin",
        "TIME_WAIT>CLOSE local fin",
    ];
    assert_eq!(settled(&local), expected);
    let remote = format!(
        "0ms begin\n\
         1ms sk=a ESTABLISHED>CLOSE_WAIT {ENDS}\n\
         2ms sk=a CLOSE_WAIT>LAST_ACK {ENDS}\n\
         3ms sk=a LAST_ACK>CLOSE {ENDS} dead shut=3 unacked=0 peer-fin\n"
    );
    assert_eq!(settled(&remote), ["ESTABLISHED>CLOSE_WAIT remote -", "LAST_ACK>CLOSE remote fin"]);
    let both = format!(
        "0ms begin\n\
         1ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n\
         2ms sk=a FIN_WAIT1>CLOSING {ENDS}\n\
         3ms sk=a CLOSING>CLOSE {ENDS} dead shut=3 full unacked=0\n"
    );
    assert_eq!(
        settled(&both),
        ["ESTABLISHED>FIN_WAIT1 local -", "FIN_WAIT1>CLOSING both -", "CLOSING>CLOSE both fin"]
    );
}

#[test]
fn an_orphan_is_not_settled_before_its_minisock() {
    let orphan = |end: &str| {
        let all = settled(&format!(
            "0ms begin\n\
             1ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n\
             2ms sk=a FIN_WAIT1>FIN_WAIT2 {ENDS}\n\
             2ms tw=b started FIN_WAIT2 {ENDS} expires=60000ms\n\
             2ms sk=a FIN_WAIT2>CLOSE {ENDS} dead shut=3 unread=0\n\
             60003ms tw=b {end} FIN_WAIT2 {ENDS} expires=60000ms\n"
        ));
        all[1..].join(", ")
    };
    assert_eq!(orphan("expired"), "FIN_WAIT2>CLOSE local orphan-gave-up");
    assert_eq!(orphan("stopped-by-process"), "FIN_WAIT2>CLOSE local rst-received");
    assert_eq!(orphan("stopped-by-receive"), "FIN_WAIT2>CLOSE local rst-sent-data-after-close");
    assert_eq!(orphan("stopped-by-abort"), "FIN_WAIT2>CLOSE local sock-destroy");
    assert_eq!(orphan("stopped-by-purge"), "FIN_WAIT2>CLOSE local netns-exit");
}

#[test]
fn a_hand_over_that_nobody_follows_says_what_it_knows() {
    let fin = "5ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443\n\
               6ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n";
    let close = |facts| verdict(&format!("{fin}9ms sk=a FIN_WAIT2>CLOSE {ENDS} shut=3 {facts}"));
    assert_eq!(close("dead unread=1 peer-fin"), "local fin");
    assert_eq!(close("unread=5 peer-fin"), "local fin", "a FIN came: nothing was reset");
    let gone = "local unknown: several-causes";
    assert_eq!(close("dead unread=0"), gone, "no room for a minisock, or its record lost");
    assert_eq!(close("unread=4 at-close"), "local rst-unread-data");
    assert_eq!(close("unread=4 queued"), "local rst-sent-disconnect", "connect(AF_UNSPEC)");
    assert_eq!(close("unread=4"), "local unknown: fields-missing", "an old recording");
    let at_once = settled(&format!(
        "0ms begin unfollowed\n9ms sk=a FIN_WAIT2>CLOSE {ENDS} dead shut=3 unread=0\n"
    ));
    assert_eq!(at_once, ["FIN_WAIT2>CLOSE local unknown: no-minisock-hook"], "nothing to wait for");
}

#[test]
fn resets_by_close() {
    let close = |facts| verdict(&format!("9ms sk=a ESTABLISHED>CLOSE {ENDS} {facts}"));
    assert_eq!(close("shut=3 linger=0 unread=0"), "local rst-linger0");
    assert_eq!(close("shut=3 linger=0 unread=1"), "local rst-unread-data", "looked at first");
    assert_eq!(close("shut=3 unread=9"), "local rst-unread-data");
    assert_eq!(close("shut=0 unread=9"), "local rst-sent-disconnect");
    let nothing = "local unknown: contradiction";
    assert_eq!(close("shut=3 unread=0"), nothing, "close() would have sent a FIN");
    // Up to 6.16, a segment of which a part was read.
    let reset = |reason| {
        format!(
            "9ms sk=a ESTABLISHED>CLOSE {ENDS} shut=3 unread=0\n9ms sk=a reset-sent CLOSE {reason}"
        )
    };
    assert_eq!(verdict(&reset("abort-on-close")), "local rst-unread-data");
    assert_eq!(verdict(&reset("")), "local unknown: several-causes");
    assert_eq!(close("shut=3"), "local unknown: fields-missing", "no totals");
    assert_eq!(close("shut=3 unread=3 queued at-close"), nothing);
    let repair =
        |facts: &str| verdict(&format!("9ms sk=a ESTABLISHED>CLOSE {ENDS} {facts} repair"));
    assert_eq!(repair("shut=3 unread=9 linger=0"), "local dropped-repair");
    assert_eq!(repair("shut=0"), "local dropped-repair");
    let fin = |facts| {
        verdict(&format!(
            "8ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n9ms sk=a FIN_WAIT1>CLOSE {ENDS} {facts}"
        ))
    };
    assert_eq!(fin("shut=3 unread=0"), "local rst-sent-disconnect", "after shutdown(SHUT_RDWR)");
    assert_eq!(fin("shut=3 linger=0 unread=0"), "local rst-linger0");
    let wait = |facts| {
        verdict(&format!(
            "8ms sk=a ESTABLISHED>CLOSE_WAIT {ENDS}\n9ms sk=a CLOSE_WAIT>CLOSE {ENDS} {facts}"
        ))
    };
    assert_eq!(wait("shut=3 unread=1 peer-fin linger=0"), "remote rst-linger0", "the FIN is one");
    assert_eq!(wait("shut=3 unread=2 peer-fin linger=0"), "remote rst-unread-data");
    let last = |facts| {
        verdict(&format!(
            "8ms sk=a ESTABLISHED>CLOSE_WAIT {ENDS}\n8ms sk=a CLOSE_WAIT>LAST_ACK {ENDS}\n\
             9ms sk=a LAST_ACK>CLOSE {ENDS} shut=3 peer-fin {facts}"
        ))
    };
    assert_eq!(last("unacked=1 linger=0 at-close"), "remote dropped-disconnect", "no RST");
    assert_eq!(last("unacked=9 unsent=8 linger=0"), "remote rst-linger0");
    assert_eq!(last("unacked=9 unsent=8"), "remote rst-sent-disconnect");
    assert_eq!(last("unacked=1 unread=5 at-close"), "remote rst-unread-data");
    assert_eq!(last("unacked=1 linger=0"), "remote unknown: fields-missing", "an old recording");
}

#[test]
fn resets_by_the_peer_and_the_false_one() {
    let received = format!(
        "9ms sk=a reset-received ESTABLISHED\n9ms sk=a ESTABLISHED>CLOSE {ENDS} err=104 unread=0"
    );
    assert_eq!(verdict(&received), "remote rst-received");
    let fin = format!("8ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n9ms sk=a reset-received FIN_WAIT1\n");
    let close = format!("9ms sk=a FIN_WAIT1>CLOSE {ENDS} err=104 dead shut=3 unread=0");
    assert_eq!(verdict(&format!("{fin}{close}")), "local rst-received", "no RST followed");
    let data_after_close = format!("{fin}{close}\n9.1ms sk=a reset-sent CLOSE");
    assert_eq!(verdict(&data_after_close), "local rst-sent-data-after-close");
    let half_shut = format!("{fin}9ms sk=a FIN_WAIT1>CLOSE {ENDS} err=104 shut=2 unread=0");
    assert_eq!(verdict(&half_shut), "local rst-received", "one that still reads");
    let reused = format!("{fin}{close}\n9.1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.3:1");
    assert_eq!(verdict(&reused), "local rst-received");
}

#[test]
fn a_held_end_comes_after_its_time_and_counts_until_then() {
    let mut tracker = Tracker::default();
    let mut ends = 0;
    let lines = format!(
        "0ms begin\n\
         8ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n\
         9ms sk=a FIN_WAIT1>CLOSE {ENDS} err=104 dead shut=3\n\
         20ms tick\n"
    );
    let mut run = |tracker: &mut Tracker, lines: &str| {
        for input in script::inputs(lines).unwrap() {
            tracker.apply(&input, &mut |change| {
                ends += i32::from(matches!(change, Change::Moved(m) if m.new == TcpState::Close));
            });
        }
        ends
    };
    assert_eq!(run(&mut tracker, &lines), 0);
    assert_eq!(tracker.census().count(), 1);
    assert_eq!(run(&mut tracker, "60ms tick\n"), 1);
    assert_eq!(tracker.census().count(), 0);
}

#[test]
fn connects_that_come_to_nothing() {
    let connect = |close: &str| {
        let lines = format!(
            "0ms begin\n1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n2ms sk=a SYN_SENT>CLOSE {close}\n"
        );
        settled(&lines).join(", ")
    };
    let bound = |facts: &str| connect(&format!("{ENDS} {facts}"));
    assert_eq!(bound("err=111"), "SYN_SENT>CLOSE remote refused");
    assert_eq!(bound("err=113"), "SYN_SENT>CLOSE none unreachable");
    assert_eq!(bound("err=110"), "SYN_SENT>CLOSE none timeout-syn");
    assert_eq!(bound("err=103"), "SYN_SENT>CLOSE local sock-destroy");
    assert_eq!(bound("err=13"), "SYN_SENT>CLOSE none unreachable", "forbidden, by ICMPv6");
    assert_eq!(bound("shut=3"), "SYN_SENT>CLOSE local connect-abandoned");
    assert_eq!(bound("shut=0 unacked=1 at-close"), "SYN_SENT>CLOSE local connect-abandoned");
    let failed = "SYN_SENT>CLOSE none unknown: connect-failed-here";
    assert_eq!(bound("shut=0 unacked=1 nothing-sent"), failed);
    assert_eq!(bound("shut=0 unacked=1 unsent=1"), failed, "it did not get out of the host");
    assert_eq!(bound("shut=0"), "SYN_SENT>CLOSE - unknown: fields-missing", "an old recording");
    assert_eq!(connect("10.0.0.1:0 10.0.0.2:443"), "SYN_SENT>CLOSE none no-local-port");
}

#[test]
fn timeouts() {
    let close = |before: &str, facts| {
        verdict(&format!("{before}\n9ms sk=a ESTABLISHED>CLOSE {ENDS} err=110 {facts}"))
    };
    assert_eq!(close("", "unacked=1"), "none timeout-retransmit");
    assert_eq!(close("", "unacked=1 user-timeout=5000 at-close"), "none timeout-user");
    assert_eq!(close("", "unacked=9 unsent=8 user-timeout=5000"), "none timeout-user");
    // A closed window is probed up to either limit.
    let probed = "none unknown: several-causes";
    assert_eq!(close("", "unacked=9 unsent=9 probes=3 user-timeout=5000"), probed);
    assert_eq!(close("", "unacked=9 unsent=9 probes=3"), "none timeout-retransmit");
    let old = "none unknown: fields-missing";
    assert_eq!(close("", "unacked=9 user-timeout=5000"), old, "an old recording");
    let probe = "9ms sk=a reset-sent ESTABLISHED keepalive";
    assert_eq!(close(probe, "user-timeout=5000"), "none timeout-keepalive");
    assert_eq!(close("", "unacked=0 probes=3"), "none timeout-keepalive", "nothing was under way");
    assert_eq!(close("", ""), "none unknown: fields-missing");
    // A RST that the connection outlived: an ACK from an older one came for its SYN.
    let early = "0ms begin\n1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n\
                 1ms sk=a reset-sent SYN_SENT\n2ms sk=a SYN_SENT>ESTABLISHED ENDS\n\
                 9ms sk=a ESTABLISHED>CLOSE ENDS err=110 unacked=5\n";
    let all = settled(&early.replace("ENDS", ENDS));
    assert_eq!(all, ["ESTABLISHED>CLOSE none timeout-retransmit"]);
    let icmp = |facts| verdict(&format!("9ms sk=a ESTABLISHED>CLOSE {ENDS} err=113 {facts}"));
    let copied = icmp("unacked=1 soft=113");
    assert_eq!(copied, "none timeout-retransmit", "tcp_write_err() prefers sk_err_soft");
    assert_eq!(icmp("unacked=0 soft=113"), "none timeout-keepalive");
    assert_eq!(icmp("shut=3 linger=0 at-close"), "local rst-linger0", "IP_RECVERR had left it");
    assert_eq!(icmp("unacked=1"), "none unknown: fields-missing".replace("none", "-"));
}

#[test]
fn orphans() {
    let fin = format!("5ms sk=a ESTABLISHED>FIN_WAIT1 {ENDS}\n");
    let close = |more: &str| verdict(&format!("{fin}{more}"));
    let gone = |facts| format!("9ms sk=a FIN_WAIT1>CLOSE {ENDS} dead shut=3 {facts}");
    assert_eq!(close(&gone("err=110")), "local orphan-gave-up");
    assert_eq!(close(&gone("unacked=1")), "local unknown: no-rst");
    assert_eq!(close(&gone("")), "local unknown: no-rst", "no totals");
    let limit = format!("{}\n9ms sk=a reset-sent CLOSE abort-on-memory", gone("unacked=1"));
    assert_eq!(close(&limit), "local orphan-limit");
    let timer = format!("9ms sk=a reset-sent FIN_WAIT1\n{}", gone("unacked=1"));
    assert_eq!(close(&timer), "local orphan-limit", "tcp_out_of_resources()");
    let waits = format!(
        "6ms sk=a FIN_WAIT1>FIN_WAIT2 {ENDS}\n\
         9ms sk=a reset-sent FIN_WAIT2\n9ms sk=a FIN_WAIT2>CLOSE {ENDS} dead shut=3 unread=0"
    );
    assert_eq!(close(&waits), "local orphan-gave-up", "a full socket beyond TCP_TIMEWAIT_LEN");
    let linger2 = format!(
        "6ms sk=a FIN_WAIT1>FIN_WAIT2 {ENDS}\n\
         9ms sk=a FIN_WAIT2>CLOSE {ENDS} dead shut=3 linger2=-1\n\
         9ms sk=a reset-sent CLOSE abort-on-data"
    );
    assert_eq!(close(&linger2), "local rst-sent-linger2");
    let data = linger2.replace("linger2=-1", "linger2=0");
    assert_eq!(close(&data), "local rst-sent-data-after-close", "with the ACK of the FIN");
    let last_ack = format!(
        "5ms sk=a ESTABLISHED>CLOSE_WAIT {ENDS}\n6ms sk=a CLOSE_WAIT>LAST_ACK {ENDS}\n\
         9ms sk=a LAST_ACK>CLOSE {ENDS} dead shut=3 unacked=1\n9ms sk=a reset-sent CLOSE"
    );
    assert_eq!(verdict(&last_ack), "remote orphan-limit");
}

#[test]
fn the_classic_record_settles_what_the_order_says() {
    let classic = |lines: &str| settled(&format!("0ms begin\n{lines}\n")).join(", ");
    assert_eq!(
        classic(&format!(
            "1ms sk=a reset-received SYN_SENT\n1ms sk=a SYN_SENT>CLOSE {ENDS} classic"
        )),
        "SYN_SENT>CLOSE remote refused",
        "a RST of a socket that was not known yet"
    );
    assert_eq!(
        classic(&format!(
            "1ms sk=a CLOSE>SYN_SENT {ENDS} classic\n1ms sk=a reset-received SYN_SENT\n\
             1ms sk=a SYN_SENT>CLOSE {ENDS} classic"
        )),
        "SYN_SENT>CLOSE remote refused"
    );
    let last_ack = |after, more: &str| {
        let lines = format!(
            "1ms sk=a CLOSE_WAIT>LAST_ACK {ENDS} classic\n{more}\n\
             {}ms sk=a LAST_ACK>CLOSE {ENDS} classic",
            1 + after
        );
        let all = classic(&lines);
        all.rsplit_once(", ").map_or(all.clone(), |(_, last)| last.to_owned())
    };
    assert_eq!(last_ack(199, ""), "LAST_ACK>CLOSE remote fin");
    let gave_up = "LAST_ACK>CLOSE remote unknown: classic-hook";
    assert_eq!(last_ack(200, ""), gave_up, "a FIN may have been sent again, for the last time");
    let memory = "9ms sk=a reset-sent LAST_ACK abort-on-memory";
    assert_eq!(last_ack(99, memory), "LAST_ACK>CLOSE remote orphan-limit");
    assert_eq!(last_ack(99, "50ms lost 1"), gave_up, "it may have been there for longer");
    let unseen = classic(&format!("1ms sk=a LAST_ACK>CLOSE {ENDS} classic"));
    assert_eq!(unseen, gave_up, "in LAST_ACK for who knows how long");
    let established = |before: &str| {
        classic(&format!(
            "1ms sk=a CLOSE>SYN_SENT {ENDS} classic\n2ms sk=a SYN_SENT>ESTABLISHED \
                          {ENDS} classic\n{before}\n3ms sk=a ESTABLISHED>CLOSE {ENDS} classic"
        ))
    };
    assert_eq!(established(""), "ESTABLISHED>CLOSE - unknown: classic-hook");
    let probe = "3ms sk=a reset-sent ESTABLISHED keepalive";
    assert_eq!(established(probe), "ESTABLISHED>CLOSE none timeout-keepalive");
}

/// Each with the state in which a snapshot found it.
#[test]
fn what_was_closing_before_was_closed_first_by_the_end_that_its_state_tells() {
    let seeded = |state: &str, lines: &str| {
        let all = settled(&format!(
            "0ms begin\n1ms snapshot open\n1ms snapshot 5\n1ms socket {state} 1 {ENDS}\n\
             1ms snapshot end\n1ms snapshot over\n2ms tick\n{}\n9000ms tick\n",
            lines.replace("ENDS", &format!("{ENDS} cookie=1 netns=5"))
        ));
        all.join(", ")
    };
    let time_wait = "6ms tw=b started TIME_WAIT ENDS expires=60000ms\n\
                     6ms sk=a FIN_WAIT2>CLOSE ENDS dead shut=3";
    let finwait1 = format!("5ms sk=a FIN_WAIT1>FIN_WAIT2 ENDS\n{time_wait}");
    for (state, lines, expected) in [
        ("FIN_WAIT1", &*finwait1, "FIN_WAIT1>FIN_WAIT2 local -, FIN_WAIT2>TIME_WAIT local fin"),
        (
            "FIN_WAIT1",
            "5ms sk=a FIN_WAIT1>CLOSING ENDS\n\
             6ms tw=b started TIME_WAIT ENDS expires=60000ms\n\
             6ms sk=a CLOSING>CLOSE ENDS dead shut=3",
            "FIN_WAIT1>CLOSING both -, CLOSING>TIME_WAIT both fin",
        ),
        ("FIN_WAIT2", time_wait, "FIN_WAIT2>TIME_WAIT local fin"),
        (
            "CLOSING",
            "6ms tw=b started TIME_WAIT ENDS expires=60000ms\n\
             6ms sk=a CLOSING>CLOSE ENDS dead shut=3",
            "CLOSING>TIME_WAIT both fin",
        ),
        (
            "CLOSE_WAIT",
            "5ms sk=a CLOSE_WAIT>LAST_ACK ENDS\n\
             6ms sk=a LAST_ACK>CLOSE ENDS dead shut=3 unacked=0 peer-fin",
            "CLOSE_WAIT>LAST_ACK remote -, LAST_ACK>CLOSE remote fin",
        ),
        (
            "LAST_ACK",
            "6ms sk=a LAST_ACK>CLOSE ENDS dead shut=3 unacked=0",
            "LAST_ACK>CLOSE remote fin",
        ),
    ] {
        assert_eq!(seeded(state, lines), expected, "{state}");
    }
}

#[test]
fn an_orphan_from_before_was_closed_here_first() {
    let orphan = |lines: &str| {
        settled(&format!(
            "0ms begin\n1ms snapshot open\n1ms snapshot 5\n\
             1ms socket FIN_WAIT2 1 {ENDS} 59000\n1ms snapshot end\n1ms snapshot over\n2ms tick\n{}",
            lines.replace("ENDS", &format!("{ENDS} cookie=1 netns=5"))
        ))
    };
    let moved = ["FIN_WAIT2>TIME_WAIT local fin", "TIME_WAIT>CLOSE local fin"];
    let restarted = "500ms tw=b restarted TIME_WAIT ENDS expires=60500ms\n\
                     60501ms tw=b expired TIME_WAIT ENDS expires=60500ms\n";
    assert_eq!(orphan(restarted), moved);
    // The first that is told of it is its end.
    assert_eq!(orphan("60501ms tw=b expired TIME_WAIT ENDS expires=60500ms\n"), moved);
    // Nothing tells but the next round.
    let again = format!(
        "1000ms snapshot open\n1000ms snapshot 5\n1000ms socket TIME_WAIT 1 {ENDS} 59500\n\
         1000ms snapshot end\n1000ms snapshot over\n1001ms tick\n"
    );
    assert_eq!(orphan(&again), moved[..1]);
    assert_eq!(
        orphan("60001ms tw=b expired FIN_WAIT2 ENDS expires=60000ms\n"),
        ["FIN_WAIT2>CLOSE local orphan-gave-up"]
    );
}
