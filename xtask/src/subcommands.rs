//! The subcommands that `xtask-lab` has: their names and what each does, for `cargo xtask --help`,
//! which must answer without building them.

/// A subcommand's name and what it does, in one line.
pub struct Subcommand {
    /// As it is typed.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// All of them, in the order of `--help`.
pub const LAB: [Subcommand; 8] = [
    Subcommand {
        name: "setup",
        about: "Install what this machine lacks to build the kernel objects and run every test",
    },
    Subcommand { name: "build-ebpf", about: "Build the kernel objects and record what built them" },
    Subcommand {
        name: "test",
        about: "Run every test that this machine can run, and list what it could not",
    },
    Subcommand {
        name: "vm-test",
        about: "Run the kernel tests on real Debian kernels under qemu (needs no root)",
    },
    Subcommand {
        name: "fuzz",
        about: "Run the fuzz targets: recordings, netlink, BTF and whatever else is parsed from outside",
    },
    Subcommand {
        name: "bench",
        about: "Measure what tracing costs, against no tracing, the least possible, and other tracers",
    },
    Subcommand {
        name: "dist",
        about: "Make the packages: a static binary as a tarball, a Debian and an RPM package",
    },
    Subcommand {
        name: "deploy-test",
        about: "Install the Debian package in a small Debian under qemu, with systemd, and check it",
    },
];

/// What the subcommand `name` does; nothing for one that `--help` does not list.
#[must_use]
pub fn about(name: &str) -> &'static str {
    LAB.iter().find(|subcommand| subcommand.name == name).map_or("", |found| found.about)
}
