//! Cuts, flipped bits, missing files and bytes of a stranger: everything but the damage is read, what is
//! missing is a gap, and nothing panics or allocates without a bound.

use super::*;

/// Some blocks, of the script and then of a second each.
fn several_blocks() -> Vec<Input> {
    let mut inputs = scripted();
    let end = inputs.pop().unwrap();
    for second in 1..4 {
        for n in 0..4 {
            let mono_ns = 62_000_000_000 + second * 1_000_000_000 + n * 250_000_000;
            inputs.push(Input::Lost(Lost {
                hook: tcptrace_common::counters::Hook::SetState,
                count: n,
                mono_ns,
            }));
            inputs.push(Input::Tick { mono_ns });
        }
    }
    inputs.push(end);
    inputs
}

#[test]
fn a_recording_cut_anywhere_is_read_up_to_there() {
    let inputs = several_blocks();
    let (directory, _, bytes) = written(&inputs);
    let path = directory.path().join("cut");
    let mut lens = Vec::new();
    for len in 0..=bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        match read(&path) {
            Ok(back) => {
                assert_eq!(back.failure, None, "at {len}");
                lens.push(assert_beginning(&inputs, &back));
                assert_eq!(back.remarks.is_empty(), len == bytes.len(), "{:?}", back.remarks);
            }
            Err(error) => {
                let text = error.to_string();
                let says = ["it is empty", "it ends within its header"];
                assert!(says.iter().any(|says| text.contains(says)), "at {len}: {text}");
                assert!(lens.is_empty(), "{text}");
            }
        }
    }
    assert!(lens.is_sorted() && lens.last() == Some(&(inputs.len() - 1)), "{lens:?}");
    lens.dedup();
    assert!(lens.len() >= 4, "several blocks: {lens:?}");
}

/// Where each block begins and ends, and its head.
fn blocks(bytes: &[u8]) -> Vec<(usize, usize, BlockHead)> {
    let mut reader = Reader::new(bytes).unwrap();
    let mut blocks = Vec::new();
    while let Found::Head(head) = reader.head().unwrap() {
        let begin = reader.position() as usize;
        reader.pass_over(head).unwrap();
        blocks.push((begin, reader.position() as usize, head));
    }
    assert_eq!(blocks.last().unwrap().1, bytes.len());
    blocks
}

/// Holds what is true of `inputs` without those from `from` to `to`: all others are there, in their
/// order, a gap stands for these, and the end counts what is missing.
#[track_caller]
fn assert_without(inputs: &[Input], (from, to): (usize, usize), back: &ReadBack, what: &str) {
    let is_gap = |input: &&Input| matches!(input, Input::Gap(_));
    let gaps: Vec<_> = back.inputs.iter().filter(is_gap).collect();
    assert_eq!(gaps.len(), 1, "{what}: {gaps:?}");
    let (end, rest) = back.inputs.split_last().unwrap();
    let rest: Vec<_> = rest.iter().filter(|input| !is_gap(input)).collect();
    let left: Vec<_> = inputs[..from].iter().chain(&inputs[to..]).collect();
    let left = left.iter().filter(|input| !matches!(input, Input::End(_)));
    // What still holds may be said again.
    let mut rest = rest.into_iter();
    for input in left {
        assert!(rest.any(|there| there == *input), "{what}: {input:?} is not there");
    }
    let Input::End(accounts) = end else { panic!("{what}: {end:?}") };
    assert_eq!(accounts.gaps.count, 1, "{what}");
    assert!(!accounts.gaps.complete(), "{what}");
    assert_eq!(accounts.balance(), 0, "{what}: {accounts:?}");
    let failure = back.failure.as_deref().unwrap_or_default();
    assert!(failure.contains("the recording has 1 gaps"), "{what}: {failure}");
    assert!(back.remarks.iter().any(|r| r.contains("nothing is known from")), "{:?}", back.remarks);
}

#[test]
fn a_flipped_bit_in_any_block_costs_that_block() {
    let inputs = several_blocks();
    let (directory, _, bytes) = written(&inputs);
    let blocks = blocks(&bytes);
    assert!(blocks.len() >= 4);
    let flipped = |bit: usize| {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let path = directory.path().join("flipped");
        fs::write(&path, &bytes).unwrap();
        read(&path)
    };
    for bit in 0..8 * blocks[0].0 {
        let error = flipped(bit).map(|_| ()).unwrap_err().to_string();
        let says = ["not a recording", "is damaged", "within its header"];
        assert!(says.iter().any(|says| error.contains(says)), "bit {bit}: {error}");
    }
    let mut before = 0;
    for (at, end, head) in blocks {
        let count = head.inputs as usize;
        // All of its head, and some of what follows.
        let bits = (8 * at..8 * (at + 72)).chain((8 * (at + 72)..8 * end).step_by(61));
        for bit in bits {
            let back = flipped(bit).unwrap();
            let what = format!("bit {bit}, in the block at {at}");
            assert_without(&inputs, (before, before + count), &back, &what);
            let gap = back.inputs.iter().find_map(|input| match input {
                Input::Gap(gap) => Some(*gap),
                _ => None,
            });
            let gap = gap.unwrap();
            assert_eq!(gap.because, GapBecause::Damaged, "{what}");
            let of_body = bit >= 8 * (at + 72);
            assert!(!of_body || gap.from_ns <= head.first_ns, "{what}: {gap:?} {head:?}");
            assert!(!of_body || gap.mono_ns >= head.last_ns, "{what}: {gap:?} {head:?}");
            let says = format!("damaged at byte {at}: left out");
            assert!(back.remarks.iter().any(|r| r.contains(&says)), "{what}: {:?}", back.remarks);
        }
        before += count;
    }
}

#[test]
fn bytes_that_are_missing_or_too_many_cost_only_the_blocks_around_them() {
    let inputs = several_blocks();
    let (directory, _, bytes) = written(&inputs);
    let blocks = blocks(&bytes);
    let path = directory.path().join("other");
    let counts: Vec<_> = blocks.iter().map(|(_, _, head)| head.inputs as usize).collect();
    for (at, (begin, end, _)) in blocks.iter().enumerate() {
        let before: usize = counts[..at].iter().sum();
        // A piece of it is gone, and what comes after moves up.
        let mut less = bytes.clone();
        less.drain(begin + 80..(begin + 90).min(*end));
        fs::write(&path, &less).unwrap();
        let back = read(&path).unwrap();
        if at + 1 < blocks.len() {
            assert_without(&inputs, (before, before + counts[at]), &back, &format!("less in {at}"));
        }
        // Bytes of a stranger between two blocks: nothing is missing.
        let mut more = bytes.clone();
        more.splice(*begin..*begin, *b"tcpB, and so on");
        fs::write(&path, &more).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(assert_beginning(&inputs, &back), inputs.len() - 1, "more before {at}");
        assert_eq!(back.failure, None);
    }
}

#[test]
fn each_file_of_a_rotation_that_is_missing_is_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("all");
    let mut inputs = churn(20, 2_000);
    let events = inputs.iter().filter(|input| matches!(input, Input::Event(_))).count() as u64;
    let accounts = Accounts { mono_ns: 20_000_000_000, seconds: 20.0, ..Accounts::default() };
    inputs.push(Input::End(Accounts { seen: events, delivered: events, ..accounts }));
    write_with(&base, Some(Rotation { every: Every::Bytes(64 << 10), keep: None }), &inputs);
    let all = parts(&base);
    assert!(all.len() > 4, "{all:?}");
    let whole = read(&base).unwrap();
    assert_eq!((whole.failure, &whole.inputs), (None, &inputs));
    let end_of = |back: &ReadBack| match back.inputs.last() {
        Some(Input::End(accounts)) => *accounts,
        other => panic!("{other:?}"),
    };
    for at in 0..all.len() {
        let mut left = all.clone();
        let gone = left.remove(at);
        // Moved away, and damaged at its beginning: the same.
        for damaged in [false, true] {
            let kept = fs::read(&gone).unwrap();
            let back = if damaged {
                let mut bytes = kept.clone();
                bytes[30] ^= 1;
                fs::write(&gone, &bytes).unwrap();
                read(&base).unwrap()
            } else {
                read_stretch(&left, Stretch::default()).unwrap()
            };
            fs::write(&gone, &kept).unwrap();
            let what = format!("without file {} of {}", at + 1, all.len());
            let accounts = end_of(&back);
            let read = back.inputs.iter().filter(|i| matches!(i, Input::Event(_))).count() as u64;
            assert!(read < events, "{what}");
            assert_eq!(accounts.balance(), 0, "{what}");
            assert!(!accounts.gaps.complete(), "{what}");
            let gaps: Vec<_> =
                back.inputs.iter().filter(|input| matches!(input, Input::Gap(_))).collect();
            if at == 0 || at == all.len() - 1 {
                // An end that is not there has no other side: what is there is whole.
                assert_eq!((gaps.len(), accounts.lost), (0, 0), "{what}");
                assert!(accounts.gaps.partial, "{what}");
                assert_eq!((accounts.delivered, back.failure), (read, None), "{what}");
                assert!(!back.remarks.is_empty());
                continue;
            }
            assert_eq!((gaps.len(), accounts.gaps.count), (1, 1), "{what}");
            assert_eq!((accounts.delivered, accounts.lost), (read, events - read), "{what}");
            assert!(accounts.gaps.ns > 500_000_000, "{what}: {accounts:?}");
            assert!(!accounts.gaps.partial, "{what}");
            assert!(back.failure.is_some(), "{what}");
            // What still holds is said again.
            let after = back.inputs.iter().skip_while(|input| !matches!(input, Input::Gap(_)));
            assert!(after.clone().any(|input| matches!(input, Input::Clock(_))), "{what}");
            assert!(after.clone().any(|input| matches!(input, Input::Cgroup { .. })), "{what}");
        }
    }
}

#[test]
fn a_round_of_snapshots_with_a_gap_in_it_ends_nobody() {
    // Two rounds of a socket that stays; the block with the socket in the second round is damaged.
    let mut text = String::from("0ms begin\n0ms clock 1795330800000000000\n");
    for second in [1, 12] {
        let at = |ms: u64| second * 1000 + ms;
        text += &format!(
            "{}ms snapshot open\n{}ms snapshot 7\n{}ms tick\n{}ms tick\n\
             {}ms socket ESTABLISHED 5 10.0.0.1:7 10.0.0.2:443\n{}ms tick\n{}ms tick\n\
             {}ms snapshot end\n{}ms snapshot over\n{}ms tick\n{}ms tick\n",
            at(0),
            at(0),
            at(1),
            at(800),
            at(800),
            at(801),
            at(1600),
            at(1600),
            at(1600),
            at(1601),
            at(2400),
        );
    }
    let inputs = script::inputs(&text).unwrap();
    let (directory, _, bytes) = written(&inputs);
    let path = directory.path().join("damaged");
    let known = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let mut tracker = Tracker::default();
        let mut gone = 0;
        for input in read(&path).unwrap().inputs {
            tracker.apply(&input, &mut |change| {
                gone += u64::from(matches!(change, tcptrace_model::Change::Gone(_)));
            });
        }
        (tracker.census().count(), gone)
    };
    assert_eq!(known(&bytes), (1, 0));
    for (at, end, head) in blocks(&bytes) {
        let mut bytes = bytes.clone();
        bytes[end - 1] ^= 1;
        let (known, gone) = known(&bytes);
        assert!(known == 1 || head.first_ns < 4_000_000_000, "block at {at}: {known}");
        assert_eq!(gone, 0, "block at {at}: {head:?}");
    }
}

#[test]
fn any_bytes_with_a_right_sum_are_refused_without_a_panic() {
    let inputs = several_blocks();
    let (_directory, _, bytes) = written(&inputs);
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let mut block = Block::default();
    let mut numbers = Numbers(77);
    let (mut refused, mut read) = (0, 0);
    while let Found::Head(head) = reader.head().unwrap() {
        assert_eq!(reader.contents(head, &mut block).unwrap(), Contents::Whole);
        for _ in 0..3_000 {
            let mut bytes = block.bytes.clone();
            for _ in 0..=numbers.below(3) {
                let at = numbers.below(bytes.len() as u64) as usize;
                bytes[at] = numbers.next() as u8;
            }
            let mut memory = Memory::default();
            memory.begin(head.first_ns);
            let mut decoder = Decoder::new(&bytes, &mut memory);
            loop {
                match decoder.next_item() {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        break;
                    }
                }
            }
        }
    }
    assert!(refused > 100 && read > 1_000, "{refused} {read}");
}

#[test]
fn what_is_no_recording_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let says = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        read(&path).map(|_| ()).unwrap_err().to_string()
    };
    assert!(says("empty", b"").ends_with("it is empty"));
    assert!(says("text", b"LADDR:LPORT RADDR:RPORT").ends_with("not a recording of tcptrace"));
    let mut newer = header().to_bytes();
    newer[8] = 2;
    let sum = crc32fast::hash(&[&newer[..16], &newer[FIXED_BYTES..]].concat());
    newer[16..20].copy_from_slice(&sum.to_le_bytes());
    let text = says("newer", &newer);
    assert!(text.contains("format version 2") && text.contains("newer tcptrace"), "{text}");
    let mut huge = header().to_bytes();
    huge[15] = 0xff;
    assert!(says("huge", &huge).ends_with("its header is damaged"));
    let none = read(&directory.path().join("none")).map(|_| ()).unwrap_err().to_string();
    assert!(none.contains("none: No such file"), "{none}");
}
