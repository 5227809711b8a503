//! Cuts, flipped bits and bytes of a stranger: everything before the damage is read, and nothing
//! panics or allocates without a bound.

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

#[test]
fn a_flipped_bit_is_noticed_and_what_was_before_it_is_read() {
    let inputs = several_blocks();
    let (directory, path, bytes) = written(&inputs);
    let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
    let mut heads = Vec::new();
    while let Some(head) = reader.head().unwrap() {
        heads.push((reader.position() as usize, head.inputs as usize));
        reader.skip(head).unwrap();
    }
    let flipped = |bit: usize| {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let path = directory.path().join("flipped");
        fs::write(&path, &bytes).unwrap();
        read(&path)
    };
    for bit in 0..8 * heads[0].0 {
        let error = flipped(bit).map(|_| ()).unwrap_err().to_string();
        let says = ["not a recording", "is damaged", "within its header"];
        assert!(says.iter().any(|says| error.contains(says)), "bit {bit}: {error}");
    }
    let ends = heads.iter().skip(1).map(|(at, _)| *at).chain([bytes.len()]);
    let mut before = 0;
    for ((at, count), end) in heads.iter().zip(ends) {
        // All of its head, and some of what follows.
        let bits = (8 * at..8 * (at + 72)).chain((8 * (at + 72)..8 * end).step_by(61));
        for bit in bits {
            let back = flipped(bit).unwrap();
            let failure = back.failure.as_deref().unwrap_or_default();
            assert!(failure.contains(&format!("damaged at byte {at}")), "bit {bit}: {failure}");
            assert_eq!(assert_beginning(&inputs, &back), before, "bit {bit}");
        }
        before += count;
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
    while let Some(head) = reader.head().unwrap() {
        assert!(reader.contents(head, &mut block).unwrap());
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
