//! tracefs in a place where aya looks for it, mounted where nobody else sees it when it is in none.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use tcptrace_host::{
    kernel::{self, Lockdown},
    mounts::mounts,
};

/// The only places where `aya::programs::TracePoint::attach()` looks.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where tracefs is mounted already, for aya to find.
pub fn mounted() -> io::Result<Option<PathBuf>> {
    let usable = |place: &PathBuf| {
        // The mount covers what a debugfs may lack (CONFIG_TRACEFS_AUTOMOUNT_DEPRECATED). That we
        // may not look inside is no sign that it is not there: the directory has mode 0700.
        let events = place.join("events").metadata();
        let absent = events.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        PLACES.iter().any(|known| Path::new(known) == place) && !absent
    };
    Ok(kernel::tracefs(&mounts()?).into_iter().find(usable))
}

/// Runs `work` with tracefs in a place where aya finds it: on this thread if it is there, else on
/// a thread with a mount namespace of its own, which takes the mount with it when it ends. The
/// latter needs CAP_SYS_ADMIN, and is not tried under `lockdown=confidentiality`.
pub fn with_tracefs<T: Send>(work: impl FnOnce(&Path) -> T + Send) -> io::Result<T> {
    if let Some(place) = mounted()? {
        return Ok(work(&place));
    }
    may_mount(Lockdown::may_be_confidential())?;
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

/// Whether a tracefs may be mounted that nobody else sees.
///
/// Under `lockdown=confidentiality` the kernel makes no files in tracefs (`tracefs_create_file()` asks
/// `LOCKDOWN_TRACEFS`), and a mount that is undone again oopses 6.12.117 and 7.3.4, whoever does it.
fn may_mount(confidential: bool) -> io::Result<()> {
    if confidential {
        let why = "the kernel is locked down (lockdown=confidentiality), so it is not tried";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// The texts of the `format` files of these tracepoints, by category and name.
///
/// # Errors
/// Why one cannot be read, in words.
pub(super) fn formats<const N: usize>(
    tracepoints: [(&str, &str); N],
) -> Result<[String; N], String> {
    let read = |tracefs: &Path| -> Result<[String; N], String> {
        let mut texts = [const { String::new() }; N];
        for (text, (category, name)) in texts.iter_mut().zip(tracepoints) {
            let path = tracefs.join("events").join(category).join(name).join("format");
            *text = fs::read_to_string(&path).map_err(|error| {
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => "; that takes CAP_DAC_READ_SEARCH",
                    _ => "",
                };
                format!("cannot read {}: {error}{hint}", path.display())
            })?;
        }
        Ok(texts)
    };
    with_tracefs(read).map_err(|error| none(&error))?
}

/// That there is no tracefs, in words.
pub(super) fn none(error: &io::Error) -> String {
    format!("tracefs is not mounted, and mounting it is refused: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_under_confidentiality_and_that_is_said() {
        may_mount(false).unwrap();
        let said = none(&may_mount(true).unwrap_err());
        assert!(said.contains("lockdown=confidentiality") && said.contains("not tried"), "{said}");
    }
}
