//! Owner, closer and holder are three facts: who each is, by scripts.

use super::*;
use tcptrace_model::script;

/// Runs a script, and prints of each move that ends a connection or begins its end who owns and who
/// has closed it; then, of each connection that is left, who owns and who holds it.
fn people(lines: &str) -> Vec<String> {
    let mut tracker = Tracker::default();
    let mut told = Vec::new();
    for input in script::inputs(lines).unwrap() {
        tracker.apply(&input, &mut |change| {
            let Change::Moved(moved) = change else { return };
            use TcpState::{Close, FinWait1, LastAck, TimeWait};
            if matches!(moved.new, Close | FinWait1 | LastAck | TimeWait) {
                let closer = moved.closer.map_or("-".to_owned(), |closer| {
                    format!("{} {}", closer.task.name(), closer.from.name())
                });
                let owner = moved.owner.map_or("-".to_owned(), |owner| {
                    format!("{} {}", owner.task.name(), owner.from.name())
                });
                told.push(format!("{}>{} of {owner}, closed by {closer}", moved.old, moved.new));
            }
        });
    }
    for found in tracker.census() {
        let owner = found.owner.map_or("-".to_owned(), |owner| owner.task.name().to_string());
        let holder = found.holder.map_or("-".to_owned(), |holder| {
            let also = holder.also().map_or(String::new(), |also| format!(" also {}", also.name()));
            format!("{}/{}{also} {}", holder.task.name(), holder.task.tgid, holder.holders)
        });
        told.push(format!("{} of {owner}, held by {holder}", found.state));
    }
    told
}

const ACCEPTED: &str = "0ms begin\n\
    1ms sk=1 CLOSE>LISTEN 10.0.0.2:80 0.0.0.0:0 pid=1 comm=master\n\
    2ms sk=2 LISTEN>SYN_RECV 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle cookie=2 netns=5\n\
    2ms sk=2 SYN_RECV>ESTABLISHED 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle cookie=2 netns=5\n\
    3ms sk=2 accept pid=2 comm=acceptor netns=5\n";

fn after_accept(lines: &str) -> Vec<String> {
    let mut told = people(&format!("{ACCEPTED}{lines}"));
    told.retain(|line| !line.starts_with("LISTEN"));
    told
}

#[test]
fn who_closes_is_not_who_accepted() {
    let told = after_accept(
        "4ms sk=2 ESTABLISHED>FIN_WAIT1 10.0.0.2:80 10.0.0.1:7 pid=3 comm=worker cookie=2\n\
         5ms sk=2 FIN_WAIT1>FIN_WAIT2 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle cookie=2\n\
         6ms tw=b started TIME_WAIT 10.0.0.2:80 10.0.0.1:7 cookie=2\n\
         6ms sk=2 FIN_WAIT2>CLOSE 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle cookie=2\n\
         9ms tw=b expired TIME_WAIT 10.0.0.2:80 10.0.0.1:7 cookie=2\n",
    );
    let whose = "of acceptor accept, closed by worker fin";
    let all = ["ESTABLISHED>FIN_WAIT1", "FIN_WAIT2>TIME_WAIT", "TIME_WAIT>CLOSE"];
    assert_eq!(told, all.map(|moved| format!("{moved} {whose}")));
}

#[test]
fn of_a_connection_that_the_peer_closed_it_is_who_answered() {
    let told = after_accept(
        "4ms sk=2 ESTABLISHED>CLOSE_WAIT 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle cookie=2\n\
         5ms sk=2 CLOSE_WAIT>LAST_ACK 10.0.0.2:80 10.0.0.1:7 pid=3 comm=worker cookie=2\n\
         6ms sk=2 LAST_ACK>CLOSE 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle cookie=2 dead\n",
    );
    let whose = "of acceptor accept, closed by worker fin";
    assert_eq!(told, ["CLOSE_WAIT>LAST_ACK", "LAST_ACK>CLOSE"].map(|m| format!("{m} {whose}")));
}

#[test]
fn the_first_to_send_is_the_closer_and_who_comes_later_is_not() {
    let told = after_accept(
        "4ms sk=2 ESTABLISHED>FIN_WAIT1 10.0.0.2:80 10.0.0.1:7 pid=3 comm=worker cookie=2\n\
         5ms sk=2 FIN_WAIT1>CLOSE 10.0.0.2:80 10.0.0.1:7 pid=4 comm=ss cookie=2 err=103\n",
    );
    assert_eq!(told[1], "FIN_WAIT1>CLOSE of acceptor accept, closed by worker fin");
}

#[test]
fn a_reset_has_a_closer_and_what_the_peer_or_a_timer_ends_has_none() {
    let ended = |how: &str| {
        let line = format!("4ms sk=2 ESTABLISHED>CLOSE 10.0.0.2:80 10.0.0.1:7 cookie=2 {how}\n");
        after_accept(&line).remove(0)
    };
    let worker = "pid=3 comm=worker";
    let told = "ESTABLISHED>CLOSE of acceptor accept, closed by";
    assert_eq!(ended(&format!("{worker} linger=0 shut=3")), format!("{told} worker rst"));
    assert_eq!(ended(&format!("{worker} err=103")), format!("{told} worker sock-destroy"));
    assert_eq!(ended(&format!("{worker} err=104")), format!("{told} -"), "a RST from the peer");
    assert_eq!(ended(&format!("{worker} err=110")), format!("{told} -"), "a timeout");
    assert_eq!(ended(&format!("{worker} dead")), format!("{told} -"), "an orphan");
}

#[test]
fn who_closes_a_listener_has_its_children_reset_and_owns_them_no_more_than_before() {
    let told = people(
        "0ms begin\n\
         1ms sk=1 CLOSE>LISTEN 10.0.0.2:80 0.0.0.0:0 pid=1 comm=master\n\
         2ms sk=2 LISTEN>SYN_RECV 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle\n\
         2ms sk=2 SYN_RECV>ESTABLISHED 10.0.0.2:80 10.0.0.1:7 pid=9 comm=idle unaccepted\n\
         3ms sk=2 ESTABLISHED>CLOSE 10.0.0.2:80 10.0.0.1:7 pid=4 comm=heir unaccepted shut=3\n",
    );
    assert_eq!(told[0], "ESTABLISHED>CLOSE of master listener, closed by heir rst");
}

#[test]
fn a_name_makes_no_kernel_thread_and_a_kernel_thread_closes_for_others() {
    let connected = |task: &str| {
        let line = format!("1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 {task}\n");
        people(&format!("0ms begin\n{line}")).remove(0)
    };
    let process = connected("pid=66 comm=kworker/u8:2");
    assert_eq!(process, "SYN_SENT of kworker/u8:2, held by -");
    let kernel = connected("pid=66 comm=kworker/u8:2 kernel=true");
    assert_eq!(kernel, "SYN_SENT of [kworker/u8:2], held by -");
    let told = after_accept(
        "4ms sk=2 ESTABLISHED>FIN_WAIT1 10.0.0.2:80 10.0.0.1:7 pid=66 comm=kworker/0:1 kernel=true\n",
    );
    assert_eq!(told[0], "ESTABLISHED>FIN_WAIT1 of acceptor accept, closed by -");
}

#[test]
fn a_shutdown_that_waited_for_the_handshake_was_not_by_whoever_is_there_then() {
    let told = people(
        "0ms begin\n\
         1ms sk=1 CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.1:7 pid=5 comm=app\n\
         2ms sk=1 SYN_SENT>SYN_RECV 10.0.0.1:7 10.0.0.1:7 pid=5 comm=app\n\
         3ms sk=1 SYN_RECV>ESTABLISHED 10.0.0.1:7 10.0.0.1:7 pid=9 comm=idle shut=2\n\
         3ms sk=1 ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.1:7 pid=9 comm=idle shut=2\n",
    );
    assert_eq!(told[0], "ESTABLISHED>FIN_WAIT1 of app connect, closed by -");
}

/// Rounds of one namespace with the accepted connection, held as `holders` say.
fn held(holders: &[&str], after: &str) -> String {
    let mut lines = String::new();
    for (number, holder) in holders.iter().enumerate() {
        let at = 10 + 10 * number;
        lines += &format!(
            "{at}ms snapshot open\n{at}ms snapshot 5\n\
             {at}ms socket ESTABLISHED 2 10.0.0.2:80 10.0.0.1:7 inode=3 {holder}\n\
             {at}ms snapshot end\n{at}ms snapshot over\n{at}.5ms tick\n"
        );
    }
    after_accept(&format!("{lines}{after}")).pop().unwrap()
}

#[test]
fn who_holds_it_is_who_has_it_open_whoever_accepted() {
    let child = "pid=3 comm=backend started=9";
    assert_eq!(held(&[child], ""), "ESTABLISHED of acceptor, held by backend/3 1");
    let both = "pid=3 comm=backend started=9 holders=2 first-pid=2 first-comm=acceptor \
                first-started=8";
    let told = held(&[both], "");
    assert_eq!(told, "ESTABLISHED of acceptor, held by backend/3 also acceptor 2");
    // The parent lets go of its copy; then nobody knows.
    assert_eq!(held(&[both, child], ""), "ESTABLISHED of acceptor, held by backend/3 1");
    assert_eq!(held(&[both, ""], ""), "ESTABLISHED of acceptor, held by -");
}

#[test]
fn no_process_that_has_ended_is_said_to_hold_anything() {
    let both = "pid=3 comm=backend started=9 holders=2 first-pid=2 first-comm=acceptor \
                first-started=8";
    let told = held(&[both], "20ms exited 2 8\n");
    assert_eq!(told, "ESTABLISHED of acceptor, held by backend/3 1");
    let told = held(&[both], "20ms exited 3 9\n");
    assert_eq!(told, "ESTABLISHED of acceptor, held by acceptor/2 1");
    assert_eq!(
        held(&[both], "20ms exited 3 9\n20ms exited 2 8\n"),
        "ESTABLISHED of acceptor, held by -"
    );
    // The next round was under way when that was noticed.
    let late = "pid=3 comm=backend started=9";
    let round = |holder: &str| {
        format!(
            "20ms exited 3 9\n30ms snapshot open\n30ms snapshot 5\n\
             30ms socket ESTABLISHED 2 10.0.0.2:80 10.0.0.1:7 inode=3 {holder}\n\
             30ms snapshot end\n30ms snapshot over\n30.5ms tick\n"
        )
    };
    assert_eq!(held(&[late], &round(late)), "ESTABLISHED of acceptor, held by -");
    let told = held(&[late], &round(both));
    assert_eq!(told, "ESTABLISHED of acceptor, held by acceptor/2 1");
    let told = held(&[both], "20ms exited 3 10\n");
    assert!(told.contains("backend/3 also acceptor 2"), "the number is another's by now: {told}");
}

#[test]
fn who_has_closed_it_may_not_hold_it_any_more() {
    let told = held(
        &["pid=3 comm=worker started=9"],
        "20ms sk=2 ESTABLISHED>FIN_WAIT1 10.0.0.2:80 10.0.0.1:7 pid=3 comm=worker cookie=2\n",
    );
    assert_eq!(told, "FIN_WAIT1 of acceptor, held by -");
}

#[test]
fn one_process_is_one_name_whatever_it_calls_itself() {
    let told = people(
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 pid=5 comm=app started=9 execs=1\n\
         2ms sk=b CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 pid=5 tid=6 comm=renamed started=9 execs=1\n\
         3ms sk=c CLOSE>SYN_SENT 10.0.0.1:9 10.0.0.2:443 pid=5 comm=other started=9 execs=2\n",
    );
    assert_eq!(told, ["app", "app", "other"].map(|name| format!("SYN_SENT of {name}, held by -")));
}
