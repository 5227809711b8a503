//! What is wrong is said alike by all who judge. (`serve` and `top` have the same test beside them.)

use bytes::BytesMut;
use tcptrace::{
    doctor::collect::Setup,
    model::{Accounts, Input, script},
    record::Header,
    report::ReportView,
    track::Tracker,
    view::{
        View,
        doctor::{DoctorView, Format, Watches},
    },
};

/// All that `view` shows of `text`, to its end.
fn shown(mut view: impl View, text: &str) -> String {
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    let mut inputs = script::inputs(text).unwrap();
    let mono_ns = inputs.iter().rev().find_map(Input::mono_ns).unwrap_or(0);
    inputs.push(Input::End(Accounts { mono_ns, ..Accounts::default() }));
    view.begin(&mut out);
    for input in inputs {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        if !matches!(input, Input::Event(_)) {
            view.input(&input, &tracker, &mut out);
        }
    }
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn a_leak_that_begins_late_is_found_and_so_is_one_that_is_over() {
    for (until_s, when) in [(1000, "since "), (60, "over: from ")] {
        let text = script::late_leak(600, 30, until_s, 120);
        let format = Format::Text { color: false, sysctls: false };
        let doctor = shown(DoctorView::new(Setup::recorded(), format, Watches::All), &text);
        assert!(doctor.contains("WARNING  close-wait\nseen     600 connections"), "{doctor}");
        assert!(doctor.contains(&format!("when     {when}2023-11-14 22:13:")), "{doctor}");
        let ok = doctor.split_once("\nOK ").unwrap().1.split_once("\n\n").unwrap().0;
        assert!(!ok.contains("close-wait") && ok.contains("accept-queue"), "{ok}");
        let report = shown(ReportView::new(Header::default()), &text);
        let finding = report.split_once("class=\"finding warning\"").unwrap().1;
        assert!(finding.contains("close-wait") && finding.contains("600 connections stay"));
        assert!(finding.contains(when), "{finding}");
        let fine =
            report.split_once("Fine, all the time: ").unwrap().1.split_once("</p>").unwrap().0;
        assert!(!fine.contains("close-wait") && fine.contains("accept-queue"), "{fine}");
    }
}
