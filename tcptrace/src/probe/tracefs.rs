//! tracefs, mounted where nobody else sees it when it is not mounted at all.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where tracefs is mounted.
pub fn mounted_at() -> Option<PathBuf> {
    PLACES.into_iter().map(PathBuf::from).find(|place| place.join("events").is_dir())
}

/// Runs `work` with tracefs in its usual place: on this thread if it is there, else on a thread
/// with a mount namespace of its own, which takes the mount with it when it ends.
pub fn with_tracefs<T: Send>(work: impl FnOnce(&Path) -> T + Send) -> io::Result<T> {
    if let Some(place) = mounted_at() {
        return Ok(work(&place));
    }
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Mounts of ours must not propagate to the host's.
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
            mount(Some("tracefs"), PLACES[0], Some("tracefs"), MsFlags::empty(), none)?;
            Ok(work(Path::new(PLACES[0])))
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}
