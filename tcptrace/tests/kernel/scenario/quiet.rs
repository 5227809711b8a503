//! The kernel's own count of the RSTs that the two hosts of a scenario send.

use anyhow::{Result, ensure};

use crate::{
    scenario::place::{Place, Side},
    witness::Counters,
};

/// What both ends' namespaces have counted so far.
pub struct Quiet([(Side, Counters); 2]);

impl Quiet {
    /// Begins to count.
    ///
    /// # Errors
    /// An unreadable /proc.
    pub fn from_here(place: &Place) -> Result<Self> {
        let read = |side| place.at(side, Counters::read).map(|counters| (side, counters));
        Ok(Self([read(Side::Client)?, read(Side::Server)?]))
    }

    /// Neither host has sent a RST since.
    ///
    /// # Errors
    /// One has, or /proc cannot be read.
    pub fn no_rst(&self, place: &Place) -> Result<()> {
        for (side, before) in &self.0 {
            let sent = place.at(*side, || before.growth("Tcp:OutRsts"))?;
            ensure!(sent == 0, "{sent} RSTs from the {side:?}'s host");
        }
        Ok(())
    }
}
