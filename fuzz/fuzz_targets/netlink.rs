//! Any bytes as a datagram of sock_diag.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tcptrace_host::sock_diag::fuzz::datagram(bytes));
