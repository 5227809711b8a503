//! What the fuzz target `netlink` runs.

use super::wire::{Body, Messages};

/// Where `struct nlmsghdr` has the sequence number.
const SEQUENCE: usize = 8;

/// The shortest message: `struct nlmsghdr`.
const HEADER: usize = 16;

/// Reads any bytes as a datagram of the dump that its first message answers.
pub fn datagram(bytes: &[u8]) {
    let sequence = bytes.get(SEQUENCE..).and_then(|rest| rest.first_chunk()).copied();
    let sequence = u32::from_ne_bytes(sequence.unwrap_or_default());
    let mut messages = 0;
    let mut failed = false;
    for message in Messages::new(bytes, sequence) {
        assert!(!failed, "a message after an error");
        failed = message.is_err();
        messages += 1;
        if let Ok(Body::Socket(socket)) = message.map(|message| message.body) {
            assert!(socket.cgroup.is_none_or(|id| id.get() != 0));
            assert_eq!(socket.local.is_ipv4(), socket.peer.is_ipv4());
        }
    }
    assert!(messages <= bytes.len() / HEADER + 1, "more messages than fit");
}
