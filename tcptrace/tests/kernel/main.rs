//! The tests that need a kernel, as root: real sockets in network namespaces of their own. One
//! binary that needs no other program, so that it can also be linked statically and run in a
//! virtual machine on other kernels.

mod accepts;
mod account;
mod checks;
mod child;
mod closers;
mod conns;
mod counted;
mod doctor;
mod filters;
mod known;
mod live;
mod net;
mod netlink;
mod owners;
mod people;
mod ports;
mod remedies;
mod resets;
mod scenario;
mod seeding;
mod self_test;
mod stuck;
mod sys;
mod sysctls;
mod time_wait;
mod totals;
mod trace;
mod unfinished;
mod unsupported;
mod verdicts;
mod verifier;
mod wait;
mod witness;
mod witnesses;
