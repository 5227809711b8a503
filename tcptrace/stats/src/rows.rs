//! Rows of a histogram for people, with exact edges.
//!
//! The buckets of `hdrhistogram` are right to three digits, which at 60 s is 30 ms: good enough
//! for a quantile, not for a row that begins at 60 s, where the kernel's timer ends TIME_WAIT.

/// Where the rows of a histogram begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Powers of two of a microsecond.
    Micros,
    /// Powers of two of a millisecond.
    Millis,
    /// Powers of two of a second.
    Seconds,
    /// For TIME_WAIT, in milliseconds: powers of two, and around 60 s, where a single one of
    /// those would swallow all, steps of one second.
    Minute,
}

/// Rows that a power-of-two scale has: in microseconds, the last begins at 12 days.
const LOG2_ROWS: usize = 41;

/// The first and the last linear row, in seconds.
const LINEAR_S: std::ops::RangeInclusive<u64> = 58..=67;

/// Powers of two of a millisecond below the linear rows: 0, 2, 4, … 32768.
const BELOW_ROWS: usize = 16;

impl Scale {
    /// How many rows it has. The last has no end.
    pub const fn rows(self) -> usize {
        match self {
            Self::Micros | Self::Millis | Self::Seconds => LOG2_ROWS,
            Self::Minute => BELOW_ROWS + (*LINEAR_S.end() - *LINEAR_S.start()) as usize + 1,
        }
    }

    /// Microseconds in one unit of it.
    pub const fn unit_us(self) -> u64 {
        match self {
            Self::Micros => 1,
            Self::Millis | Self::Minute => 1000,
            Self::Seconds => 1_000_000,
        }
    }

    /// The name of the unit, as bcc has it.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Micros => "usecs",
            Self::Millis | Self::Minute => "msecs",
            Self::Seconds => "secs",
        }
    }

    /// Where row `row` begins, in its unit.
    pub const fn begins(self, row: usize) -> u64 {
        match self {
            Self::Minute if row >= BELOW_ROWS => {
                (*LINEAR_S.start() + (row - BELOW_ROWS) as u64) * 1000
            }
            // Row 0 is 0 and 1 in one, as bcc prints it.
            _ if row == 0 => 0,
            _ => 1 << row,
        }
    }

    /// The last value of row `row`, in its unit; `None` for the row without an end.
    pub const fn ends(self, row: usize) -> Option<u64> {
        if row + 1 < self.rows() { Some(self.begins(row + 1) - 1) } else { None }
    }

    /// The row of a duration.
    pub const fn row(self, us: u64) -> usize {
        // Divided by what is known here: by a number that is not takes several times as long.
        let value = match self {
            Self::Micros => us,
            Self::Millis | Self::Minute => us / Self::Millis.unit_us(),
            Self::Seconds => us / Self::Seconds.unit_us(),
        };
        match self {
            Self::Minute if value >= *LINEAR_S.start() * 1000 => {
                let second = value / 1000;
                let last = *LINEAR_S.end();
                let second = if second < last { second } else { last };
                BELOW_ROWS + (second - *LINEAR_S.start()) as usize
            }
            _ => {
                let row = (value | 1).ilog2() as usize;
                if row < LOG2_ROWS { row } else { LOG2_ROWS - 1 }
            }
        }
    }
}

/// How many durations there are in each row.
#[derive(Clone, Debug)]
pub struct Rows {
    scale: Scale,
    counts: Vec<u64>,
}

impl Rows {
    /// No durations.
    pub fn new(scale: Scale) -> Self {
        Self { scale, counts: vec![0; scale.rows()] }
    }

    /// Adds one, in microseconds.
    pub fn add(&mut self, us: u64) {
        self.counts[self.scale.row(us)] += 1;
    }

    /// Adds those of `other`, which are of the same scale.
    pub fn join(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// Its scale.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Each row that is not empty, and those between such.
    pub fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        let used = |count: &u64| *count > 0;
        let first = self.counts.iter().position(used).unwrap_or(0);
        let end = self.counts.iter().rposition(used).map_or(0, |last| last + 1);
        (first..end).map(|row| (row, self.counts[row]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_row_that_says_so() {
        for scale in [Scale::Micros, Scale::Millis, Scale::Seconds, Scale::Minute] {
            for row in 0..scale.rows() {
                let first = scale.begins(row) * scale.unit_us();
                assert_eq!(scale.row(first), row, "{scale:?} {row}");
                let Some(last) = scale.ends(row) else {
                    assert_eq!(scale.row(u64::MAX), row, "{scale:?}");
                    continue;
                };
                let next = (last + 1) * scale.unit_us();
                assert_eq!(scale.row(next - 1), row, "{scale:?} {row}");
                assert_eq!(scale.begins(row + 1), last + 1, "no gap");
            }
        }
    }

    #[test]
    fn around_a_minute_a_row_is_a_second() {
        let scale = Scale::Minute;
        let row = |ms: u64| {
            let row = scale.row(ms * 1000);
            (scale.begins(row), scale.ends(row))
        };
        assert_eq!(row(0), (0, Some(1)));
        assert_eq!(row(57_999), (32_768, Some(57_999)));
        assert_eq!(row(59_999), (59_000, Some(59_999)));
        assert_eq!(row(60_000), (60_000, Some(60_999)));
        assert_eq!(row(66_000), (66_000, Some(66_999)));
        assert_eq!(row(90_000), (67_000, None));
    }
}
