//! How many rows are where they should be, and how many are not.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Table;

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Tally {
    files: [AtomicU64; 2],
    rows: [AtomicU64; 2],
    lost: [AtomicU64; 2],
    failures: AtomicU64,
    left: AtomicU64,
}

fn add(to: &[AtomicU64; 2], table: Table, count: u64) {
    // Each stands for itself.
    to[table as usize].fetch_add(count, Ordering::Relaxed);
}

fn read(of: &[AtomicU64; 2]) -> [u64; 2] {
    of.each_ref().map(|of| of.load(Ordering::Relaxed))
}

impl Tally {
    /// A file of so many rows is there.
    pub(super) fn keep(&self, table: Table, rows: u64) {
        add(&self.files, table, 1);
        add(&self.rows, table, rows);
    }

    /// So many rows are in no file.
    pub(super) fn lose(&self, table: Table, rows: u64) {
        add(&self.lost, table, rows);
    }

    /// Something could not be written.
    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// So many files of killed runs were removed.
    pub(super) fn found(&self, left: usize) {
        self.left.store(left as u64, Ordering::Relaxed);
    }

    /// Unfinished files of killed runs that were removed at the start.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Files that are there, in the order of [`Table::ALL`].
    pub fn files(&self) -> [u64; 2] {
        read(&self.files)
    }

    /// Rows in them.
    pub fn rows(&self) -> [u64; 2] {
        read(&self.rows)
    }

    /// Rows that are in no file: the disk was full, or too slow.
    pub fn lost(&self) -> [u64; 2] {
        read(&self.lost)
    }

    /// How often something could not be written.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
