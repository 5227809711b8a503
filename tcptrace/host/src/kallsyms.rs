//! Where kernel functions are: `/proc/kallsyms`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    ops::Range,
};

/// What the kernel told of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// Its code, in one or more pieces: the compiler splits off cold parts (`NAME.cold`) and
    /// makes clones (`NAME.isra.0`), and several files may have a static function of that name.
    At(Vec<Range<u64>>),
    /// It exists, and its address is kept from this process (`kernel.kptr_restrict`; without
    /// CAP_SYSLOG it is shown as 0).
    Hidden,
    /// The kernel has none of that name.
    Absent,
}

impl Function {
    /// Whether the address is in its code.
    pub fn contains(&self, address: u64) -> bool {
        matches!(self, Self::At(pieces) if pieces.iter().any(|piece| piece.contains(&address)))
    }
}

/// Looks the names up, in one pass over the file: 100 ms for a kernel of 120,000 symbols.
/// The answers are in the order of `names`.
pub fn functions(names: &[&str]) -> io::Result<Vec<Function>> {
    functions_in(BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?), names)
}

/// The same in any text of that form, `ADDRESS TYPE NAME[\t[MODULE]]` a line, in the order of
/// the addresses as the kernel prints them; other lines are passed over. A function ends where
/// the next symbol begins.
pub fn functions_in(mut text: impl BufRead, names: &[&str]) -> io::Result<Vec<Function>> {
    let mut found = vec![Function::Absent; names.len()];
    let mut open: Vec<usize> = Vec::new();
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        if let Some((address, name)) = parse_line(&line) {
            open.retain(|&index| !found[index].end_at(address));
            let base = name.split(|&byte| byte == b'.').next().unwrap_or_default();
            if let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == base) {
                found[index].begin_at(address);
                open.push(index);
            }
        }
        line.clear();
    }
    Ok(found)
}

/// Address and name.
fn parse_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = line.split(u8::is_ascii_whitespace);
    let address = u64::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 16).ok()?;
    let _kind = fields.next()?;
    Some((address, fields.next()?))
}

impl Function {
    fn begin_at(&mut self, address: u64) {
        match (address, &mut *self) {
            (0, Self::At(_)) => {}
            (0, _) => *self = Self::Hidden,
            (_, Self::At(pieces)) => pieces.push(address..u64::MAX),
            _ => *self = Self::At(std::iter::once(address..u64::MAX).collect()),
        }
    }

    /// Ends the last piece where the next symbol begins; false for an alias of the same place.
    fn end_at(&mut self, address: u64) -> bool {
        match self {
            Self::At(pieces) => match pieces.last_mut() {
                Some(last) if last.start < address => {
                    last.end = last.end.min(address);
                    true
                }
                // Lower: the symbols of a module begin. No end is known then.
                Some(last) => last.start > address,
                None => true,
            },
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"ffffffff81000000 T _stext\n\
        ffffffff81a00010 t tw_timer_handler\n\
        ffffffff81a00010 t an_alias_of_it\n\
        ffffffff81a00020 t tcp_v4_rcv.cold\n\
        ffffffff81a00030 T tcp_v4_rcv\n\
        ffffffff81a00090 t tcp_v4_rcv_not\n\
        ffffffffc0000000 t cleanup\t[nf_nat]\n\
        0000000000000000 t hidden_one\n\
        odd\n\
        zz t cleanup\n\
        ffffffffc0000100 t last";

    #[test]
    fn a_function_ends_where_the_next_one_begins() {
        let names = ["tw_timer_handler", "tcp_v4_rcv", "hidden_one", "nothing", "last"];
        let found = functions_in(TEXT, &names).unwrap();
        let base = 0xffff_ffff_81a0_0000;
        assert_eq!(found[0], Function::At(std::iter::once(base + 0x10..base + 0x20).collect()));
        assert_eq!(
            found[1],
            Function::At(vec![base + 0x20..base + 0x30, base + 0x30..base + 0x90])
        );
        assert!(found[1].contains(base + 0x8f) && !found[1].contains(base + 0x90));
        assert_eq!(found[2..4], [Function::Hidden, Function::Absent]);
        assert!(found[4].contains(0xffff_ffff_c000_0100));
    }

    #[test]
    fn this_kernel_has_the_timers_handler() {
        match &functions(&["tw_timer_handler"]).unwrap()[..] {
            [Function::At(pieces)] => {
                assert!(pieces.iter().all(|piece| piece.end - piece.start < 1 << 20))
            }
            [Function::Hidden] => println!("skipped: kallsyms hides addresses from this process"),
            other => panic!("{other:?}"),
        }
    }
}
