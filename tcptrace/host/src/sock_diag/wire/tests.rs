use super::*;

const SEQUENCE: u32 = 7;

/// A message with its padding, as the kernel lays it out.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((16 + body.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&1234u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A TIME_WAIT minisock 127.0.0.1:40001 -> 127.0.0.2:443, with 58.2 s to go.
fn time_wait() -> Vec<u8> {
    let mut body = vec![2, 6, 3, 0];
    body.extend_from_slice(&40001u16.to_be_bytes());
    body.extend_from_slice(&443u16.to_be_bytes());
    for last in [1, 2] {
        body.extend_from_slice(&[127, 0, 0, last]);
        body.extend_from_slice(&[0; 12]);
    }
    body.extend_from_slice(&3u32.to_ne_bytes());
    body.extend_from_slice(&0x1111_2222u32.to_ne_bytes());
    body.extend_from_slice(&0x3333_4444u32.to_ne_bytes());
    body.extend_from_slice(&58_200u32.to_ne_bytes());
    for word in [10u32, 11, 12, 13] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    assert_eq!(body.len(), 72);
    body
}

fn items(datagram: &[u8]) -> Vec<Result<Message, Malformed>> {
    Messages::new(datagram, SEQUENCE).collect()
}

#[test]
fn a_time_wait_keeps_its_remaining_time() {
    let items = items(&message(20, 2, SEQUENCE, &time_wait()));
    let expected = DiagSocket {
        family: Family::V4,
        state: 6,
        local: "127.0.0.1:40001".parse().unwrap(),
        peer: "127.0.0.2:443".parse().unwrap(),
        cookie: 0x3333_4444_1111_2222,
        inode: 13,
        uid: 12,
        ifindex: 3,
        rqueue: 10,
        wqueue: 11,
        timer: Timer::TimeWait,
        expires_ms: 58_200,
        retrans: 0,
        cgroup: None,
        mptcp: false,
        info: None,
    };
    assert!(expected.is_minisock());
    assert_eq!(items, [Ok(Message { interrupted: false, body: Body::Socket(expected) })]);
}

#[test]
fn an_ipv6_socket_has_all_sixteen_bytes() {
    let mut body = time_wait();
    body[0] = 10;
    body[8] = 0xfe;
    body[23] = 9;
    let items = items(&message(20, 2, SEQUENCE, &body));
    let Ok(Message { body: Body::Socket(socket), .. }) = &items[0] else { panic!("{items:?}") };
    assert_eq!(socket.local.to_string(), "[fe00:1::9]:40001");
    assert_eq!(socket.family, Family::V6);
}

#[test]
fn the_cgroup_is_found_among_other_attributes_and_odd_ones_hide_it() {
    let cgroup = |attributes: &[u8]| {
        let mut body = time_wait();
        body.extend_from_slice(attributes);
        let items = items(&message(20, 2, SEQUENCE, &body));
        let Ok(Message { body: Body::Socket(socket), .. }) = &items[0] else { panic!("{items:?}") };
        socket.cgroup.map(NonZeroU64::get)
    };
    let of = |kind: u16, payload: &[u8]| {
        let mut bytes = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let id = of(CGROUP_ID, &7_u64.to_ne_bytes());
    // INET_DIAG_SHUTDOWN, a byte; INET_DIAG_PAD, nothing.
    let before = [of(8, &[3]), of(14, &[])].concat();
    assert_eq!(cgroup(&[before.clone(), id.clone()].concat()), Some(7));
    assert_eq!(cgroup(&[of(CGROUP_ID | 0x4000, &7_u64.to_ne_bytes()), before].concat()), Some(7));
    assert_eq!(cgroup(&of(CGROUP_ID, &0_u64.to_ne_bytes())), None);
    assert_eq!(cgroup(&of(CGROUP_ID, &[7, 0, 0, 0])), None);
    for len in 0..id.len() {
        assert_eq!(cgroup(&id[..len]), None, "cut at {len}");
    }
    for length in [0_u16, 1, 3, 13, u16::MAX] {
        let mut odd = id.clone();
        odd[..2].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(cgroup(&[odd, id.clone()].concat()), None, "length {length}");
    }
}

/// A `struct tcp_info` of the longest length that is known.
fn raw_info() -> Vec<u8> {
    let mut payload = vec![0_u8; 248];
    (payload[2], payload[3], payload[4]) = (3, 1, 2);
    let mut put = |at: usize, value: u32| {
        payload[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    };
    put(8, 800_000);
    put(44, 11);
    put(52, 12);
    put(56, 7_200_000);
    put(68, 250);
    put(100, 9);
    put(120, 1001);
    put(128, 2001);
    put(136, 30);
    put(144, 4_000);
    put(152, 5);
    put(156, 6);
    put(SND_WND, 65_536);
    put(TOTAL_RTO + 4, 5_400);
    payload[TOTAL_RTO + 2..TOTAL_RTO + 4].copy_from_slice(&1_u16.to_ne_bytes());
    payload
}

#[test]
fn tcp_info_is_read_as_far_as_the_kernel_has_it() {
    let payload = raw_info();
    let newest = TcpInfo {
        retransmits: 3,
        probes: 1,
        backoff: 2,
        rto_us: 800_000,
        rtt_us: 250,
        last_data_sent_ms: Some(11),
        last_data_recv_ms: Some(12),
        last_ack_recv_ms: 7_200_000,
        total_retrans: 9,
        segs_out: 30,
        not_sent: 4_000,
        bytes_acked: 1001,
        bytes_received: 2001,
        snd_wnd: Some(65_536),
        retransmitting_ms: Some(5_400),
    };
    let with_window = TcpInfo { retransmitting_ms: None, ..newest };
    let oldest = TcpInfo { snd_wnd: None, ..with_window };
    for length in 0..=payload.len() + 1 {
        let mut payload = payload.clone();
        payload.resize(length, 0xff);
        let expected = match length {
            0..160 => None,
            160..232 => Some(oldest),
            232..248 => Some(with_window),
            _ => Some(newest),
        };
        assert_eq!(tcp_info(&payload), expected, "{length}");
    }
}

#[test]
fn what_never_was_has_no_time() {
    let mut payload = raw_info();
    payload[152..160].fill(0);
    let never = tcp_info(&payload).unwrap();
    assert_eq!((never.last_data_sent_ms, never.last_data_recv_ms), (None, None));
    // Of two recoveries only the sum is known; without a timeout none goes on.
    for (at, value) in [(TOTAL_RTO + 2, 2), (2, 0)] {
        let mut payload = raw_info();
        payload[at] = value;
        assert_eq!(tcp_info(&payload).unwrap().retransmitting_ms, None);
    }
}

#[test]
fn a_subflow_is_told_by_the_name_of_its_protocol() {
    let with = |name: &[u8]| {
        let mut body = time_wait();
        let inner = (name.len() + 4) as u16;
        let outer = inner.next_multiple_of(4) + 4;
        body.extend_from_slice(&outer.to_ne_bytes());
        body.extend_from_slice(&(ULP_INFO | 0x8000).to_ne_bytes());
        body.extend_from_slice(&inner.to_ne_bytes());
        body.extend_from_slice(&ULP_NAME.to_ne_bytes());
        body.extend_from_slice(name);
        body.resize(body.len().next_multiple_of(4), 0);
        DiagSocket::parse(&body).unwrap().mptcp
    };
    assert!(with(b"mptcp\0"));
    assert!(!with(b"tls\0") && !with(b"mptcp") && !with(b""));
    assert!(!DiagSocket::parse(&time_wait()).unwrap().mptcp);
}

#[test]
fn one_socket_is_asked_for_by_its_ends_and_cookie() {
    let body = DiagSocket::parse(&time_wait()).unwrap();
    let request = Request::one(&body, WITH_INFO, SEQUENCE);
    let bytes = request.as_bytes();
    assert_eq!(bytes[6..8], NLM_F_REQUEST.to_ne_bytes(), "no dump");
    assert_eq!(bytes[16..19], [2, 6, 2]);
    assert_eq!(bytes[24..72], time_wait()[4..52], "the id as the kernel wrote it");
}

#[test]
fn attributes_and_several_messages_are_stepped_over() {
    let mut with_attribute = time_wait();
    with_attribute.extend_from_slice(&[5, 0, 8, 0, 3]);
    let mut datagram = message(20, 2, SEQUENCE, &with_attribute);
    datagram.extend(message(20, 2 | NLM_F_DUMP_INTR, SEQUENCE, &time_wait()));
    datagram.extend(message(1, 0, SEQUENCE, &[]));
    datagram.extend(message(77, 0, SEQUENCE, &[1, 2]));
    datagram.extend(message(NLMSG_DONE, 2, SEQUENCE, &0i32.to_ne_bytes()));
    let items: Vec<_> = items(&datagram).into_iter().map(Result::unwrap).collect();
    assert_eq!(items.len(), 3);
    assert_eq!(items.iter().map(|m| m.interrupted).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(items[2].body, Body::Done(None));
}

#[test]
fn the_answers_to_an_earlier_request_are_passed_over() {
    let mut datagram = message(20, 2, SEQUENCE - 1, &time_wait());
    datagram.extend(message(NLMSG_DONE, 2, SEQUENCE - 1, &0i32.to_ne_bytes()));
    datagram.extend(message(NLMSG_DONE, 2, SEQUENCE, &[]));
    let done = Message { interrupted: false, body: Body::Done(None) };
    assert_eq!(items(&datagram), [Ok(done)]);
}

#[test]
fn errors_of_the_kernel_are_told_from_acknowledgements() {
    let refused = |kind, number: i32| {
        let items = items(&message(kind, 0, SEQUENCE, &number.to_ne_bytes()));
        items.into_iter().map(|item| item.unwrap().body).collect::<Vec<_>>()
    };
    assert_eq!(refused(NLMSG_ERROR, -libc::ENOENT), [Body::Refused(libc::ENOENT)]);
    assert_eq!(refused(NLMSG_ERROR, 0), []);
    assert_eq!(refused(NLMSG_ERROR, i32::MIN), [Body::Refused(i32::MAX)]);
    assert_eq!(refused(NLMSG_DONE, -libc::EBUSY), [Body::Done(Some(libc::EBUSY))]);
    let short = items(&message(NLMSG_ERROR, 0, SEQUENCE, &[1, 2, 3]));
    assert_eq!(short, [Err(Malformed::BodyCut)]);
}

#[test]
fn a_family_that_was_not_asked_for_is_an_error() {
    let mut body = time_wait();
    body[0] = 1;
    assert_eq!(items(&message(20, 2, SEQUENCE, &body)), [Err(Malformed::Family(1))]);
}

#[test]
fn cut_at_every_length_it_errs_or_gives_whole_sockets_only() {
    let one = message(20, 2, SEQUENCE, &time_wait());
    let datagram = [one.clone(), one.clone()].concat();
    for len in 0..datagram.len() {
        let items = items(&datagram[..len]);
        let sockets = items.iter().filter(|item| item.is_ok()).count();
        assert_eq!(sockets, len / one.len(), "cut at {len}");
        assert_eq!(items.len(), len.div_ceil(one.len()), "cut at {len}");
    }
    for len in 0..72 {
        let items = items(&message(20, 2, SEQUENCE, &time_wait()[..len]));
        assert_eq!(items, [Err(Malformed::BodyCut)], "body of {len}");
    }
}

#[test]
fn any_length_in_a_header_ends() {
    let datagram = message(20, 2, SEQUENCE, &time_wait());
    let lengths = (0..=100).chain([u32::MAX - 3, u32::MAX - 2, u32::MAX, 1 << 31]);
    for len in lengths {
        let mut datagram = datagram.clone();
        datagram[..4].copy_from_slice(&len.to_ne_bytes());
        let items = items(&datagram);
        assert!(items.len() <= 2, "length {len}: {items:?}");
        assert_eq!(items.iter().any(|item| item.is_ok()), len == 88, "length {len}");
    }
}

#[test]
fn random_bytes_neither_panic_nor_run_forever() {
    // xorshift64: the same bytes on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let pattern = message(20, 2, SEQUENCE, &time_wait()).repeat(3);
    for _ in 0..20_000 {
        let mut datagram = pattern.clone();
        for _ in 0..=next() % 8 {
            let at = next() as usize % datagram.len();
            datagram[at] = next() as u8;
        }
        assert!(items(&datagram).len() <= datagram.len() / 16 + 1);
    }
}

#[test]
fn the_request_is_what_the_kernel_reads() {
    let request = Request::dump(Family::V6, StateMask::of(6), 0, SEQUENCE);
    let bytes = request.as_bytes();
    assert_eq!(bytes[..4], 72u32.to_ne_bytes());
    assert_eq!(bytes[4..6], 20u16.to_ne_bytes());
    assert_eq!(bytes[6..8], 0x301u16.to_ne_bytes());
    assert_eq!(bytes[16..20], [10, 6, 0, 0]);
    assert_eq!(bytes[20..24], 64u32.to_ne_bytes());
    assert!(bytes[24..].iter().all(|&byte| byte == 0));
}
