use super::*;
use tcptrace_model::{Age, EndReason, How, Initiator, Opened, Verdict, script};
use tcptrace_track::Tracker;

/// Runs a script, and at its end asks what stands.
fn run(until: Until, limit: usize, text: &str) -> (Vec<Connection>, Conns, Tracker) {
    let (mut tracker, mut conns) = (Tracker::default(), Conns::new(until, limit));
    let mut ended = Vec::new();
    for input in script::inputs(text).unwrap() {
        tracker.apply(&input, &mut |change| ended.extend(conns.change(&change)));
    }
    (ended, conns, tracker)
}

fn ended(text: &str) -> Vec<Connection> {
    run(Until::End, 1 << 20, text).0
}

fn times(connection: &Connection) -> Vec<(TcpState, Age)> {
    connection.times.iter().collect()
}

const MS: u64 = 1_000_000;

fn exactly(ms: u64) -> Age {
    Age::Exactly(ms * MS)
}

/// A connection from here that sends 1000 bytes, receives 500 and is closed here first.
const CLIENT: &str = "0ms begin\n\
    10ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=812 uid=7 comm=curl cookie=9 netns=5\n\
    13ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:40001 10.0.0.2:443 cookie=9 netns=5\n\
    113ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:40001 10.0.0.2:443 pid=812 comm=curl cookie=9 netns=5\n\
    114ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:40001 10.0.0.2:443 cookie=9 netns=5\n\
    119ms tw=b started TIME_WAIT 10.0.0.1:40001 10.0.0.2:443 cookie=9 netns=5 expires=60120ms\n\
    119ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:40001 10.0.0.2:443 cookie=9 netns=5 cgroup=77 peer-fin \
    acked=1002 received=501 srtt-us=250 retransmits=2\n";

const TIME_WAIT_OVER: &str =
    "60120ms tw=b expired TIME_WAIT 10.0.0.1:40001 10.0.0.2:443 cookie=9 netns=5 expires=60120ms\n";

#[test]
fn a_connection_is_told_whole_at_the_end_of_its_time_wait() {
    use TcpState::*;
    assert_eq!(ended(CLIENT), []);
    let all = ended(&[CLIENT, TIME_WAIT_OVER].concat());
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        times(one),
        [
            (SynSent, exactly(3)),
            (Established, exactly(100)),
            (FinWait1, exactly(1)),
            (FinWait2, exactly(5)),
            (TimeWait, exactly(60_001)),
        ]
    );
    assert_eq!((one.life(), one.handshake_ns()), (exactly(109), Some(3 * MS)));
    assert_eq!((one.state, one.mono_ns, one.closed_ns), (Close, 60_120 * MS, Some(119 * MS)));
    assert_eq!(one.end_reason, Some(EndReason::Expired));
    let verdict = Verdict::of(Some(Initiator::Local), How::Fin);
    assert_eq!(one.verdict, verdict);
    assert_eq!(
        one.traffic,
        Some(Traffic {
            sent: 1000,
            sent_at_most: false,
            received: 500,
            srtt_ns: Some(250_000),
            retransmits: 2
        })
    );
    assert_eq!((one.cookie, one.cgroup, one.netns), (Some(9), Some(77), Some(5)));
    assert_eq!(one.owner.map(|owner| (owner.task.tgid, owner.task.uid)), Some((812, 7)));
}

#[test]
fn or_when_it_is_closed_and_then_only_once() {
    let text = [CLIENT, TIME_WAIT_OVER].concat();
    let (all, conns, tracker) = run(Until::Close, 1 << 20, &text);
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.state, one.mono_ns), (TcpState::TimeWait, 119 * MS));
    assert_eq!((one.times.of(TcpState::TimeWait), one.end_reason), (None, None));
    assert_eq!((one.life(), one.verdict.how), (exactly(109), Some(How::Fin)));
    assert_eq!(one.traffic.map(|traffic| (traffic.sent, traffic.received)), Some((1000, 500)));
    assert_eq!(conns.waiting(tracker.census(), 120 * MS), []);
}

#[test]
fn what_is_in_time_wait_at_the_end_is_told_as_far_as_it_has_come() {
    let (_, conns, tracker) = run(Until::End, 1 << 20, CLIENT);
    let all = conns.waiting(tracker.census(), 1119 * MS);
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.state, one.mono_ns), (TcpState::TimeWait, 1119 * MS));
    assert_eq!(one.times.of(TcpState::TimeWait), Some(Age::AtLeast(1000 * MS)));
    assert_eq!((one.life(), one.end_reason), (exactly(109), None));
    assert_eq!(one.verdict.initiator, Some(Initiator::Local));
    assert_eq!(one.traffic.map(|traffic| traffic.received), Some(500));
    assert_eq!(one.cookie, Some(9));
}

#[test]
fn an_orphan_has_no_time_wait_and_its_own_fin_was_not_received() {
    let all = ended(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 netns=5\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         3ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         4ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         5ms tw=b started FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 netns=5 expires=3004ms\n\
         5ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443 netns=5 acked=12 received=20\n\
         3004ms tw=b expired FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 netns=5 expires=3004ms\n",
    );
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!(one.times.of(TcpState::FinWait2), Some(exactly(3000)));
    assert_eq!((one.life(), one.times.of(TcpState::TimeWait)), (exactly(3003), None));
    assert_eq!(one.verdict.how, Some(How::OrphanGaveUp));
    assert_eq!(one.traffic.map(|traffic| (traffic.sent, traffic.received)), Some((10, 20)));
}

#[test]
fn a_time_wait_that_only_its_timer_dates_leaves_life_as_accurate_as_that() {
    let all = ended(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 netns=5\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         3ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         4ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         5ms tw=b started FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 netns=5 expires=60004ms\n\
         5ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         104ms tw=b peeked TIME_WAIT 10.0.0.1:7 10.0.0.2:443 netns=5 expires=60100ms\n\
         60100ms tw=b expired TIME_WAIT 10.0.0.1:7 10.0.0.2:443 netns=5 expires=60100ms\n",
    );
    let [one] = &all[..] else { panic!("{all:?}") };
    let within_ns = 4 * MS;
    assert_eq!(one.times.of(TcpState::FinWait2), Some(Age::About { ns: 96 * MS, within_ns }));
    assert_eq!(one.life(), Age::About { ns: 99 * MS, within_ns });
}

#[test]
fn accepted_ones_have_no_handshake_and_are_younger_than_their_syn() {
    let all = ended(
        "0ms begin\n\
         1ms sk=1 CLOSE>LISTEN 10.0.0.2:443 0.0.0.0:0 pid=1 comm=nginx\n\
         5ms sk=a LISTEN>SYN_RECV 10.0.0.2:443 10.0.0.1:40001\n\
         5.1ms sk=a SYN_RECV>ESTABLISHED 10.0.0.2:443 10.0.0.1:40001\n\
         8ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.2:443 10.0.0.1:40001\n\
         9ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.2:443 10.0.0.1:40001 pid=2 comm=worker\n\
         10ms sk=a LAST_ACK>CLOSE 10.0.0.2:443 10.0.0.1:40001 acked=101 received=51\n\
         11ms sk=1 LISTEN>CLOSE 10.0.0.2:443 0.0.0.0:0\n",
    );
    let [one] = &all[..] else { panic!("a listener is no connection: {all:?}") };
    assert_eq!((one.handshake_ns(), one.life()), (None, exactly(5)));
    assert_eq!(one.times.of(TcpState::SynRecv), Some(Age::AtLeast(100_000)));
    assert_eq!(one.times.of(TcpState::Listen), None);
    assert_eq!(one.birth.map(|birth| birth.opened), Some(Opened::Accept));
    assert_eq!(one.verdict.initiator, Some(Initiator::Remote));
    assert_eq!(one.traffic.map(|traffic| (traffic.sent, traffic.received)), Some((100, 50)));
}

#[test]
fn a_connect_that_failed_is_a_line_without_a_handshake() {
    let all = ended(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=812 comm=curl\n\
         3ms sk=a SYN_SENT>CLOSE 10.0.0.1:40001 10.0.0.2:443 err=111 acked=0\n",
    );
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.handshake_ns(), one.life()), (None, exactly(2)));
    assert_eq!(one.verdict.how, Some(How::Refused));
    assert_eq!(one.times.of(TcpState::SynSent), Some(exactly(2)));
    assert_eq!(one.traffic.map(|traffic| traffic.sent), Some(0));
}

#[test]
fn where_the_beginning_was_not_seen_life_is_a_lower_bound() {
    let all = ended(
        "0ms begin\n\
         100ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.2:443 10.0.0.1:40001\n\
         150ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.2:443 10.0.0.1:40001 pid=2 comm=worker\n\
         151ms sk=a LAST_ACK>CLOSE 10.0.0.2:443 10.0.0.1:40001 acked=101 received=51\n\
         200ms tw=c expired TIME_WAIT 10.0.0.2:443 10.0.0.1:40002 expires=60100ms\n",
    );
    let [one, minisock] = &all[..] else { panic!("{all:?}") };
    assert_eq!(one.life(), Age::AtLeast(151 * MS));
    assert_eq!((one.birth, one.handshake_ns()), (None, None));
    assert_eq!(one.traffic.map(|traffic| (traffic.sent, traffic.sent_at_most)), Some((100, true)));
    assert_eq!(minisock.life(), Age::Unknown, "its TIME_WAIT is no life");
    assert_eq!(minisock.closed_ns, None);
}

#[test]
fn after_a_loss_no_time_is_made_up() {
    // The socket went on from ESTABLISHED unseen.
    let all = ended(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie=9\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 cookie=9\n\
         50ms lost 1\n\
         60ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.1:7 10.0.0.2:443 cookie=9\n\
         61ms sk=a LAST_ACK>CLOSE 10.0.0.1:7 10.0.0.2:443 cookie=9\n",
    );
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        times(one),
        [(TcpState::CloseWait, Age::AtLeast(10 * MS)), (TcpState::LastAck, exactly(1))]
    );
    assert_eq!((one.life(), one.handshake_ns()), (exactly(60), None));
}

#[test]
fn without_a_cookie_a_loss_may_have_made_it_another() {
    let all = ended(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 classic\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 classic\n\
         50ms lost 1\n\
         60ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443 classic\n\
         61ms sk=a CLOSE_WAIT>CLOSE 10.0.0.1:7 10.0.0.2:443 classic\n",
    );
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.life(), one.times.of(TcpState::SynSent)), (Age::AtLeast(11 * MS), None));
    assert_eq!(one.traffic, None, "the classic hook does not tell");
}

/// Two connections that are open.
fn two() -> String {
    let of = |sk: &str| {
        format!(
            "1ms sk={sk} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie={sk}\n\
             3ms sk={sk} SYN_SENT>ESTABLISHED 10.0.0.1:4 10.0.0.2:443 cookie={sk}\n"
        )
    };
    ["0ms begin\n", &of("a"), &of("b")].concat()
}

#[test]
fn records_have_a_limit_and_what_went_is_counted_and_unknown() {
    let mut text = two();
    for sk in ["a", "b"] {
        text += &format!("9ms sk={sk} ESTABLISHED>CLOSE 10.0.0.1:4 10.0.0.2:443 cookie={sk}\n");
    }
    let (all, conns, _) = run(Until::End, 1, &text);
    let handshakes: Vec<_> = all.iter().map(Connection::handshake_ns).collect();
    assert_eq!((handshakes, conns.evicted()), (vec![None, Some(2 * MS)], 1));
    assert!(all.iter().all(|one| one.life() == exactly(8)));
}

#[test]
fn of_one_whose_record_went_no_time_is_made_up() {
    let (_, conns, tracker) = run(Until::End, 1, &two());
    let open = conns.open(tracker.census(), 9 * MS);
    let kept = [(TcpState::SynSent, exactly(2)), (TcpState::Established, Age::AtLeast(6 * MS))];
    assert_eq!(open.iter().map(times).collect::<Vec<_>>(), [vec![], kept.to_vec()]);
    assert!(open.iter().all(|one| one.life() == Age::AtLeast(8 * MS)), "its birth was seen");
}

#[test]
fn nothing_is_kept_of_what_has_ended() {
    let text = [CLIENT, TIME_WAIT_OVER].concat();
    let (_, conns, _) = run(Until::End, 1 << 20, &text);
    assert_eq!(conns.records.len(), 0);
    assert!(size_of::<Record>() <= 112, "a million connections hold one each");
}

#[test]
fn the_open_are_those_that_carry_or_may_yet() {
    let text = "0ms begin\n\
        1ms sk=1 CLOSE>LISTEN 10.0.0.2:80 0.0.0.0:0\n\
        1ms snapshot open\n1ms snapshot 5\n\
        1ms socket ESTABLISHED 9b 10.0.0.1:7 10.0.0.2:443\n\
        1ms socket TIME_WAIT 9c 10.0.0.1:8 10.0.0.2:443 12000\n\
        1ms snapshot end\n1ms snapshot over\n\
        2ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 netns=5\n\
        4ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:9 10.0.0.2:443 netns=5\n\
        4ms sk=b CLOSE>SYN_SENT 10.0.0.1:10 10.0.0.2:443 netns=5\n\
        5ms tick\n";
    let (_, conns, tracker) = run(Until::End, 1 << 20, text);
    let mut open: Vec<_> = conns
        .open(tracker.census(), 10 * MS)
        .iter()
        .map(|one| (one.tuple.lport, one.life(), one.handshake_ns(), times(one)))
        .collect();
    open.sort_by_key(|one| one.0);
    let at_least = |ms: u64| Age::AtLeast(ms * MS);
    assert_eq!(
        open,
        [
            (7, Age::Unknown, None, vec![]),
            (
                9,
                at_least(8),
                Some(2 * MS),
                vec![(TcpState::SynSent, exactly(2)), (TcpState::Established, at_least(6))]
            ),
            (10, at_least(6), None, vec![(TcpState::SynSent, at_least(6))]),
        ]
    );
    assert_eq!(conns.waiting(tracker.census(), 10 * MS), [], "it was closed before");
}

#[test]
fn a_connection_to_itself_shakes_hands_too() {
    let all = ended(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 127.0.0.1:7 127.0.0.1:7 netns=5\n\
         2ms sk=a SYN_SENT>SYN_RECV 127.0.0.1:7 127.0.0.1:7 netns=5\n\
         4ms sk=a SYN_RECV>ESTABLISHED 127.0.0.1:7 127.0.0.1:7 netns=5\n\
         5ms sk=a ESTABLISHED>FIN_WAIT1 127.0.0.1:7 127.0.0.1:7 netns=5\n\
         6ms sk=a FIN_WAIT1>CLOSING 127.0.0.1:7 127.0.0.1:7 netns=5\n\
         7ms tw=b started TIME_WAIT 127.0.0.1:7 127.0.0.1:7 netns=5 expires=60008ms\n\
         7ms sk=a CLOSING>CLOSE 127.0.0.1:7 127.0.0.1:7 netns=5\n\
         60008ms tw=b expired TIME_WAIT 127.0.0.1:7 127.0.0.1:7 netns=5 expires=60008ms\n",
    );
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.handshake_ns(), one.times.iter().count()), (Some(3 * MS), 6));
    assert_eq!(one.verdict.initiator, Some(Initiator::Both));
}

/// A connect() whose SYN_SENT took `ms`, with so many retransmissions in its life.
fn shaken_for(ms: u64, retransmits: u32) -> Option<u64> {
    let all = ended(&format!(
        "0ms begin\n\
         0ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 netns=5\n\
         {ms}ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 netns=5\n\
         99999ms sk=a ESTABLISHED>CLOSE 10.0.0.1:7 10.0.0.2:443 netns=5 acked=2 \
         retransmits={retransmits}\n"
    ));
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!(one.times.of(TcpState::SynSent), Some(exactly(ms)), "the state's time is known");
    one.handshake_ns()
}

#[test]
fn a_syn_that_waited_for_the_first_write_makes_no_handshake() {
    // TCP_FASTOPEN_CONNECT, and nothing written for 11.5 s: the timer of a SYN would have fired at
    // 1, 3 and 7 s.
    for retransmits in [0, 1, 2] {
        assert_eq!(shaken_for(11_512, retransmits), None, "{retransmits}");
    }
    for (ms, retransmits) in [(11_512, 3), (7_030, 3), (3_040, 2), (1_030, 1), (1_120, 1), (40, 0)]
    {
        assert_eq!(shaken_for(ms, retransmits), Some(ms * MS), "{ms} {retransmits}");
    }
    // Data in the SYN that the peer did not take is sent again at once: no SYN was, at 1.5 s.
    assert_eq!(shaken_for(1_504, 1), None);
    // Linear timeouts (6.5) send it again sooner.
    assert_eq!(shaken_for(4_100, 4), Some(4100 * MS));
}

#[test]
fn what_a_snapshot_told_of_retransmissions_is_a_lower_bound_while_it_is_open() {
    let text = "0ms begin\n\
        1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie=9b netns=5\n\
        3ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 cookie=9b netns=5\n\
        4ms snapshot open\n4ms snapshot 5\n\
        4ms socket ESTABLISHED 9b 10.0.0.1:7 10.0.0.2:443 inode=4 unsent=9\n\
        4ms info 9b ESTABLISHED timer=on expires=900 unacked=9 retransmits=2 backoff=2 rto=800 \
        total-retrans=6\n\
        4ms snapshot end\n4ms snapshot over\n4.5ms tick\n";
    let open = |text: &str| {
        let (_, conns, tracker) = run(Until::End, 1 << 20, text);
        conns.open(tracker.census(), 9 * MS).iter().map(Connection::retransmits).collect::<Vec<_>>()
    };
    let told = Some(Retransmits { count: 6, at_least: true });
    assert_eq!(open(text), [told]);
    // What was counted does not go away with the state.
    let closing = "5ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 cookie=9b netns=5\n";
    assert_eq!(open(&[text, closing].concat()), [told]);
    let unscanned: String =
        text.lines().filter(|line| !line.contains("info")).map(|l| format!("{l}\n")).collect();
    assert_eq!(open(&unscanned), [None]);
    let over = "6ms sk=a FIN_WAIT1>CLOSE 10.0.0.1:7 10.0.0.2:443 cookie=9b netns=5 acked=9 \
        retransmits=8\n";
    let all = ended(&[text, closing, over].concat());
    assert_eq!(all[0].retransmits(), Some(Retransmits { count: 8, at_least: false }));
}
