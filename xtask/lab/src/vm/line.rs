//! Kernel lines (`6.1`) and releases (`6.1.0-56-cloud-amd64`): parsing and order. Pure.

use std::{cmp::Ordering, fmt, str::FromStr};

use anyhow::{Context as _, Result};

/// A kernel line, the first two numbers of a release: what a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    major: u16,
    minor: u16,
}

impl Line {
    /// The line of kernel `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The line that a release belongs to; `None` if it does not begin with two numbers.
    pub fn of_release(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..digits].parse().ok()? })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Line {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        parse().with_context(|| format!("`{text}` is not a kernel line such as 6.1"))
    }
}

/// Orders releases of one distribution as its maintainers do: by their numbers, from the left.
pub fn compare_releases(a: &str, b: &str) -> Ordering {
    numbers(a).cmp(numbers(b)).then_with(|| a.cmp(b))
}

fn numbers(release: &str) -> impl Iterator<Item = u64> + '_ {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_two_numbers() {
        assert_eq!("6.12".parse::<Line>().unwrap(), Line::new(6, 12));
        for bad in ["6", "6.", "6.12.3", "six.one", "", "6.1-rc1"] {
            assert!(bad.parse::<Line>().is_err(), "{bad}");
        }
        assert_eq!(Line::of_release("6.12.117+deb12-cloud-amd64"), Some(Line::new(6, 12)));
        assert_eq!(Line::of_release("7.3-rc1"), Some(Line::new(7, 3)));
        assert_eq!(Line::of_release("linux"), None);
        assert!(Line::new(6, 2) < Line::new(6, 12));
    }

    #[test]
    fn the_newest_abi_is_the_last() {
        let mut releases = [
            "6.12.90+deb12.1",
            "6.12.117+deb12",
            "6.12.90+deb12",
            "6.12.9+deb12",
            "6.12.101+deb12",
        ];
        releases.sort_by(|a, b| compare_releases(a, b));
        assert_eq!(
            releases,
            [
                "6.12.9+deb12",
                "6.12.90+deb12",
                "6.12.90+deb12.1",
                "6.12.101+deb12",
                "6.12.117+deb12"
            ]
        );
        assert!(compare_releases("6.1.0-0.deb11.52", "6.1.0-9").is_lt());
    }
}
