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

/// The symbol behind the last function of the kernel itself: what follows is data, code that is gone
/// after the boot, and modules.
const END_OF_TEXT: &[u8] = b"_etext";

/// Looks the names up, in one pass over the file, which ends with the kernel's own functions if each
/// name was found by then: 40 ms for a kernel of 120,000 symbols, nearly all of it the kernel's.
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
    let mut begins = [false; 256];
    let first_letters = names.iter().filter_map(|name| name.bytes().next());
    first_letters.for_each(|first| begins[usize::from(first)] = true);
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        let name = name(&line);
        // Most lines are of no interest, which the first letter shows of most of them.
        let wanted = match name.first() {
            Some(&first) if begins[usize::from(first)] => {
                names.iter().position(|wanted| is_of(name, wanted.as_bytes()))
            }
            _ => None,
        };
        if let (true, Some(address)) = (wanted.is_some() || !open.is_empty(), address(&line)) {
            open.retain(|&index| !found[index].end_at(address));
            if let Some(index) = wanted {
                found[index].begin_at(address);
                open.push(index);
            }
        }
        if is_of(name, END_OF_TEXT) && !found.contains(&Function::Absent) {
            break;
        }
        line.clear();
    }
    Ok(found)
}

fn address(line: &[u8]) -> Option<u64> {
    let digits = line.split(u8::is_ascii_whitespace).next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The name in a line, and what may follow it; empty if there is none.
fn name(line: &[u8]) -> &[u8] {
    // On 64-bit kernels every name begins at the same place.
    if let [_, .., b' ', _, b' '] = line.get(..NAME_AT).unwrap_or_default() {
        return &line[NAME_AT..];
    }
    let mut fields = line.splitn(3, u8::is_ascii_whitespace);
    fields.nth(2).unwrap_or_default()
}

/// Behind an address of 16 digits and a letter.
const NAME_AT: usize = 19;

/// Whether `name` is that of `function`, or of a part or clone of it.
fn is_of(name: &[u8], function: &[u8]) -> bool {
    let rest = name.strip_prefix(function);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'\t' | b'\n')))
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
    fn modules_are_read_only_for_what_the_kernel_itself_lacks() {
        let text = b"ffffffff81000000 T tcp_v4_rcv\n\
            ffffffff81000080 T tcp_v4_rcv.cold\n\
            ffffffff81000100 T _etext\n\
            ffffffffc0000000 t tcp_v4_rcv\t[odd]\n\
            ffffffffc0000100 t tcp_v6_rcv\t[ipv6]\n\
            ffffffffc0000200 t other\t[ipv6]\n";
        let found = functions_in(&text[..], &["tcp_v4_rcv"]).unwrap();
        let base = 0xffff_ffff_8100_0000;
        let both = [base..base + 0x80, base + 0x80..base + 0x100];
        assert_eq!(found, [Function::At(both.to_vec())]);
        let found = functions_in(&text[..], &["tcp_v4_rcv", "tcp_v6_rcv"]).unwrap();
        assert!(found[1].contains(0xffff_ffff_c000_0100), "{found:?}");
        assert!(!found[1].contains(0xffff_ffff_c000_0200), "{found:?}");
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
