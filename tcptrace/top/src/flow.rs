//! How a recording comes that is read through a pipe.
//!
//! Must not read a clock: who reads says for how long nothing has come.

/// How it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As it should: a block about each second.
    Live,
    /// Nothing has come for so many seconds: the writer, or what is between, stands still.
    Silent(u64),
    /// It has come to its end.
    Ended,
    /// No more comes, and its end is not there.
    CutOff,
}

impl Flow {
    /// In words, for the first line.
    pub(super) fn words(self) -> String {
        match self {
            Self::Live => "stream".to_owned(),
            Self::Silent(seconds) => format!("stream: nothing for {seconds} s"),
            Self::Ended => "stream ended".to_owned(),
            Self::CutOff => "stream cut off".to_owned(),
        }
    }
}
