//! For kernel tests: a network namespace of one's own, gone when the test ends.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// Runs `test` on a thread in a new network namespace whose loopback is up. Without root it says
/// that the test was skipped.
pub fn run(test: impl FnOnce() + Send) {
    if !geteuid().is_root() {
        eprintln!("skipped: needs root, for a network namespace of its own");
        return;
    }
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
        // A child process starts in the namespace of the thread that forks it.
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip, of iproute2").success(), "cannot bring loopback up");
        test();
    };
    thread::scope(|scope| {
        if let Err(panic) = scope.spawn(inside).join() {
            std::panic::resume_unwind(panic);
        }
    });
}
