//! The command as people meet it: arguments, exit codes, what is on stdout and what on stderr.
//! Real connections on loopback, in the namespace of the test.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has to panic")]

mod agreement;
mod at_end;
mod backends;
mod bombs;
mod browser;
mod check;
mod conns;
mod doctor;
mod ending;
mod export_dir;
mod files;
mod gaps;
mod helper;
mod host;
mod live_page;
mod manual;
mod misuse;
mod otlp;
mod output;
mod peer;
mod peers;
mod ports;
mod programs;
mod python;
mod reader;
mod real_server;
mod recipes;
mod recording;
mod report;
mod rights;
mod run;
mod serve;
mod streams;
mod stuck;
mod top;
mod top_stream;
mod tutorials;
mod witness;

#[path = "../kernel/child.rs"]
#[expect(dead_code, reason = "children for what is not tested here")]
mod child;
// Network namespaces, as the tests that need a kernel have them.
#[path = "../kernel/net.rs"]
#[expect(dead_code, reason = "no pairs of namespaces here, and none that is watched as it goes")]
mod net;
#[path = "../kernel/netlink.rs"]
mod netlink;
#[path = "../kernel/sys.rs"]
#[expect(dead_code, reason = "a part of it is for scenarios")]
mod sys;
#[path = "../kernel/unsupported.rs"]
mod unsupported;
#[path = "../laws/validator.rs"]
mod validator;
#[path = "../kernel/wait.rs"]
mod wait;
