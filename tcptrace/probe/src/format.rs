//! The layout of a classic tracepoint's record, from its `format` file in tracefs.
//!
//! Must not assume an offset: what the file does not say is an error.

use tcptrace_common::globals::{ABSENT, ResetLayout, TRACEPOINT_MAX, TracepointLayout};
use thiserror::Error;

/// Why a `format` file cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// A field is not there.
    #[error("the tracepoint's format has no field {0}")]
    NoField(&'static str),
    /// A field has a size that the kernel side does not read.
    #[error("the tracepoint's field {0} has {1} bytes")]
    Size(&'static str, u32),
    /// A field lies behind what the kernel side copies.
    #[error("the tracepoint's field {0} lies past byte {TRACEPOINT_MAX}")]
    TooFar(&'static str),
}

struct Field {
    offset: u32,
    size: u32,
}

/// A line is `\tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;`.
fn field(format: &str, name: &'static str) -> Result<Field, FormatError> {
    for line in format.lines() {
        let mut parts = line.trim().split(';').map(str::trim);
        let Some(declaration) = parts.next().and_then(|p| p.strip_prefix("field:")) else {
            continue;
        };
        let declared = declaration.rsplit([' ', '*']).next().unwrap_or_default();
        if declared.split('[').next() != Some(name) {
            continue;
        }
        let mut value = |key: &str| -> Option<u32> {
            parts.next()?.strip_prefix(key)?.strip_prefix(':')?.parse().ok()
        };
        let (Some(offset), Some(size)) = (value("offset"), value("size")) else { continue };
        return match offset.checked_add(size) {
            Some(end) if end as usize <= TRACEPOINT_MAX => Ok(Field { offset, size }),
            _ => Err(FormatError::TooFar(name)),
        };
    }
    Err(FormatError::NoField(name))
}

/// Reads the layout of `sock:inet_sock_set_state`.
pub fn set_state_layout(format: &str) -> Result<TracepointLayout, FormatError> {
    let sized = |name, size| sized(format, name, size);
    let protocol = field(format, "protocol")?;
    if !matches!(protocol.size, 1 | 2) {
        return Err(FormatError::Size("protocol", protocol.size));
    }
    Ok(TracepointLayout {
        skaddr: sized("skaddr", 8)?,
        oldstate: sized("oldstate", 4)?,
        newstate: sized("newstate", 4)?,
        sport: sized("sport", 2)?,
        dport: sized("dport", 2)?,
        family: sized("family", 2)?,
        protocol: protocol.offset,
        protocol_size: protocol.size,
        saddr_v6: sized("saddr_v6", 16)?,
        daddr_v6: sized("daddr_v6", 16)?,
    })
}

/// A field of this size, or an error.
fn sized(format: &str, name: &'static str, size: u32) -> Result<u32, FormatError> {
    let field = field(format, name)?;
    if field.size == size { Ok(field.offset) } else { Err(FormatError::Size(name, field.size)) }
}

/// The same, of a field that not every kernel has.
fn sized_or_absent(format: &str, name: &'static str, size: u32) -> Result<u32, FormatError> {
    match sized(format, name, size) {
        Err(FormatError::NoField(_)) => Ok(ABSENT),
        other => other,
    }
}

/// Reads the layout of `tcp:tcp_send_reset` or `tcp:tcp_receive_reset`.
pub fn reset_layout(format: &str) -> Result<ResetLayout, FormatError> {
    /// `struct sockaddr_in6`, which is what 6.10 made of the addresses of one of them.
    const SOCKADDR: u32 = 28;
    let whole = ResetLayout {
        skaddr: sized(format, "skaddr", 8)?,
        state: sized_or_absent(format, "state", 4)?,
        reason: sized_or_absent(format, "reason", 4)?,
        ..ResetLayout::NONE
    };
    match sized(format, "saddr", SOCKADDR) {
        Ok(saddr) => Ok(ResetLayout { saddr, daddr: sized(format, "daddr", SOCKADDR)?, ..whole }),
        Err(_) => Ok(ResetLayout {
            sport: sized(format, "sport", 2)?,
            dport: sized(format, "dport", 2)?,
            saddr: sized(format, "saddr_v6", 16)?,
            daddr: sized(format, "daddr_v6", 16)?,
            ..whole
        }),
    }
}

/// Where the record of a system call's exit has what it returned.
pub fn returned(format: &str) -> Result<u32, FormatError> {
    sized(format, "ret", 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: inet_sock_set_state\nID: 2287\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:int oldstate;\toffset:16;\tsize:4;\tsigned:1;\n\
        \tfield:int newstate;\toffset:20;\tsize:4;\tsigned:1;\n\
        \tfield:__u16 sport;\toffset:24;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 dport;\toffset:26;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 family;\toffset:28;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 protocol;\toffset:30;\tsize:2;\tsigned:0;\n\
        \tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 daddr[4];\toffset:36;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;\n\
        \tfield:__u8 daddr_v6[16];\toffset:56;\tsize:16;\tsigned:0;\n\nprint fmt: \"...\"\n";

    #[test]
    fn reads_the_layout() {
        let layout = set_state_layout(FORMAT).unwrap();
        assert_eq!((layout.skaddr, layout.oldstate, layout.newstate), (8, 16, 20));
        assert_eq!((layout.sport, layout.dport, layout.family), (24, 26, 28));
        assert_eq!((layout.protocol, layout.protocol_size), (30, 2));
        assert_eq!((layout.saddr_v6, layout.daddr_v6), (40, 56));
    }

    #[test]
    fn follows_fields_that_move_and_shrink() {
        let old = FORMAT
            .replace("__u16 protocol;\toffset:30;\tsize:2", "__u8 protocol;\toffset:30;\tsize:1")
            .replace("offset:24", "offset:80");
        let layout = set_state_layout(&old).unwrap();
        assert_eq!((layout.protocol_size, layout.sport), (1, 80));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let without = FORMAT.replace("oldstate", "state_before");
        assert_eq!(set_state_layout(&without), Err(FormatError::NoField("oldstate")));
        let wide = FORMAT.replace("newstate;\toffset:20;\tsize:4", "newstate;\toffset:20;\tsize:8");
        assert_eq!(set_state_layout(&wide), Err(FormatError::Size("newstate", 8)));
        let far = FORMAT.replace("offset:56", "offset:4294967295");
        assert_eq!(set_state_layout(&far), Err(FormatError::TooFar("daddr_v6")));
        assert_eq!(set_state_layout("\0field:;;;"), Err(FormatError::NoField("protocol")));
    }
    const SENT_6_18: &str = "\tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:int state;\toffset:24;\tsize:4;\tsigned:1;\n\
        \tfield:enum sk_rst_reason reason;\toffset:28;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 saddr[28];\toffset:32;\tsize:28;\tsigned:0;\n\
        \tfield:__u8 daddr[28];\toffset:60;\tsize:28;\tsigned:0;\n";

    const RECEIVED_6_18: &str = "\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:__u16 sport;\toffset:16;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 dport;\toffset:18;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 family;\toffset:20;\tsize:2;\tsigned:0;\n\
        \tfield:__u8 saddr[4];\toffset:22;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 daddr[4];\toffset:26;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 saddr_v6[16];\toffset:30;\tsize:16;\tsigned:0;\n\
        \tfield:__u8 daddr_v6[16];\toffset:46;\tsize:16;\tsigned:0;\n";

    #[test]
    fn reads_both_shapes_of_resets() {
        let sent = reset_layout(SENT_6_18).unwrap();
        assert_eq!((sent.skaddr, sent.state, sent.reason), (16, 24, 28));
        assert_eq!((sent.saddr, sent.daddr, sent.sport), (32, 60, ABSENT));
        let received = reset_layout(RECEIVED_6_18).unwrap();
        assert_eq!((received.skaddr, received.state, received.reason), (8, ABSENT, ABSENT));
        assert_eq!((received.sport, received.dport), (16, 18));
        assert_eq!((received.saddr, received.daddr), (30, 46));
        let without = RECEIVED_6_18.replace("skaddr", "sk");
        assert_eq!(reset_layout(&without), Err(FormatError::NoField("skaddr")));
        let narrow =
            SENT_6_18.replace("reason;\toffset:28;\tsize:4", "reason;\toffset:28;\tsize:1");
        assert_eq!(reset_layout(&narrow), Err(FormatError::Size("reason", 1)));
        let exit = "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
            \tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n";
        assert_eq!(returned(exit), Ok(16));
    }
}
