//! Addresses of kernel functions: `/proc/kallsyms`.
//!
//! Exact names only. A compiler may have cloned a function under another one
//! (`tw_timer_handler.llvm.123`); whether such a clone will do is not for a look-up to say.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// What the kernel told of a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// Its addresses: more than one where several files have a static function of that name.
    At(Vec<u64>),
    /// It exists, and its address is kept from this process (`kernel.kptr_restrict`; without
    /// CAP_SYSLOG it is shown as 0).
    Hidden,
    /// The kernel has none of that name.
    Absent,
}

/// Looks the names up, in one pass over the file: 100 ms for a kernel of 120,000 symbols.
/// The answers are in the order of `names`.
pub fn lookup(names: &[&str]) -> io::Result<Vec<Symbol>> {
    lookup_in(BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?), names)
}

/// The same in any text of that form, `ADDRESS TYPE NAME[\t[MODULE]]` a line; other lines are
/// passed over.
pub fn lookup_in(mut text: impl BufRead, names: &[&str]) -> io::Result<Vec<Symbol>> {
    let mut found = vec![Symbol::Absent; names.len()];
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        if let Some((address, name)) = parse_line(&line) {
            for (wanted, symbol) in names.iter().zip(&mut found) {
                if wanted.as_bytes() == name {
                    symbol.add(address);
                }
            }
        }
        line.clear();
    }
    Ok(found)
}

/// Address, as text, and name.
fn parse_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = line.split(u8::is_ascii_whitespace);
    let address = fields.next()?;
    let _kind = fields.next()?;
    Some((address, fields.next()?))
}

impl Symbol {
    fn add(&mut self, address: &[u8]) {
        let number = std::str::from_utf8(address).ok();
        match (number.and_then(|text| u64::from_str_radix(text, 16).ok()), self) {
            (None, _) | (Some(0), Self::At(_)) => {}
            (Some(0), symbol) => *symbol = Self::Hidden,
            (Some(address), Self::At(addresses)) => addresses.push(address),
            (Some(address), symbol) => *symbol = Self::At(vec![address]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"ffffffff81000000 T _stext\n\
        ffffffff81a00010 t tw_timer_handler\n\
        ffffffff81a00020 t tw_timer_handler.cold\n\
        ffffffffc0000000 t cleanup\t[nf_nat]\n\
        0000000000000000 t hidden_one\n\
        odd\n\
        zz t cleanup\n\
        ffffffffc0001000 t cleanup\t[veth]";

    #[test]
    fn exact_names_are_found_in_the_order_asked() {
        let found = lookup_in(TEXT, &["cleanup", "tw_timer_handler", "nowhere", "hidden_one"]);
        let expected = [
            Symbol::At(vec![0xffff_ffff_c000_0000, 0xffff_ffff_c000_1000]),
            Symbol::At(vec![0xffff_ffff_81a0_0010]),
            Symbol::Absent,
            Symbol::Hidden,
        ];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn cut_at_every_length_it_does_not_fail() {
        for len in 0..TEXT.len() {
            lookup_in(&TEXT[..len], &["cleanup"]).unwrap();
        }
        assert_eq!(lookup_in(&b"\xff\xff \n\n \n"[..], &["x"]).unwrap(), [Symbol::Absent]);
    }

    #[test]
    fn this_kernel_has_a_function_that_all_have() {
        assert_ne!(lookup(&["tcp_sendmsg"]).unwrap(), [Symbol::Absent]);
    }
}
