//! Any bytes as a recording: read to their end or to an error, in bounded memory, without a panic.
//!
//! Sums would keep the fuzzer out, so the contents of a block are also read without theirs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace_record::{Block, Contents, Decoder, Found, Memory, Reader};

fn decode(bytes: &[u8]) {
    let mut memory = Memory::default();
    memory.begin(0);
    let mut decoder = Decoder::new(bytes, &mut memory);
    while let Ok(Some(_)) = decoder.next_item() {}
}

fuzz_target!(|bytes: &[u8]| {
    decode(bytes);
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let mut block = Block::default();
    loop {
        match reader.head() {
            Ok(Found::Head(head)) => match reader.contents(head, &mut block) {
                Ok(Contents::Whole) => decode(&block.bytes),
                Ok(Contents::Damaged { .. }) => {}
                Ok(Contents::Torn) | Err(_) => break,
            },
            Ok(Found::Damage { .. }) => {}
            Ok(Found::End) | Err(_) => break,
        }
    }
});
