//! Recordings of a few KiB that would have the analysis remember gigabytes: none takes more than 256 MiB in
//! any view. What is measured is the peak of resident memory of the process (VmHWM).

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::run::tcptrace;

/// Peak of resident memory that a view may reach, KiB.
const MOST_KIB: i64 = 256 << 10;

/// What a block holds at the most, unpacked.
const BLOCK: usize = (4 << 20) - 1024;

const VIEWS: [&[&str]; 9] = [
    &["live", "-o", "json"],
    &["live", "--since", "1s"],
    &["states", "1", "--by", "unit"],
    &["conns", "--since", "1s", "-o", "csv"],
    &["stuck", "--by", "unit", "-o", "json"],
    &["ports", "1"],
    &["doctor"],
    &["export", "--format", "parquet", "--table", "connections", "--out", "-"],
    &["report", "--out", "-"],
];

fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What fills a recording.
type Fill = fn(&mut Crafted);

/// A recording by the letter of docs/RECORDING.md, whatever is in it.
struct Crafted {
    file: Vec<u8>,
    block: Vec<u8>,
    inputs: u32,
    number: u64,
}

impl Crafted {
    fn new() -> Self {
        let header = tcptrace::record::Header {
            host: "bomb".to_owned(),
            run: "boot/1/2".to_owned(),
            part: 1,
            ..Default::default()
        };
        let mut crafted = Self { file: header.to_bytes(), block: Vec::new(), inputs: 0, number: 0 };
        // Hooks are in force, the clocks are known.
        crafted.rare(0x40, |out| {
            number(out, 0);
            number(out, 1000);
            out.extend_from_slice(&[0, 1]);
        });
        crafted.rare(0x41, |out| {
            number(out, 0);
            number(out, 2);
        });
        crafted
    }

    /// An input that has a tag and a length.
    fn rare(&mut self, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let mut of = Vec::new();
        body(&mut of);
        if self.block.len() + of.len() + 16 > BLOCK {
            self.close(1_000_000_000);
        }
        self.block.push(tag);
        bytes(&mut self.block, &of);
        self.inputs += 1;
    }

    fn close(&mut self, last_ns: u64) {
        let packed = zstd::bulk::compress(&self.block, 3).unwrap();
        let mut head = b"tcpB".to_vec();
        let sum = crc32fast::hash(&packed);
        for word in [0, packed.len() as u32, self.block.len() as u32, sum, self.inputs, 0] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        for long in [0, last_ns, self.number, 0, 1] {
            head.extend_from_slice(&u64::to_le_bytes(long));
        }
        let sum = crc32fast::hash(&head);
        head.extend_from_slice(&sum.to_le_bytes());
        self.file.extend_from_slice(&head);
        self.file.extend_from_slice(&packed);
        self.block.clear();
        (self.inputs, self.number) = (0, self.number + 1);
    }

    /// Two ticks two seconds apart, and the end.
    fn written(mut self, path: &Path) -> usize {
        for _ in 0..2 {
            self.snapshot(|_| {}, 7);
        }
        self.rare(0x43, |out| {
            number(out, 1);
            number(out, 2_500_000_000);
        });
        self.close(3_000_000_000);
        fs::File::create_new(path).unwrap().write_all(&self.file).unwrap();
        self.file.len()
    }

    /// A dump of a namespace with what `pieces` adds.
    fn snapshot(&mut self, pieces: impl FnOnce(&mut Self), netns: u64) {
        self.rare(0x45, |_| {});
        self.rare(0x47, |out| {
            number(out, 1_000_000_000);
            number(out, netns);
        });
        pieces(self);
        self.rare(0x48, |out| {
            number(out, 1_000_000_000);
            out.extend_from_slice(&[0, 0, 0, 0, 1]);
        });
        self.rare(0x49, |out| {
            number(out, 1_000_000_000);
            out.push(1);
        });
    }
}

fn cgroup_paths(crafted: &mut Crafted) {
    let path = [b"/x".repeat(1 << 14), b"/app.service".to_vec()].concat();
    for id in 0..20_000 {
        crafted.rare(0x44, |out| {
            number(out, id);
            bytes(out, &path);
        });
    }
}

fn sysctl_texts(crafted: &mut Crafted) {
    let text = b"No such thing ".repeat(300);
    for netns in 0..20_000 {
        crafted.rare(0x4a, |out| {
            number(out, 0);
            number(out, netns);
            for name in ["tcp_syncookies", "tcp_tw_reuse", "tcp_fin_timeout", "somaxconn"] {
                bytes(out, name.as_bytes());
                let mut value = vec![2];
                bytes(&mut value, &text);
                bytes(out, &value);
            }
        });
    }
}

fn reserved_ports(crafted: &mut Crafted) {
    let mut value = vec![0];
    number(&mut value, 20_000);
    for at in 0..20_000 {
        number(&mut value, 2 * at);
        number(&mut value, 2 * at);
    }
    for netns in 0..1_500 {
        crafted.rare(0x4a, |out| {
            number(out, 0);
            number(out, netns);
            bytes(out, b"ip_local_reserved_ports");
            bytes(out, &value);
        });
    }
}

fn counters(crafted: &mut Crafted) {
    for netns in 0..150 {
        crafted.rare(0x4d, |out| {
            number(out, 0);
            number(out, netns);
            out.push(0);
            for _ in 0..2 {
                number(out, 30_000);
                for name in 0..30_000 {
                    bytes(out, format!("Name{name}").as_bytes());
                    number(out, 2);
                }
            }
            (0..6).for_each(|_| number(out, 0));
        });
    }
}

fn syn_queues(crafted: &mut Crafted) {
    for netns in 0..80 {
        let fill = |crafted: &mut Crafted| {
            for port in 1..=65_000 {
                crafted.rare(0x4c, |out| [port, 1, 1].into_iter().for_each(|n| number(out, n)));
            }
        };
        crafted.snapshot(fill, netns);
    }
}

fn bound_ports(crafted: &mut Crafted) {
    for netns in 0..80 {
        let fill = |crafted: &mut Crafted| {
            for port in 1..=65_000 {
                crafted.rare(0x54, |out| {
                    number(out, port);
                    number(out, 1);
                    out.push(0);
                });
            }
        };
        crafted.snapshot(fill, netns);
    }
}

/// What a view took at most, KiB.
fn peak(view: &[&str], path: &Path) -> i64 {
    let arguments = [view, &["-r", path.to_str().unwrap()]].concat();
    let mut command = tcptrace(&arguments);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    #[expect(clippy::zombie_processes, reason = "wait4() below waits for it")]
    let child = command.spawn().unwrap();
    // wait4() tells the peak of this child, and of no other.
    // SAFETY: all of its fields are integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both are valid for writes, and the child is ours and not waited for otherwise.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    assert_eq!(waited, child.id() as i32);
    assert!(libc::WIFEXITED(status), "{arguments:?}: {status:x}");
    usage.ru_maxrss
}

#[test]
fn a_small_recording_takes_little_memory_in_every_view() {
    let directory = tempfile::tempdir().unwrap();
    let bombs: [(&str, Fill); 6] = [
        ("cgroup-paths", cgroup_paths),
        ("sysctl-texts", sysctl_texts),
        ("reserved-ports", reserved_ports),
        ("counters", counters),
        ("syn-queues", syn_queues),
        ("bound-ports", bound_ports),
    ];
    let mut over = Vec::new();
    for (name, fill) in bombs {
        let path: PathBuf = directory.path().join(name);
        let mut crafted = Crafted::new();
        fill(&mut crafted);
        let len = crafted.written(&path);
        assert!(len < 8 << 20, "{name}: {len} bytes");
        for view in VIEWS {
            let peak = peak(view, &path);
            if peak > MOST_KIB {
                over.push(format!("{name} ({len} bytes) in {view:?}: {} MiB", peak >> 10));
            }
        }
        fs::remove_file(&path).unwrap();
    }
    assert!(over.is_empty(), "{over:#?}");
}
