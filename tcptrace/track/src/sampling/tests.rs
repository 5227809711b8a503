//! Hand-overs and ends as looks tell them. A look is written as one line of the script.

use std::fmt::Write as _;

use crate::{DEFAULT_LIMIT, Tracker};
use tcptrace_model::{Age, Change, Found, Moved, TcpState, script};

/// Runs a script after `begin sampled` and prints each change; then how many are tracked.
///
/// The census must be at each moment what the changes add up to.
fn tell_within(limit: usize, lines: &str) -> (String, Tracker) {
    let mut tracker = Tracker::new(limit);
    let mut text = String::new();
    let mut population = [0_i64; 13];
    for input in script::inputs(&format!("0ms begin sampled\n{lines}")).unwrap() {
        tracker.apply(&input, &mut |change| match change {
            Change::Found(Found { state, .. }) => {
                population[state as usize] += 1;
                writeln!(text, "found {state}").unwrap();
            }
            Change::Gone(Found { state, .. }) => {
                population[state as usize] -= 1;
                writeln!(text, "gone {state}").unwrap();
            }
            Change::Retired(_) => {}
            Change::Moved(moved) => {
                let Moved { mono_ns, old, new, in_old, .. } = moved;
                population[old as usize] -= i64::from(!moved.is_birth());
                population[new as usize] += i64::from(new != TcpState::Close);
                let ms = |ns| ns / 1_000_000;
                let age = match in_old {
                    Age::Unknown => "?".to_owned(),
                    Age::AtLeast(ns) => format!(">={}", ms(ns)),
                    Age::About { ns, within_ns } => format!("{}±{}", ms(ns), ms(within_ns)),
                    Age::Exactly(ns) => format!("{}", ms(ns)),
                };
                let why = moved.end_reason.map_or("", |reason| reason.name());
                let at = ms(mono_ns);
                writeln!(text, "{}", format!("{at} {old}>{new} {age} {why}").trim_end()).unwrap();
            }
        });
        let mut census = [0_i64; 13];
        tracker.census().for_each(|found| census[found.state as usize] += 1);
        assert_eq!(census, population, "after {input:?}");
    }
    (text, tracker)
}

fn tell(lines: &str) -> String {
    let (text, tracker) = tell_within(DEFAULT_LIMIT, lines);
    let counts = tracker.counts();
    assert_eq!((counts.anomalies, counts.corrected), (0, 0), "{counts:?}");
    format!("{}; {} left", text.trim_end().replace('\n', ", "), counts.tracked)
}

/// A look that takes 2 ms, of namespace 5, and the tick after it.
fn look(ms: u32, sockets: &[&str]) -> String {
    let mut text = format!("{ms}ms snapshot minisocks\n{ms}ms snapshot 5\n");
    for socket in sockets {
        writeln!(text, "{ms}ms socket {socket}").unwrap();
    }
    let end = ms + 2;
    text + &format!("{end}ms snapshot end\n{end}ms snapshot over\n{end}.5ms tick\n")
}

const A: &str = "10.0.0.1:7 10.0.0.2:443";

/// In FIN_WAIT2 since 10 ms, handed over (or ended) at 20 ms, after a first look.
fn closed(details: &str) -> String {
    look(1, &[])
        + &format!(
            "10ms sk=a FIN_WAIT1>FIN_WAIT2 {A} cookie=1 netns=5\n\
             20ms sk=a FIN_WAIT2>CLOSE {A} cookie=1 netns=5 {details}\n"
        )
}

/// What precedes in all that is told of [`closed`].
const CLOSED: &str = "found FIN_WAIT1, 10 FIN_WAIT1>FIN_WAIT2 >=10";

fn tell_closed(details: &str, then: &str) -> String {
    let told = tell(&(closed(details) + then));
    told.strip_prefix(CLOSED).unwrap().trim_start_matches(", ").to_owned()
}

fn row(state: &str, left_ms: u32) -> String {
    format!("{state} 1 {A} {left_ms}")
}

#[test]
fn nothing_is_told_before_the_look_after_it_and_its_tick() {
    assert_eq!(tell_closed("", ""), "; 1 left");
    let under_way = look(1000, &[&row("TIME_WAIT", 59020)]).replace("1002.5ms tick\n", "");
    assert_eq!(tell_closed("", &under_way), "; 1 left");
    // One that began before it proves nothing.
    assert_eq!(tell_closed("", &look(19, &[])), "; 1 left");
}

#[test]
fn a_minisock_that_stands_there_is_a_hand_over() {
    // Held by its process: the FIN made the minisock, at that very moment.
    let told = tell_closed("", &look(1000, &[&row("TIME_WAIT", 59020)]));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10; 1 left");
    // Closed: in FIN_WAIT2 until the FIN came, which the timer tells to the length of the look
    // and two jiffies.
    let told = tell_closed("dead", &look(1000, &[&row("TIME_WAIT", 59020)]));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10±10; 1 left");
    let told = tell_closed("dead peer-fin", &look(1000, &[&row("TIME_WAIT", 59020)]));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10; 1 left", "closed while its FIN was under way");
    // The timer was last started at 502 ms, perhaps not for the first time.
    let told = tell_closed("dead", &look(1000, &[&row("TIME_WAIT", 59500)]));
    assert_eq!(told, "502 FIN_WAIT2>TIME_WAIT 492±482; 1 left");
    let told = tell_closed("dead", &look(1000, &[&row("FIN_WAIT2", 29020)]));
    assert_eq!(told, "; 1 left");
}

#[test]
fn a_minisock_born_while_the_look_is_taken_counts() {
    let told = tell_closed("", &look(19, &[&row("TIME_WAIT", 60000)]));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10; 1 left");
}

#[test]
fn where_none_stands_it_is_not_known_whether_there_was_one() {
    assert_eq!(tell_closed("", &look(1000, &[])), "20 FIN_WAIT2>CLOSE 10 unknown; 0 left");
    // Nor does a namespace tell that the look after it did not find.
    let other = look(1000, &[]).replace("snapshot 5", "snapshot 6");
    assert_eq!(tell_closed("", &other), "20 FIN_WAIT2>CLOSE 10 unknown; 0 left");
}

#[test]
fn what_is_known_is_told() {
    let told = tell_closed("full", &look(1000, &[]));
    assert_eq!(told, "20 FIN_WAIT2>CLOSE 10 never-created; 0 left");
    // The last for which there was room.
    let told = tell_closed("full", &look(1000, &[&row("TIME_WAIT", 59020)]));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10; 1 left");
    // ECONNRESET comes with the end.
    assert_eq!(tell_closed("err=104", ""), "20 FIN_WAIT2>CLOSE 10; 0 left");
    // ECONNREFUSED may be what an ICMP message left.
    assert_eq!(tell_closed("err=111", ""), "; 1 left");
}

#[test]
fn a_reset_right_after_says_that_it_was_an_end() {
    // An orphan that is a full socket still, and is given up.
    let told = tell_closed("dead", "21ms sk=a reset-sent CLOSE other\n");
    assert_eq!(told, "20 FIN_WAIT2>CLOSE 10; 0 left");
    // Of a socket that is at this address later.
    assert_eq!(tell_closed("dead", "99ms sk=a reset-sent CLOSE other\n"), "; 1 left");
    // The peer's FIN had come: whatever it was, both were through.
    assert_eq!(tell_closed("dead peer-fin", "21ms sk=a reset-sent CLOSE other\n"), "; 1 left");
}

#[test]
fn a_look_that_lacks_some_proves_nothing() {
    let lacking = look(1000, &[]).replace("snapshot end", "snapshot end lacks-some");
    assert_eq!(tell_closed("", &lacking), "; 1 left");
    let told = tell_closed("", &(look(900, &[&row("TIME_WAIT", 59120)]) + &lacking));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10; 1 left");
}

#[test]
fn a_simultaneous_close_is_exact() {
    let told = tell(
        &(look(1, &[])
            + &format!(
                "10ms sk=a FIN_WAIT1>CLOSING {A} cookie=1 netns=5\n\
                 20ms sk=a CLOSING>CLOSE {A} cookie=1 netns=5 dead\n"
            )
            + &look(1000, &[&row("TIME_WAIT", 59020)])),
    );
    assert!(told.ends_with("20 CLOSING>TIME_WAIT 10; 1 left"), "{told}");
}

#[test]
fn without_cookies_the_ends_tell_and_the_last_has_the_minisock() {
    let once = |ms: u32| {
        format!(
            "{ms}ms sk=a FIN_WAIT1>FIN_WAIT2 {A} classic\n\
             {}ms sk=a FIN_WAIT2>CLOSE {A} classic\n",
            ms + 1
        )
    };
    let told =
        tell(&(look(1, &[]) + &once(10) + &once(20) + &look(30, &[&row("TIME_WAIT", 59990)])));
    assert!(
        told.ends_with("11 FIN_WAIT2>CLOSE 1 unknown, 21 FIN_WAIT2>TIME_WAIT 1±9; 1 left"),
        "{told}"
    );
}

#[test]
fn one_whose_time_was_over_has_expired_within_the_looks() {
    let seen = look(59_000, &[&row("TIME_WAIT", 1020)]);
    let late = look(60_000, &[&row("TIME_WAIT", 20)]);
    let later = look(61_000, &[&row("TIME_WAIT", 0)]);
    let told = tell_closed("", &(seen.clone() + &late + &look(61_000, &[])));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10, 60509 TIME_WAIT>CLOSE 60489±493 expired; 0 left");
    let told = tell_closed("", &(seen.clone() + &late + &later + &look(62_000, &[])));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10, 61501 TIME_WAIT>CLOSE 61481±501 expired; 0 left");
    // Time was left: something ended it, and nothing tells what.
    let told = tell_closed("", &(look(1000, &[&row("TIME_WAIT", 59020)]) + &look(3000, &[])));
    assert_eq!(
        told, "20 FIN_WAIT2>TIME_WAIT 10, 2001 TIME_WAIT>CLOSE 1981±1001 unknown; 0 left",
        "the true time between the looks counts"
    );
}

#[test]
fn an_orphan_moves_on_between_two_looks() {
    let orphan = look(1000, &[&row("FIN_WAIT2", 29020)]);
    // Its timer says 1492 ms; started anew or not, it was after the look at 1000.
    let told = tell_closed("dead", &(orphan.clone() + &look(2000, &[&row("TIME_WAIT", 59490)])));
    assert_eq!(told, "1492 FIN_WAIT2>TIME_WAIT 1482±492; 1 left");
    // What the timer says later does not count: a segment has started it anew.
    let moved = look(2000, &[&row("TIME_WAIT", 59490)]) + &look(3000, &[&row("TIME_WAIT", 60000)]);
    let told = tell_closed("dead", &(orphan.clone() + &moved + &look(63_100, &[])));
    assert!(told.ends_with("63049 TIME_WAIT>CLOSE 61557±545 expired; 0 left"), "{told}");
    let told = tell_closed("dead", &(orphan + &look(2000, &[])));
    assert_eq!(told, "1501 FIN_WAIT2>CLOSE 1491±501 unknown; 0 left");
}

#[test]
fn right_after_the_hand_over_is_as_late_as_ticks_allow() {
    // The timer's tick says 30 ms; it may have been at any moment before the end of the look.
    let told = tell_closed("dead", &look(30, &[&row("TIME_WAIT", 59_998)]));
    assert_eq!(told, "20 FIN_WAIT2>TIME_WAIT 10±12; 1 left");
}

#[test]
fn one_from_before_is_found_and_its_end_told() {
    let told = tell(&(look(90_001, &[&row("TIME_WAIT", 500)]) + &look(91_000, &[])));
    // 59.5 s of it were over; its timer cannot have run before 90497 ms.
    assert_eq!(told, "found TIME_WAIT, 90749 TIME_WAIT>CLOSE >=59994 expired; 0 left");
}

#[test]
fn a_whole_round_is_a_look_too() {
    let round = look(90_001, &[&row("TIME_WAIT", 500), "ESTABLISHED 2 10.0.0.1:8 10.0.0.2:443"])
        .replace("minisocks", "open");
    assert!(tell(&round).ends_with("; 2 left"));
    // And a look tells nothing of other sockets.
    let told = tell(&(round + &look(91_000, &[]) + &look(92_000, &[])));
    assert!(told.ends_with("90749 TIME_WAIT>CLOSE >=59994 expired; 1 left"), "{told}");
}

#[test]
fn a_namespace_that_two_looks_do_not_find_is_not_known_any_more() {
    let other = |ms| look(ms, &[]).replace("snapshot 5", "snapshot 6");
    let seen = look(1, &[&row("TIME_WAIT", 50_000)]);
    assert_eq!(tell(&(seen.clone() + &other(1000))), "found TIME_WAIT; 1 left");
    let told = tell(&(seen + &other(1000) + &other(2000)));
    assert_eq!(told, "found TIME_WAIT, gone TIME_WAIT; 0 left");
}

#[test]
fn a_hand_over_that_was_lost_is_made_good_by_two_looks() {
    let lost = look(1, &[])
        + &format!("10ms sk=a FIN_WAIT1>FIN_WAIT2 {A} cookie=1 netns=5\n30ms lost 1\n")
        + &look(1000, &[&row("TIME_WAIT", 59020)]);
    let (text, _) = tell_within(9, &lost);
    assert!(text.ends_with("10 FIN_WAIT1>FIN_WAIT2 >=10\n"), "{text}");
    let (text, tracker) = tell_within(9, &(lost + &look(2000, &[&row("TIME_WAIT", 58020)])));
    assert!(text.ends_with("gone FIN_WAIT2\nfound TIME_WAIT\n"), "{text}");
    let counts = tracker.counts();
    assert_eq!((counts.resynchronised, counts.corrected, counts.tracked), (1, 0, 1));
    // One that nothing else is known of is drift.
    let rows = [&*row("TIME_WAIT", 59020)];
    let (text, tracker) = tell_within(9, &(look(1, &[]) + &look(9, &rows) + &look(19, &rows)));
    assert_eq!((text.as_str(), tracker.counts().corrected), ("found TIME_WAIT\n", 1));
}

#[test]
fn a_hand_over_that_was_told_after_the_looks_is_one() {
    let rows = [&*row("TIME_WAIT", 59020)];
    let (text, tracker) = tell_within(
        9,
        &(look(1, &[])
            + &look(9, &rows)
            + &look(19, &rows)
            + &format!("5ms sk=a FIN_WAIT2>CLOSE {A} cookie=1 netns=5\n")),
    );
    assert_eq!(text, "found TIME_WAIT\nfound FIN_WAIT2\ngone FIN_WAIT2\n");
    assert_eq!(tracker.counts().tracked, 1);
}

#[test]
fn past_the_limit_the_oldest_is_not_known_any_more() {
    let other = "sk=b FIN_WAIT2>CLOSE 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=5";
    let (text, tracker) = tell_within(1, &(closed("") + &format!("21ms {other}\n")));
    // It may have been a hand-over as well as an end.
    assert!(text.ends_with("gone FIN_WAIT2\n"), "{text}");
    assert_eq!(tracker.counts().evicted, 1);
}

/// A process that holds its socket connects it again, from other ports: its minisocks and the full
/// socket have one cookie.
#[test]
fn minisocks_of_one_socket_are_told_apart() {
    let ends = |port: u16| format!("10.0.0.1:{port} 10.0.0.2:443");
    let close = |ms: u32, port: u16| {
        let ends = ends(port);
        format!(
            "{ms}ms sk=a CLOSE>SYN_SENT {ends} cookie=1 netns=5\n\
             {ms}ms sk=a SYN_SENT>ESTABLISHED {ends} cookie=1 netns=5\n\
             {ms}ms sk=a ESTABLISHED>FIN_WAIT1 {ends} cookie=1 netns=5\n\
             {ms}ms sk=a FIN_WAIT1>FIN_WAIT2 {ends} cookie=1 netns=5\n\
             {ms}ms sk=a FIN_WAIT2>CLOSE {ends} cookie=1 netns=5\n"
        )
    };
    let row = |port: u16, left_ms: u32| format!("TIME_WAIT 1 {} {left_ms}", ends(port));
    let both = |left_ms: u32| [row(7, left_ms), row(8, left_ms)];
    let looks: String = [(1000, 59_020), (2000, 58_020), (3000, 57_020)]
        .map(|(ms, left_ms)| look(ms, &both(left_ms).each_ref().map(String::as_str)))
        .concat();
    let third = ends(9);
    let before = format!(
        "{}{}{}30ms sk=a CLOSE>SYN_SENT {third} cookie=1 netns=5\n\
         31ms sk=a SYN_SENT>ESTABLISHED {third} cookie=1 netns=5\n{looks}",
        look(1, &[]),
        close(10, 7),
        close(20, 8)
    );
    let told = tell(&before);
    assert_eq!(told.matches("FIN_WAIT2>TIME_WAIT").count(), 2, "{told}");
    assert!(told.ends_with("; 3 left"), "{told}");
    // Those of which nothing was told are not taken for the full socket's.
    let strange = look(1, &[]) + &close(10, 9).replace("FIN_WAIT2>CLOSE", "FIN_WAIT2>FIN_WAIT2");
    let (text, tracker) = tell_within(9, &(strange + &looks));
    assert!(!text.contains("gone"), "{text}");
    assert_eq!((tracker.counts().corrected, tracker.counts().tracked), (2, 3), "{text}");
    // One ends, the other does not.
    let told = tell(&(before + &look(4000, &[&row(8, 56_020)]) + &look(5000, &[&row(8, 55_020)])));
    assert_eq!(told.matches("TIME_WAIT>CLOSE").count(), 1, "{told}");
    assert!(told.ends_with("; 2 left"), "{told}");
}
