//! What the manual page of each command says beyond its arguments: examples, files, exit codes and
//! related pages. The examples are in `--help` too; a test parses every one of them.

use crate::cli::exit::{EXIT_DOCTOR, EXIT_HOST, EXIT_INTERRUPTED, EXIT_USAGE};

/// A command line, and what it does.
pub(super) struct Example {
    /// What it does: a sentence without a full stop.
    pub(super) does: &'static str,
    /// What to type.
    pub(super) line: &'static str,
}

/// What is on one page besides the arguments.
pub(super) struct Page {
    /// The command; empty for `tcptrace` itself.
    pub(super) command: &'static str,
    pub(super) examples: &'static [Example],
    /// Files that it reads or writes, and what for.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Other pages, and their sections.
    pub(super) see_also: &'static [(&'static str, u8)],
}

impl Page {
    /// The name of the page, as man(1) looks it up.
    pub(super) fn name(&self) -> String {
        match self.command {
            "" => "tcptrace".to_owned(),
            command => format!("tcptrace-{command}"),
        }
    }

    /// The exit codes of the command, and what each means.
    pub(super) fn exit_status(&self) -> &'static [(u8, &'static str)] {
        match self.command {
            "doctor" => DOCTOR_EXIT_STATUS,
            _ => EXIT_STATUS,
        }
    }
}

const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "Success. A reader of the output that goes away, such as head(1), is no error."),
    (
        EXIT_HOST,
        "The host refused something, or an operation failed. One line on stderr says what, and what to do about it.",
    ),
    (EXIT_USAGE, "The command line is wrong."),
    (
        EXIT_INTERRUPTED,
        "Interrupted before the output was complete: a second Ctrl-C while nothing reads the output, or one Ctrl-C during export or report.",
    ),
];

const DOCTOR_EXIT_STATUS: &[(u8, &str)] = &[
    (0, "No finding is more severe than a note."),
    (1, "At least one warning."),
    (2, "At least one critical finding."),
    (EXIT_DOCTOR, "The check could not run, or the command line is wrong."),
];

/// Environment variables that every command heeds.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("NO_COLOR", "If set and not empty, output has no color unless --color always is given."),
    ("TERM", "dumb turns color off."),
];

/// What tracing a running kernel reads.
const LIVE_FILES: &[(&str, &str)] = &[
    (
        "/sys/kernel/btf/vmlinux",
        "The types of the running kernel. Without it, tcptrace attaches to the classic tracepoint, which reports less.",
    ),
    (
        "/proc/kallsyms",
        "Addresses of kernel functions, which tell why a TIME_WAIT ended. Needs CAP_SYSLOG.",
    ),
    (
        "/sys/kernel/tracing/events/sock/inet_sock_set_state/format",
        "The layout of the classic tracepoint, used without BTF.",
    ),
    ("/run/netns", "Network namespaces by name, for -N."),
];

/// The page of `tcptrace` itself.
pub(super) const MAIN: Page = Page {
    command: "",
    examples: &[
        Example { does: "Show every TCP state transition on this host", line: "sudo tcptrace" },
        Example { does: "Find out what is wrong, and what helps", line: "sudo tcptrace doctor" },
        Example {
            does: "List connections that are stuck in a state, and who owns them",
            line: "sudo tcptrace stuck",
        },
        Example {
            does: "Record ten minutes",
            line: "sudo tcptrace record incident.tcptrace --duration 10m",
        },
        Example {
            does: "Turn the recording into a report, without root",
            line: "tcptrace report -r incident.tcptrace --out incident.html",
        },
        Example { does: "Look up a word of the output", line: "tcptrace explain TIME_WAIT" },
    ],
    files: LIVE_FILES,
    see_also: &[
        ("tcptrace-live", 1),
        ("tcptrace-doctor", 1),
        ("tcptrace-check", 1),
        ("tcptrace-explain", 1),
        ("ss", 8),
        ("tcp", 7),
        ("netstat", 8),
    ],
};

/// The pages of the commands, in the order of `tcptrace --help`.
pub(super) const COMMANDS: &[Page] = &[
    Page {
        command: "live",
        examples: &[
            Example {
                does: "Show transitions of connections to port 443, with all columns",
                line: "sudo tcptrace live -D 443 --wide",
            },
            Example {
                does: "Show how and why each TIME_WAIT ends",
                line: "sudo tcptrace live --state time-wait",
            },
            Example {
                does: "Write the transitions of one network namespace to a file as JSON",
                line: "sudo tcptrace live -N blue -o json --out events.ndjson",
            },
            Example {
                does: "Show five minutes of a recording",
                line: "tcptrace live -r incident.tcptrace --since 12:00 --until 12:05",
            },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-conns", 1), ("tcptrace-explain", 1), ("ss", 8)],
    },
    Page {
        command: "hist",
        examples: &[
            Example {
                does: "Show how long connections stay in TIME_WAIT, every 10 seconds",
                line: "sudo tcptrace hist time-wait 10",
            },
            Example {
                does: "Compare the time in CLOSE_WAIT by owner, over a minute",
                line: "sudo tcptrace hist close-wait --by owner --duration 1m",
            },
            Example {
                does: "Split graceful closes into their steps",
                line: "sudo tcptrace hist --steps --duration 30s",
            },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-closers", 1), ("tcptrace-stuck", 1)],
    },
    Page {
        command: "conns",
        examples: &[
            Example {
                does: "Print each connection as soon as it is closed",
                line: "sudo tcptrace conns --no-time-wait",
            },
            Example {
                does: "Print the connections of nginx that were reset or timed out",
                line: "sudo tcptrace conns --comm nginx --how rst,timeout",
            },
            Example {
                does: "Print connections that lived for at least a minute, from a recording",
                line: "tcptrace conns -r incident.tcptrace --min-life 1m",
            },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-live", 1), ("tcptrace-closers", 1), ("ss", 8)],
    },
    Page {
        command: "states",
        examples: &[
            Example { does: "Count connections by state once", line: "tcptrace states" },
            Example { does: "Count them every second", line: "sudo tcptrace states 1" },
            Example {
                does: "Count them by systemd unit, container or pod, every 5 seconds for a minute",
                line: "sudo tcptrace states 5 12 --by unit",
            },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-stuck", 1), ("ss", 8)],
    },
    Page {
        command: "closers",
        examples: &[
            Example {
                does: "Rank who closes connections first, every 10 seconds",
                line: "sudo tcptrace closers 10",
            },
            Example {
                does: "Rank peers by the TIME_WAIT that closing first costs, over a minute",
                line: "sudo tcptrace closers --by peer --sort tw-sec --duration 1m",
            },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-conns", 1), ("tcptrace-ports", 1)],
    },
    Page {
        command: "ports",
        examples: &[
            Example {
                does: "Report once which peers use up the ephemeral ports",
                line: "sudo tcptrace ports",
            },
            Example {
                does: "Report the five most pressing every second",
                line: "sudo tcptrace ports 1 --top 5",
            },
        ],
        files: &[
            ("/proc/sys/net/ipv4/ip_local_port_range", "The range of ephemeral ports."),
            ("/proc/sys/net/ipv4/ip_local_reserved_ports", "Ports in it that are never chosen."),
            ("/proc/sys/net/ipv4/tcp_tw_reuse", "Whether connect() may take over a TIME_WAIT."),
        ],
        see_also: &[
            ("tcptrace", 1),
            ("tcptrace-doctor", 1),
            ("tcptrace-closers", 1),
            ("tcp", 7),
            ("ip", 7),
        ],
    },
    Page {
        command: "stuck",
        examples: &[
            Example { does: "List connections that are stuck, once", line: "sudo tcptrace stuck" },
            Example {
                does: "List those that are in their state for 10 seconds, and what grows",
                line: "sudo tcptrace stuck 5 --older 10s",
            },
            Example {
                does: "List only CLOSE_WAIT, by port of the service",
                line: "sudo tcptrace stuck --state close-wait --by port",
            },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-doctor", 1), ("tcptrace-states", 1), ("ss", 8)],
    },
    Page {
        command: "doctor",
        examples: &[
            Example {
                does: "Check this host for 30 seconds",
                line: "sudo tcptrace doctor --duration 30s",
            },
            Example {
                does: "Check what was recorded",
                line: "tcptrace doctor -r incident.tcptrace",
            },
            Example {
                does: "Say what each line of a sysctl file would do on this kernel",
                line: "sudo tcptrace doctor --sysctl-file /etc/sysctl.d/90-tcp.conf",
            },
        ],
        files: &[
            ("/proc/sys/net/ipv4", "The sysctls, of each network namespace."),
            ("/proc/net/netstat", "The TCP counters, of each network namespace."),
            ("/proc/net/snmp", "More of them."),
        ],
        see_also: &[
            ("tcptrace", 1),
            ("tcptrace-stuck", 1),
            ("tcptrace-ports", 1),
            ("sysctl", 8),
            ("tcp", 7),
        ],
    },
    Page {
        command: "top",
        examples: &[
            Example { does: "Show everything on one screen", line: "sudo tcptrace top" },
            Example {
                does: "Show the connections of one program to port 443",
                line: "sudo tcptrace top -D 443 --comm nginx",
            },
            Example { does: "Play a recording", line: "tcptrace top -r incident.tcptrace" },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("tcptrace-states", 1), ("tcptrace-record", 1)],
    },
    Page {
        command: "record",
        examples: &[
            Example {
                does: "Record ten minutes",
                line: "sudo tcptrace record incident.tcptrace --duration 10m",
            },
            Example {
                does: "Record without end into files of 100 MB, and keep the newest 20",
                line: "sudo tcptrace record /var/log/tcptrace --rotate 100M --keep 20",
            },
        ],
        files: LIVE_FILES,
        see_also: &[
            ("tcptrace", 1),
            ("tcptrace-report", 1),
            ("tcptrace-export", 1),
            ("tcptrace-top", 1),
        ],
    },
    Page {
        command: "export",
        examples: &[
            Example {
                does: "Export transitions as Parquet",
                line: "tcptrace export -r incident.tcptrace --out transitions.parquet",
            },
            Example {
                does: "Export one row for each connection as CSV",
                line: "tcptrace export -r incident.tcptrace --table connections --out connections.csv",
            },
        ],
        files: &[],
        see_also: &[("tcptrace", 1), ("tcptrace-record", 1), ("tcptrace-conns", 1)],
    },
    Page {
        command: "report",
        examples: &[
            Example {
                does: "Write a report of a recording",
                line: "tcptrace report -r incident.tcptrace --out incident.html",
            },
            Example {
                does: "Write a report of its last five minutes",
                line: "tcptrace report -r incident.tcptrace --since -5m --out incident.html",
            },
        ],
        files: &[],
        see_also: &[("tcptrace", 1), ("tcptrace-record", 1), ("tcptrace-doctor", 1)],
    },
    Page {
        command: "serve",
        examples: &[
            Example {
                does: "Serve metrics and reports on 127.0.0.1:9718",
                line: "sudo tcptrace serve",
            },
            Example {
                does: "Label metrics by systemd unit, container or pod, and write Parquet files",
                line: "sudo tcptrace serve --label unit --export-dir /var/lib/tcptrace --export-keep 1000",
            },
            Example {
                does: "Push metrics to an OpenTelemetry collector too",
                line: "sudo tcptrace serve --otlp http://127.0.0.1:4318",
            },
        ],
        files: &[
            ("/usr/lib/systemd/system/tcptrace.service", "The systemd unit of the packages."),
            (
                "/etc/default/tcptrace",
                "TCPTRACE_OPTIONS: the options that the unit starts tcptrace serve with.",
            ),
            ("/var/lib/tcptrace", "The directory that the unit may write to, for --export-dir."),
        ],
        see_also: &[("tcptrace", 1), ("tcptrace-check", 1), ("systemctl", 1), ("journalctl", 1)],
    },
    Page {
        command: "check",
        examples: &[
            Example {
                does: "Check what tcptrace can trace on this host",
                line: "sudo tcptrace check",
            },
            Example { does: "The same for a script", line: "sudo tcptrace check -o json" },
        ],
        files: LIVE_FILES,
        see_also: &[("tcptrace", 1), ("capabilities", 7), ("bpf", 2)],
    },
    Page {
        command: "explain",
        examples: &[
            Example { does: "List all words", line: "tcptrace explain" },
            Example { does: "Explain a state", line: "tcptrace explain close-wait" },
            Example {
                does: "Explain how a connection ended",
                line: "tcptrace explain rst-unread-data",
            },
        ],
        files: &[],
        see_also: &[("tcptrace", 1), ("tcp", 7)],
    },
    Page {
        command: "man",
        examples: &[
            Example {
                does: "Read the page of a command that is not installed as a package",
                line: "tcptrace man stuck | man -l -",
            },
            Example {
                does: "Write all pages where man(1) finds them",
                line: "tcptrace man --out ~/.local/share/man/man1",
            },
        ],
        files: &[],
        see_also: &[("tcptrace", 1), ("tcptrace-completions", 1), ("man", 1)],
    },
    Page {
        command: "completions",
        examples: &[
            Example {
                does: "Complete in bash, from the next shell on",
                line: "tcptrace completions bash > ~/.local/share/bash-completion/completions/tcptrace",
            },
            Example {
                does: "Complete in fish, from the next shell on",
                line: "tcptrace completions fish > ~/.config/fish/completions/tcptrace.fish",
            },
        ],
        files: &[],
        see_also: &[("tcptrace", 1), ("tcptrace-man", 1)],
    },
];
