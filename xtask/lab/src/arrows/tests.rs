//! The graph and the rules on crates that are made up: each must be able to fail.

use super::{
    graph::{circles, needs, shown},
    pure,
    source::Sources,
};

/// The circles of a crate of one file, as names.
fn found(text: &str) -> Vec<Vec<String>> {
    let circles = circles(&needs(&Sources::of(text).unwrap()));
    circles.into_iter().map(|(circle, _)| circle.iter().map(|it| shown(it)).collect()).collect()
}

#[test]
fn two_modules_that_import_each_other_are_a_circle() {
    for text in [
        "mod a { use super::b::B; pub struct A(B); } mod b { use super::a::A; pub struct B(A); }",
        // By paths in code, in an attribute, in what a macro is given, by another name.
        "mod a { pub fn a() { crate::b::b(); } } mod b { pub fn b() { super::a::a(); } }",
        "mod a { #[arg(parser = crate::b::b)] pub fn a() {} } mod b { pub fn b() { super::a::a() } }",
        "mod a { pub fn a() { log!(\"{}\", crate::b::b()) } } mod b { pub fn b() { crate::a::a() } }",
        "mod a { use super::b as c; pub fn a() { c::b() } } mod b { pub fn b() { crate::a::a() } }",
        // By what their parent hands on, or merely imports.
        "use a::a; pub use b::b; mod a { pub fn a() { super::b() } } mod b { pub fn b() { super::a() } }",
        // All that is there.
        "mod a { use super::b::*; pub fn a() { b() } } mod b { use super::a::*; pub fn b() { a() } }",
    ] {
        assert_eq!(found(text), [["a", "b"]], "{text}");
    }
}

#[test]
fn a_circle_over_others_is_found_as_one() {
    let text = "mod a { use crate::b::B; struct A; } mod b { pub use crate::c::d::C; struct B(C); }
                mod c { mod d { pub struct C(super::super::a::A); } } mod e { use crate::a::A; }";
    assert_eq!(found(text), [["a", "b", "c::d"]]);
}

#[test]
fn a_parent_may_hand_on_its_children_but_not_use_them_if_they_use_it() {
    let uses = "mod c { use super::Own; pub struct C(Own); } use c::C; struct Own; fn f(_: C) {}";
    assert_eq!(found(uses), [["the root", "c"]]);
    let hands_on_and_uses = uses.replace("use c::C", "pub use c::C");
    assert_eq!(found(&hands_on_and_uses), [["the root", "c"]]);
    for text in [
        "mod c { use super::Own; pub struct C(Own); } pub use c::C; struct Own;",
        "mod c { pub struct C; } use c::C; struct Own(C);",
        "mod c { use super::D; struct C(D); } mod d { pub struct D; } pub use d::D; pub use c::C;",
    ] {
        assert!(found(text).is_empty(), "{text}");
    }
}

#[test]
fn tests_comments_and_text_make_no_arrow() {
    let text = "mod a { use super::b::B; pub struct A; #[cfg(test)] mod tests { use super::*; } }
                /// [`crate::a::A`]
                mod b { // crate::a::A
                    const B: &str = \"crate::a::A\";
                    #[cfg(test)] use super::a::{A, A as C};
                    #[cfg(test)] fn f() -> super::a::A { super::a::A }
                }";
    assert!(found(text).is_empty());
    let text = text.replace("const B", "fn b<'crate>(_: super::a::A) {} const B");
    assert_eq!(found(&text), [["a", "b"]], "and what comes between them does");
}

/// What is impure of a crate of one file.
fn impure(text: &str) -> Vec<String> {
    let reaches = pure::reaches(&Sources::of(text).unwrap());
    let impure = reaches.iter().filter(|(_, named)| pure::is_impure(&named.path).is_some());
    impure.map(|(_, named)| named.path.join("::")).collect()
}

#[test]
fn io_and_clocks_are_found_whatever_they_are_called() {
    for (text, path) in [
        ("fn f() { std::fs::read(x); }", "std::fs::read"),
        ("use std::time::Instant as Moment;", "std::time::Instant"),
        ("use std::{io, time::{Duration, SystemTime}};", "std::time::SystemTime"),
        ("use std::time; fn f() { time::Instant::now(); }", "std::time::Instant::now"),
        ("use jiff::Timestamp; fn f() { Timestamp::now(); }", "jiff::Timestamp::now"),
        ("use std::io as o; fn f() { o::stdin(); }", "std::io::stdin"),
        ("mod a { pub use std::env as e; } fn f() { a::e::var(x); }", "std::env::var"),
        ("fn f() { unsafe { libc::getpid() }; }", "libc::getpid"),
        ("use nix::unistd::getpid;", "nix::unistd::getpid"),
        ("use std::net::{IpAddr, UdpSocket};", "std::net::UdpSocket"),
        ("use tcptrace_host::clock;", "tcptrace_host::clock"),
    ] {
        assert!(impure(text).iter().any(|found| found == path), "{text}: {:?}", impure(text));
    }
    let pure = "use std::{io::{self, Write}, net::{IpAddr, SocketAddr}, time::Duration};
                use jiff::{Timestamp, tz::TimeZone}; use nix::errno::Errno;
                fn f(_: libc::c_int) { libc::ETIMEDOUT; TimeZone::system(); Timestamp::from_second(0); }";
    assert!(impure(pure).is_empty(), "{:?}", impure(pure));
}
