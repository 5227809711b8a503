//! Access to the read-only globals, one field at a time.
//!
//! A volatile read of one field, so that the compiler neither folds in the value that the object
//! was built with nor copies the whole structure to the stack. The verifier knows the result.

use tcptrace_common::globals::Globals;

#[unsafe(no_mangle)]
pub(crate) static GLOBALS: Globals = Globals::UNSET;

/// Reads `GLOBALS.$field`.
macro_rules! global {
    ($($field:ident).+) => {
        // SAFETY: a reference to a field of a static is valid and aligned for a read.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::GLOBALS.$($field).+) }
    };
}
pub(crate) use global;
