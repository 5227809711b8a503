//! The page that `tcptrace serve` shows, in a browser while connections come and go.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    browser::{browser, spoken},
    net::Netns,
    run::{can_trace, until},
    serve::{Serving, churn, get},
};

/// How long the browser looks, in its own milliseconds, which stand still while it waits for an
/// answer: there is one each two seconds.
const LOOK: &str = "--virtual-time-budget=9000";

/// Answers with what there is at `socket`, once that is not what it had before; gives what was asked for.
fn answer(client: TcpStream, socket: &Path, before: &mut String) -> Option<String> {
    let mut client = client;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.extend(byte);
    }
    let page = until("a page that has moved", || {
        let (status, page) = get(socket, "/");
        (status == 200 && page != *before).then_some(page)
    });
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        page.len()
    );
    // A browser that leaves in between has seen enough.
    let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(page.as_bytes()));
    *before = page;
    Some(String::from_utf8_lossy(&request).lines().next()?.to_owned())
}

/// The times of the rows behind the plots of `section`.
fn times(page: &str, section: &str) -> Vec<String> {
    let (_, rest) = page.split_once(&format!("<section id=\"{section}\">")).unwrap();
    let (section, _) = rest.split_once("</section>").unwrap();
    let rows = section.split("<th scope=\"row\">").skip(1);
    rows.map(|row| row.split_once("</th>").unwrap().0.to_owned()).collect()
}

#[test]
fn plots_move_while_it_runs() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &["--interval", "1"]);
    let listener = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    let first = until("a page with rates", || {
        netns.run(|| churn(20));
        let (status, page) = serving.get("/");
        (status == 200 && page.contains("<section id=\"rates\">")).then_some(page)
    });
    let (shown, asked) = thread::scope(|scope| {
        let socket = serving.socket();
        scope.spawn(|| {
            netns.run(|| {
                while !over.load(Ordering::Relaxed) {
                    churn(1);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        });
        let (listener, over, first) = (&listener, &over, &first);
        let answers = scope.spawn(move || {
            let (mut before, mut asked) = (first.clone(), Vec::new());
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                asked.extend(answer(client.unwrap(), &socket, &mut before));
            }
            asked
        });
        let url = format!("http://{address}/");
        let shown = netns.run(|| browser(&url, 1200, false, &["--dump-dom", LOOK]));
        over.store(true, Ordering::Relaxed);
        netns.run(|| TcpStream::connect(address).unwrap());
        (shown, answers.join().unwrap())
    });
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let Some((dom, console)) = shown else { return };
    assert_eq!(spoken(&console), [""; 0]);
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.iter().all(|asked| asked == "GET / HTTP/1.1"), "{asked:?}");
    let renewed = dom.split_once("data-renewed=\"").expect("it was renewed").1;
    let renewed: usize = renewed.split_once('"').unwrap().0.parse().unwrap();
    assert!(renewed >= 2 && renewed < asked.len(), "{renewed} of {asked:?}");
    // What came while the browser looked is on the page that it got before.
    let (early, late) = (times(&first, "rates"), times(&dom, "rates"));
    assert!(late.last() > early.last() && late.len() > early.len(), "{early:?} {late:?}");
    assert!(dom.contains("Moves every two seconds.") && dom.contains(">Pause</button>"));
    for section in ["states", "rates", "closers", "stuck", "ports", "losses"] {
        assert!(dom.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    let plots = dom.matches("class=\"cursor\"").count();
    assert!(plots >= 4, "what is new can be pointed at: {plots}");
}
