//! The table of transitions.

use std::fmt::Write as _;

use super::{
    column,
    shared::{at_least, endings, ends, ns, owners, whence, within},
};
use tcptrace_model::{Linger, Moved};

type Column = column::Column<Moved>;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Its columns.
pub(super) fn columns() -> Vec<Column> {
    let mut all = whence();
    all.push(Column::text(
        "skaddr",
        "address of the kernel's object, hexadecimal; reused once it is freed. Only with \
         `--kernel-addresses`",
        |row, out| {
            // Writing to memory does not fail.
            row.about.addresses && row.it.skaddr != 0 && write!(out, "{:#x}", row.it.skaddr).is_ok()
        },
    ));
    all.extend(ends());
    all.extend([
        Column::word("old", "the state left", |row| Some(row.it.old.name())),
        Column::word("new", "the state entered", |row| Some(row.it.new.name())),
        Column::i64("ns", "time in the old state", |row| ns(row.it.in_old)),
        Column::bool("at_least", "`ns` is a lower bound", |row| at_least(row.it.in_old)),
        Column::i64("within_ns", "maximum error of `ns`, where a timer dated it", |row| {
            within(row.it.in_old)
        }),
    ]);
    all.extend(owners());
    all.extend([
        Column::bool("linger", "`SO_LINGER` is on", |row| Some(row.it.linger()? != Linger::Off)),
        Column::i64("linger_ns", "its time, where it is on", |row| match row.it.linger()? {
            Linger::Off => None,
            Linger::Jiffies(jiffies) => {
                Some(u64::from(jiffies) * SECOND_NS / u64::from(row.about.hz.max(1)))
            }
        }),
        Column::u16("error", "`sk_err`, an errno; 0 for none", |row| Some(row.it.sock?.err)),
    ]);
    all.extend(endings());
    all
}
