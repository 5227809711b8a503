//! A count of `sock:inet_sock_set_state` that is not ours: the kernel's own perf counter for the
//! tracepoint, with a filter in the kernel's filter language, as `perf stat --filter` sets it.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use perf_event_open_sys::{
    bindings::PERF_TYPE_TRACEPOINT, bindings::perf_event_attr, ioctls, perf_event_open,
};
use tcptrace::probe::with_tracefs;

/// One counter on each CPU.
pub struct Counted(Vec<File>);

impl Counted {
    /// Counts from now on, on all CPUs, the events that match `filter`.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn start(filter: &str) -> Result<Self> {
        let id: u64 = with_tracefs(|tracefs| {
            fs::read_to_string(tracefs.join("events/sock/inet_sock_set_state/id"))
        })??
        .trim()
        .parse()?;
        let filter = CString::new(filter)?;
        let cpus = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let mut counters = Vec::new();
        for cpu in numbers(&cpus)? {
            let mut attr =
                perf_event_attr { type_: PERF_TYPE_TRACEPOINT, config: id, ..Default::default() };
            attr.size = size_of::<perf_event_attr>() as u32;
            // Without its filter it would count all that happens on the host.
            attr.set_disabled(1);
            // SAFETY: `attr` is a valid perf_event_attr of the size that it says.
            let fd = unsafe { perf_event_open(&raw mut attr, -1, cpu, -1, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("perf_event_open");
            }
            // SAFETY: a new file descriptor that nothing else owns.
            let counter = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
            // SAFETY: an open perf event and a NUL-terminated string.
            let set =
                unsafe { ioctls::SET_FILTER(counter.as_raw_fd(), filter.as_ptr().cast_mut()) };
            if set < 0 {
                return Err(io::Error::last_os_error()).context("PERF_EVENT_IOC_SET_FILTER");
            }
            // SAFETY: an open perf event; the argument is a number.
            if unsafe { ioctls::ENABLE(counter.as_raw_fd(), 0) } < 0 {
                return Err(io::Error::last_os_error()).context("PERF_EVENT_IOC_ENABLE");
            }
            counters.push(counter);
        }
        Ok(Self(counters))
    }

    /// What has been counted.
    ///
    /// # Errors
    /// That of the read.
    pub fn total(&mut self) -> Result<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            let mut count = [0; 8];
            counter.read_exact(&mut count).context("read a perf counter")?;
            sum += u64::from_ne_bytes(count);
        }
        Ok(sum)
    }
}

/// The numbers in `0-1,3`.
fn numbers(list: &str) -> Result<Vec<i32>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<i32>()?..=last.parse()?);
    }
    Ok(cpus)
}
