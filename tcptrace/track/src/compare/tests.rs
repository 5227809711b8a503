//! The races between events and snapshots, one test each. A round is written as one line; what
//! is told before it and after it is what may come so from a live host.

use std::fmt::Write as _;

use crate::{DEFAULT_LIMIT, Tracker};
use tcptrace_model::{Age, Change, Found, Moved, TcpState, script};

/// What came of a script.
struct Told {
    /// One change a line.
    text: String,
    /// Connections in each state.
    population: [i64; 13],
    tracker: Tracker,
}

impl Told {
    fn now(&self, state: TcpState) -> i64 {
        self.population[state as usize]
    }

    fn total(&self) -> i64 {
        self.population.iter().sum()
    }

    fn corrected(&self) -> u64 {
        self.tracker.counts().corrected
    }
}

fn tell(lines: &str) -> Told {
    tell_within(DEFAULT_LIMIT, lines)
}

/// Runs a script. The counts are checked against the law after each change: never below 0.
fn tell_within(limit: usize, lines: &str) -> Told {
    let mut told = Told { text: String::new(), population: [0; 13], tracker: Tracker::new(limit) };
    for input in script::inputs(lines).unwrap() {
        let Told { text, population, tracker } = &mut told;
        tracker.apply(&input, &mut |change| {
            match change {
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
                    let Moved { old, new, in_old, .. } = moved;
                    if !moved.is_birth() {
                        population[old as usize] -= 1;
                    }
                    population[new as usize] += i64::from(new != TcpState::Close);
                    let age = match in_old {
                        Age::Unknown => "?".to_owned(),
                        Age::AtLeast(ns) => format!(">={}ms", ns / 1_000_000),
                        Age::About { ns, .. } => format!("~{}ms", ns / 1_000_000),
                        Age::Exactly(ns) => format!("{}ms", ns / 1_000_000),
                    };
                    let reason = moved.end_reason.map_or("", |reason| reason.name());
                    writeln!(text, "{}", format!("{old}>{new} {age} {reason}").trim_end()).unwrap();
                }
            }
            assert!(population.iter().all(|&count| count >= 0), "{population:?}\n{text}");
        });
    }
    told
}

/// A whole round of namespace 5 at one moment, with the tick after it.
fn round(ms: u32, sockets: &[&str]) -> String {
    let mut text = format!("{ms}ms snapshot open\n{ms}ms snapshot 5\n");
    for socket in sockets {
        writeln!(text, "{ms}ms socket {socket}").unwrap();
    }
    text + &format!("{ms}ms snapshot end\n{ms}ms snapshot over\n{ms}.5ms tick\n")
}

const A: &str = "10.0.0.1:7 10.0.0.2:443";

#[test]
fn what_was_there_before_is_found_and_carries_on() {
    let told = tell(&format!(
        "0ms begin\n{}\
         50ms sk=a ESTABLISHED>CLOSE_WAIT {A} cookie=1 netns=5\n\
         60ms tw=b expired TIME_WAIT 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=5\n",
        round(
            10,
            &[
                &format!("ESTABLISHED 1 {A}"),
                "TIME_WAIT 2 10.0.0.1:8 10.0.0.2:443 20000",
                "LISTEN 3 10.0.0.1:80 0.0.0.0:0"
            ]
        )
    ));
    let mut lines: Vec<_> = told.text.lines().collect();
    lines[..3].sort_unstable();
    // A snapshot sees a state, so the time in it is at least from then on. What a TIME_WAIT had
    // left when it was seen says more: 40 s of it were over.
    assert_eq!(
        lines,
        [
            "found ESTABLISHED",
            "found LISTEN",
            "found TIME_WAIT",
            "ESTABLISHED>CLOSE_WAIT >=40ms",
            "TIME_WAIT>CLOSE >=60ms expired"
        ]
    );
    assert_eq!((told.corrected(), told.now(TcpState::Listen)), (0, 1));
}

/// Up to 6.12 a child is born without a cookie and with the ends of its listener.
#[test]
fn a_child_that_is_being_born_is_not_its_listener() {
    let listener = "LISTEN 3 10.0.0.1:80 0.0.0.0:0";
    let birth = "sk=c LISTEN>SYN_RECV 10.0.0.1:80 0.0.0.0:0 netns=5";
    let accepted = "sk=c SYN_RECV>ESTABLISHED 10.0.0.1:80 10.0.0.2:7 cookie=9 netns=5";
    let before =
        tell(&format!("0ms begin\n5ms {birth}\n{}15ms {accepted}\n", round(10, &[listener])));
    let after =
        tell(&format!("0ms begin\n{}15ms {birth}\n16ms {accepted}\n", round(10, &[listener])));
    for told in [before, after] {
        assert_eq!(told.now(TcpState::Listen), 1, "{}", told.text);
        assert_eq!(told.now(TcpState::Established), 1, "{}", told.text);
        assert!(!told.text.contains("gone"), "{}", told.text);
        assert!(!told.tracker.in_doubt(), "{}", told.text);
    }
}

#[test]
fn nothing_is_concluded_before_the_tick() {
    let round = round(10, &[&format!("ESTABLISHED 1 {A}")]);
    let (unobserved_expiries, _) = round.rsplit_once("10.5ms").unwrap();
    assert_eq!(tell(&format!("0ms begin\n{unobserved_expiries}9ms tick\n")).text, "");
    assert_eq!(tell(&format!("0ms begin\n{round}")).text, "found ESTABLISHED\n");
}

#[test]
fn a_socket_that_moved_before_the_dump_and_is_told_after_it_is_counted_once() {
    // Both events are in the ring when the dump is taken in.
    let told = tell(&format!(
        "0ms begin\n10ms snapshot open\n10ms snapshot 5\n12ms socket FIN_WAIT1 1 {A}\n\
         12ms socket SYN_SENT 2 10.0.0.1:9 10.0.0.2:443\n\
         12ms snapshot end\n12ms snapshot over\n\
         9ms sk=a ESTABLISHED>FIN_WAIT1 {A} cookie=1 netns=5\n\
         9ms sk=b CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie=2 netns=5\n\
         13ms tick\n"
    ));
    assert_eq!(told.text, "found ESTABLISHED\nESTABLISHED>FIN_WAIT1 >=9ms\nCLOSE>SYN_SENT ?\n");
    assert_eq!(told.total(), 2);
}

#[test]
fn a_socket_that_moved_after_it_was_dumped_is_as_its_events_say() {
    let told = tell(&format!(
        "0ms begin\n10ms snapshot open\n10ms snapshot 5\n10ms socket ESTABLISHED 1 {A}\n\
         11ms sk=a ESTABLISHED>CLOSE_WAIT {A} cookie=1 netns=5\n\
         12ms snapshot end\n12ms snapshot over\n13ms tick\n{}{}",
        round(20, &[&format!("CLOSE_WAIT 1 {A}")]),
        round(30, &[&format!("CLOSE_WAIT 1 {A}")])
    ));
    assert_eq!(told.text, "found ESTABLISHED\nESTABLISHED>CLOSE_WAIT >=11ms\n");
    assert_eq!((told.now(TcpState::CloseWait), told.corrected()), (1, 0));
}

#[test]
fn a_socket_that_lived_only_while_the_dump_was_taken_leaves_no_trace() {
    for cookie in ["cookie=1", ""] {
        let told = tell(&format!(
            "0ms begin\n10ms snapshot open\n\
             11ms sk=a CLOSE>SYN_SENT {A} {cookie} netns=5\n\
             12ms sk=a SYN_SENT>CLOSE {A} {cookie} netns=5\n\
             10ms snapshot 5\n11ms socket SYN_SENT 1 {A}\n\
             12ms snapshot end\n12ms snapshot over\n13ms tick\n"
        ));
        assert_eq!(told.total(), 0, "{}", told.text);
    }
}

#[test]
fn a_minisock_that_ended_while_the_dump_was_taken_is_not_found_again() {
    let told = tell(&format!(
        "0ms begin\n10ms snapshot open\n\
         11ms tw=b expired TIME_WAIT {A} cookie=1 netns=5\n\
         10ms snapshot 5\n10ms socket TIME_WAIT 1 {A} 1\n\
         12ms snapshot end\n12ms snapshot over\n13ms tick\n"
    ));
    assert_eq!(told.text, "found TIME_WAIT\nTIME_WAIT>CLOSE >=8ms expired\n");
}

#[test]
fn a_seed_that_closes_hands_over_to_its_minisock() {
    let told = tell(&format!(
        "0ms begin\n{}\
         20ms tw=b started TIME_WAIT {A} cookie=1 netns=5 expires=60020ms\n\
         20.1ms sk=a FIN_WAIT2>CLOSE {A} cookie=1 netns=5\n21ms tick\n",
        round(10, &[&format!("FIN_WAIT2 1 {A}")])
    ));
    assert_eq!(told.text, "found FIN_WAIT2\nFIN_WAIT2>TIME_WAIT >=10ms\n");
    assert_eq!((told.now(TcpState::TimeWait), told.total()), (1, 1));
}

#[test]
fn an_orphan_that_got_its_fin_unseen_has_moved_and_not_drifted() {
    // A seed, and one whose birth was seen: in both the timer stayed in its slot of the wheel.
    let told = tell(&format!(
        "0ms begin\n{}\
         20ms tw=c started FIN_WAIT2 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=5 expires=60020ms\n\
         20.1ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=5\n21ms tick\n{}",
        round(10, &[&format!("FIN_WAIT2 1 {A} 60000"), "FIN_WAIT2 2 10.0.0.1:8 10.0.0.2:443"]),
        round(
            1010,
            &[&format!("TIME_WAIT 1 {A} 59900"), "TIME_WAIT 2 10.0.0.1:8 10.0.0.2:443 59800"]
        )
    ));
    let mut moves: Vec<_> = told.text.lines().filter(|line| line.contains('>')).collect();
    moves.sort_unstable();
    // Entered at 910 and 810 ms; in FIN_WAIT2 at least from 10 ms on.
    assert_eq!(moves, ["FIN_WAIT2>TIME_WAIT >=800ms", "FIN_WAIT2>TIME_WAIT >=900ms"]);
    assert_eq!((told.now(TcpState::TimeWait), told.corrected()), (2, 0));
}

#[test]
fn a_socket_that_one_dump_leaves_out_is_kept() {
    let there = round(10, &[&format!("ESTABLISHED 1 {A}")]);
    let told = tell(&format!(
        "0ms begin\n{there}{}{}",
        round(20, &[]),
        round(30, &[&format!("ESTABLISHED 1 {A}")])
    ));
    assert_eq!(told.text, "found ESTABLISHED\n");
    assert!(!told.tracker.in_doubt());
}

#[test]
fn what_two_rounds_do_not_have_is_gone_and_a_drift() {
    let there = round(10, &[&format!("ESTABLISHED 1 {A}")]);
    let once = format!(
        "0ms begin\n{there}11ms sk=b CLOSE>LISTEN 10.0.0.1:80 0.0.0.0:0 cookie=2 netns=5\n{}",
        round(20, &[])
    );
    assert!(tell(&once).tracker.in_doubt());
    let told = tell(&format!("{once}{}", round(30, &[])));
    let mut gone: Vec<_> = told.text.lines().filter(|line| line.starts_with("gone")).collect();
    gone.sort_unstable();
    assert_eq!(gone, ["gone ESTABLISHED", "gone LISTEN"]);
    assert_eq!((told.corrected(), told.tracker.in_doubt()), (2, false));
}

#[test]
fn a_dump_that_lacks_some_says_of_none_that_it_is_gone() {
    let lacking = round(20, &[]).replace("snapshot end", "snapshot end lacks-some");
    let there = round(10, &[&format!("ESTABLISHED 1 {A}")]);
    let told = tell(&format!("0ms begin\n{there}{lacking}{}", lacking.replace("20", "30")));
    assert_eq!(told.text, "found ESTABLISHED\n");
}

#[test]
fn what_only_two_later_rounds_have_is_found_and_a_drift() {
    let told = tell(&format!(
        "0ms begin\n{}{}{}",
        round(10, &[]),
        round(20, &[&format!("ESTABLISHED 1 {A}")]),
        round(30, &[&format!("ESTABLISHED 1 {A}")])
    ));
    assert_eq!((told.text.as_str(), told.corrected()), ("found ESTABLISHED\n", 1));
}

#[test]
fn another_state_is_believed_when_two_rounds_have_it() {
    let told = tell(&format!(
        "0ms begin\n{}15ms lost 3\n{}{}",
        round(10, &[&format!("ESTABLISHED 1 {A}")]),
        round(20, &[&format!("CLOSE_WAIT 1 {A}")]),
        round(30, &[&format!("CLOSE_WAIT 1 {A}")])
    ));
    assert_eq!(told.text, "found ESTABLISHED\ngone ESTABLISHED\nfound CLOSE_WAIT\n");
    assert_eq!(told.corrected(), 1);
}

#[test]
fn a_birth_that_is_told_late_takes_the_place_of_its_seed() {
    let told = tell(&format!(
        "0ms begin\n{}\
         9ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie=1 netns=5\n",
        round(10, &[&format!("SYN_SENT 1 {A}")])
    ));
    assert_eq!(told.text, "found SYN_SENT\ngone SYN_SENT\nCLOSE>SYN_SENT ?\n");
}

#[test]
fn without_cookies_the_ends_tell_which_is_which() {
    // Two listeners share a port, a connection is seeded, another is seen, one is connecting and
    // has no local port yet.
    let rows: &[&str] = &[
        "LISTEN 1 10.0.0.1:80 0.0.0.0:0",
        "LISTEN 2 10.0.0.1:80 0.0.0.0:0",
        &format!("ESTABLISHED 3 {A}"),
        "ESTABLISHED 4 10.0.0.1:80 10.0.0.9:5",
    ];
    let told = tell(&format!(
        "0ms begin\n\
         5ms sk=b CLOSE>LISTEN 10.0.0.1:80 0.0.0.0:0 netns=5\n{}\
         11ms sk=d CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.3:443 netns=5\n\
         12ms sk=a LISTEN>CLOSE 10.0.0.1:80 0.0.0.0:0 netns=5\n{}{}\
         40ms sk=c ESTABLISHED>CLOSE_WAIT {A} netns=5\n",
        round(10, rows),
        round(20, &rows[1..]),
        round(30, &rows[1..])
    ));
    assert_eq!(told.corrected(), 0, "{}", told.text);
    assert_eq!(told.now(TcpState::Listen), 1);
    assert_eq!(told.now(TcpState::Established), 1);
    assert_eq!(told.now(TcpState::CloseWait), 1);
    assert!(told.text.ends_with("ESTABLISHED>CLOSE_WAIT >=30ms\n"), "{}", told.text);
}

#[test]
fn the_classic_hook_learns_the_namespace_from_a_snapshot() {
    let rows: &[&str] = &[&format!("CLOSE_WAIT 1 {A}")];
    let told = tell(&format!(
        "0ms begin\n{}15ms sk=a ESTABLISHED>CLOSE_WAIT {A} classic\n{}{}{}",
        round(10, &[&format!("ESTABLISHED 1 {A}")]),
        round(20, rows),
        round(30, &[]),
        round(40, &[])
    ));
    assert_eq!(told.text, "found ESTABLISHED\nESTABLISHED>CLOSE_WAIT >=5ms\ngone CLOSE_WAIT\n");
}

#[test]
fn a_namespace_that_went_takes_its_connections_along() {
    let told = tell(&format!(
        "0ms begin\n10ms snapshot open\n\
         10ms snapshot 5\n10ms socket ESTABLISHED 1 {A}\n10ms snapshot end\n\
         10ms snapshot 6\n10ms socket ESTABLISHED 2 {A}\n10ms snapshot end\n\
         10ms snapshot over\n11ms tick\n{}{}",
        round(20, &[]),
        round(30, &[])
    ));
    // Of 6 nothing was said in the later rounds.
    assert_eq!(told.now(TcpState::Established), 1, "{}", told.text);
}

#[test]
fn more_than_there_is_room_for_is_counted_and_not_taken_for_gone() {
    let rows: Vec<String> =
        (0..5).map(|i| format!("ESTABLISHED {} 10.0.0.1:{} 10.0.0.2:443", i + 1, i + 7)).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let told = tell_within(
        3,
        &format!("0ms begin\n{}{}{}", round(10, &rows), round(20, &rows), round(30, &rows)),
    );
    assert_eq!(told.now(TcpState::Established), 3, "{}", told.text);
    assert_eq!(told.corrected(), 0);
}

/// `STATE OWNER FROM CGROUP UNREAD/UNSENT` of all that is known, sorted.
fn census(tracker: &Tracker) -> Vec<String> {
    let line = |found: Found| {
        let owner = found.owner.map_or("-".to_owned(), |owner| {
            format!("{}/{} {}", owner.task.tgid, owner.task.comm, owner.from.name())
        });
        let cgroup = found.cgroup.and_then(|id| tracker.cgroup(id));
        let cgroup = cgroup.map_or("-", |cgroup| cgroup.name());
        let queues = found
            .queues
            .map_or("-".to_owned(), |queues| format!("{}/{}", queues.unread, queues.unsent));
        format!("{} {owner} {cgroup} {queues}", found.state)
    };
    let mut lines: Vec<_> = tracker.census().map(line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_snapshot_tells_whose_it_is_and_what_is_in_its_queues() {
    const B: &str = "10.0.0.1:8 10.0.0.2:443";
    let first = round(
        10,
        &[
            "LISTEN 3 0.0.0.0:80 0.0.0.0:0 pid=5 comm=nginx holders=4 unsent=511 cgroup=7",
            &format!("CLOSE_WAIT 1 {A} pid=9 comm=leaky unread=1 cgroup=8"),
            &format!("ESTABLISHED 2 {B} pid=9 comm=leaky unsent=3"),
            "TIME_WAIT 4 10.0.0.1:9 10.0.0.2:443 30000",
        ],
    );
    let told = tell(&format!("0ms begin\n1ms cgroup 7 /system.slice/nginx.service\n{first}"));
    let known = [
        "CLOSE_WAIT 9/leaky snapshot - 1/0",
        "ESTABLISHED 9/leaky snapshot - -",
        "LISTEN 5/nginx snapshot nginx.service 0/511",
        "TIME_WAIT - - -",
    ];
    assert_eq!(census(&told.tracker), known);

    // The next round replaces the queues; what moved keeps its owner.
    let second = round(20, &[&format!("CLOSE_WAIT 1 {A} unread=9"), &format!("FIN_WAIT2 2 {B}")]);
    let told = tell(&format!(
        "0ms begin\n{first}15ms sk=b ESTABLISHED>FIN_WAIT1 {B} cookie=2 netns=5 comm=other pid=1\n\
         16ms sk=b FIN_WAIT1>FIN_WAIT2 {B} cookie=2 netns=5\n\
         17ms sk=c LISTEN>CLOSE 0.0.0.0:80 0.0.0.0:0 cookie=3 netns=5\n{second}"
    ));
    let known =
        ["CLOSE_WAIT 9/leaky snapshot - 9/0", "FIN_WAIT2 9/leaky snapshot - -", "TIME_WAIT - - -"];
    assert_eq!(census(&told.tracker), known);
    assert_eq!(told.corrected(), 0);
}

/// A connection whose TIME_WAIT begins at 10 ms, for 60 s.
const TO_TIME_WAIT: &str = "\
    5ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5\n\
    10ms tw=b started TIME_WAIT 10.0.0.1:7 10.0.0.2:443 expires=60010ms cookie=1 netns=5\n\
    10ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:0 10.0.0.2:443 cookie=1 netns=5\n";

#[test]
fn a_timer_that_was_due_and_nothing_told_of_has_run() {
    let before = format!("0ms begin\n{}{TO_TIME_WAIT}", round(1, &[]));
    let told = tell(&format!("{before}{}{}", round(61_000, &[]), round(63_010, &[])));
    // Between when it was due and the round that had it no more.
    assert!(
        told.text.ends_with("FIN_WAIT2>TIME_WAIT 5ms\nTIME_WAIT>CLOSE ~61500ms expired\n"),
        "{}",
        told.text
    );
    assert_eq!((told.corrected(), told.tracker.counts().unobserved_expiries), (0, 1));
    assert_eq!(told.now(TcpState::TimeWait), 0);
    // One round may have left it out.
    let there = format!("TIME_WAIT 1 {A} 10");
    let told = tell(&format!("{before}{}{}", round(61_000, &[]), round(62_000, &[&there])));
    assert_eq!((told.tracker.counts().unobserved_expiries, told.now(TcpState::TimeWait)), (0, 1));
}

#[test]
fn a_timer_that_was_not_due_has_not_run() {
    let before = format!("0ms begin\n{}{TO_TIME_WAIT}", round(1, &[]));
    let anew = "30000ms tw=b restarted TIME_WAIT 10.0.0.1:7 10.0.0.2:443 expires=90000ms cookie=1 netns=5\n";
    for (between, at) in [("", 40_000), (anew, 61_000)] {
        let told = tell(&format!("{before}{between}{}{}", round(at, &[]), round(at + 2_000, &[])));
        assert!(told.text.ends_with("gone TIME_WAIT\n"), "{}", told.text);
        assert_eq!((told.corrected(), told.tracker.counts().unobserved_expiries), (1, 0));
    }
}

/// A process that holds its socket may connect it again, from another port, while minisocks of its
/// earlier connections are there: all have one cookie.
const FIRST: &str = "10.0.0.1:7 10.0.0.2:443";
const SECOND: &str = "10.0.0.1:8 10.0.0.2:443";
const THIRD: &str = "10.0.0.1:9 10.0.0.2:443";

/// What becomes of the three: the first minisock ends, and the full socket hands over to another.
fn ends_of_one_cookie() -> String {
    let second = format!("TIME_WAIT 1 {SECOND} 59000");
    let third = format!("TIME_WAIT 1 {THIRD} 59000");
    format!(
        "1000ms tw=b expired TIME_WAIT {FIRST} cookie=1 netns=5\n{}{}\
         1200ms sk=a ESTABLISHED>FIN_WAIT1 {THIRD} cookie=1 netns=5\n\
         1201ms sk=a FIN_WAIT1>FIN_WAIT2 {THIRD} cookie=1 netns=5\n\
         1202ms tw=d started TIME_WAIT {THIRD} cookie=1 netns=5 expires=61202ms\n\
         1202ms sk=a FIN_WAIT2>CLOSE {THIRD} cookie=1 netns=5\n{}{}",
        round(1010, &[&second, &format!("ESTABLISHED 1 {THIRD}")]),
        round(1100, &[&second, &format!("ESTABLISHED 1 {THIRD}")]),
        round(1300, &[&second, &third]),
        round(1400, &[&second, &third]),
    )
}

#[test]
fn a_socket_that_connects_again_and_its_minisocks_are_told_apart() {
    let rows = [
        format!("TIME_WAIT 1 {FIRST} 1000"),
        format!("TIME_WAIT 1 {SECOND} 59900"),
        format!("ESTABLISHED 1 {THIRD}"),
    ];
    let rows = rows.each_ref().map(String::as_str);
    let seeded = format!("0ms begin\n{}{}", round(10, &rows), round(20, &rows));
    let close = |ms: u32, tw: &str, ends: &str| {
        format!(
            "{ms}ms sk=a CLOSE>SYN_SENT {ends} cookie=1 netns=5\n\
             {ms}ms sk=a SYN_SENT>ESTABLISHED {ends} cookie=1 netns=5\n\
             {ms}ms sk=a ESTABLISHED>FIN_WAIT1 {ends} cookie=1 netns=5\n\
             {ms}ms sk=a FIN_WAIT1>FIN_WAIT2 {ends} cookie=1 netns=5\n\
             {ms}ms tw={tw} started TIME_WAIT {ends} cookie=1 netns=5 expires=60010ms\n\
             {ms}ms sk=a FIN_WAIT2>CLOSE {ends} cookie=1 netns=5\n"
        )
    };
    let traced = format!(
        "0ms begin\n{}{}{}{}{}{}",
        round(1, &[]),
        close(5, "b", FIRST),
        close(6, "c", SECOND),
        format_args!(
            "7ms sk=a CLOSE>SYN_SENT {THIRD} cookie=1 netns=5\n\
             8ms sk=a SYN_SENT>ESTABLISHED {THIRD} cookie=1 netns=5\n"
        ),
        round(10, &rows),
        round(20, &rows),
    );
    for before in [seeded, traced] {
        let told = tell(&before);
        assert_eq!(told.now(TcpState::TimeWait), 2, "{}", told.text);
        assert_eq!(told.now(TcpState::Established), 1, "{}", told.text);
        assert_eq!((told.corrected(), told.tracker.in_doubt()), (0, false), "{}", told.text);
        let told = tell(&(before + &ends_of_one_cookie()));
        assert_eq!(told.now(TcpState::TimeWait), 2, "{}", told.text);
        assert_eq!((told.total(), told.corrected()), (2, 0), "{}", told.text);
        assert!(!told.tracker.in_doubt(), "{}", told.text);
        assert!(!told.text.contains("gone"), "{}", told.text);
    }
}

#[test]
fn what_hangs_in_the_queues_of_one_connection_is_not_shown_of_another_with_its_cookie() {
    let queues = |told: &Told| -> Vec<_> {
        let all = told.tracker.standing(30_000_000);
        let mut all: Vec<_> = all
            .map(|one| (one.found.tuple.lport, one.found.queues.map(|q| q.unread), one.held))
            .collect();
        all.sort_unstable();
        all
    };
    // Of a full socket and a minisock in one state.
    let rows =
        [format!("FIN_WAIT2 1 {FIRST} 1000"), format!("FIN_WAIT2 1 {SECOND} unread=3 inode=9")];
    let told = tell(&format!("0ms begin\n{}", round(10, &rows.each_ref().map(String::as_str))));
    assert_eq!(queues(&told), [(7, None, Some(false)), (8, Some(3), Some(true))]);
    // Of two connections of a full socket, one after the other.
    let again = format!(
        "12ms sk=a CLOSE_WAIT>CLOSE {FIRST} cookie=1 netns=5\n\
         13ms sk=a CLOSE>SYN_SENT {SECOND} cookie=1 netns=5\n\
         14ms sk=a SYN_SENT>ESTABLISHED {SECOND} cookie=1 netns=5\n\
         15ms sk=a ESTABLISHED>CLOSE_WAIT {SECOND} cookie=1 netns=5\n"
    );
    let first = round(10, &[&format!("CLOSE_WAIT 1 {FIRST} unread=3")]);
    let told = tell(&format!("0ms begin\n{first}{again}"));
    assert_eq!(queues(&told), [(8, None, None)]);
}
