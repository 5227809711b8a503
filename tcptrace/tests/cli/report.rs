//! `tcptrace report` and `export` as people meet them; and the page in a browser, which is Debian's
//! Chromium without a window.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    browser::{browser, spoken, unescaped},
    run::{run, tcptrace},
};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.tcptrace");

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn file(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[test]
fn a_file_is_there_as_a_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let there = || {
        let names = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for (command, name) in [("export", "a.parquet"), ("export", "a.csv"), ("report", "a.html")] {
        let out = directory.path().join(name);
        let arguments = [command, "-r", RECORDING, "--out", text(&out)];
        let ended = run(tcptrace(&arguments));
        assert_eq!((ended.code, ended.stdout.len()), (Some(0), 0), "{ended:?}");
        let whole = fs::read(&out).unwrap();
        assert!(!whole.is_empty());
        let refused = run(tcptrace(&arguments));
        assert!(refused.refusal(1).contains("exists: give another name, or --force"));
        fs::write(&out, "something else").unwrap();
        let forced = run(tcptrace(&[&arguments[..], &["--force"]].concat()));
        assert_eq!(forced.code, Some(0), "{forced:?}");
        assert_eq!(fs::read(&out).unwrap(), whole, "the same of the same recording");
        fs::remove_file(out).unwrap();
    }
    assert!(there().is_empty(), "{:?}", there());

    // What came before the damage is worth something; and the run has failed.
    let mut bytes = fs::read(RECORDING).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = directory.path().join("damaged");
    fs::write(&damaged, bytes).unwrap();
    let out = directory.path().join("b.ndjson");
    let ended = run(tcptrace(&["export", "-r", text(&damaged), "--out", text(&out)]));
    assert!(ended.code == Some(1) && ended.stderr.contains("damaged at byte"), "{ended:?}");
    assert!(out.exists());
    assert_eq!(there().len(), 2, "{:?}", there());
}

#[test]
fn what_is_refused_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("a.parquet");
    let refused = |arguments: &[&str], code, says: &str| {
        let ended = run(tcptrace(arguments));
        let line = ended.refusal(code);
        assert!(line.contains(says), "{line}");
    };
    refused(&["export", "--out", text(&out)], 2, "give one with -r FILE");
    refused(&["report", "--out", text(&out)], 2, "give one with -r FILE");
    refused(&["export", "-r", RECORDING], 2, "--out");
    refused(
        &["export", "-r", RECORDING, "--out", "table.xls"],
        2,
        "the format is told by .parquet",
    );
    refused(
        &["export", "-r", RECORDING, "--out", text(directory.path()), "--format", "csv"],
        1,
        "is not a file",
    );
    refused(
        &["export", "-r", RECORDING, "--out", "/proc/none.csv"],
        1,
        "cannot write to /proc/none.csv",
    );
    refused(&["export", "-r", "/proc/none", "--out", text(&out)], 1, "No such file");
    assert!(!out.exists());
}

/// Asks the page, once its script has run, and writes what it says into it.
const PROBE: &str = r#"<script>
const fire = (at, type, x, y) => at.dispatchEvent(new PointerEvent(type,
  { clientX: x, clientY: y, bubbles: true, pointerType: "mouse", pointerId: 1, button: 0 }));
const said = { ready: document.documentElement.dataset.ready, charts: [] };
said.background = getComputedStyle(document.body).backgroundColor;
said.ink = getComputedStyle(document.body).color;
said.width = innerWidth;
said.overflow = document.documentElement.scrollWidth - innerWidth;
said.fetched = performance.getEntriesByType("resource").map((one) => one.name);
for (const svg of document.querySelectorAll("svg.chart")) {
  const box = svg.getBoundingClientRect();
  const shapes = [...svg.querySelectorAll(".plot polyline, .plot rect")];
  const drawn = shapes.filter((shape) => shape.getBBox().width > 0);
  const letters = svg.querySelector("text").getBoundingClientRect();
  said.charts.push({ width: box.width, height: box.height, shapes: drawn.length,
    colour: getComputedStyle(shapes[0])[shapes[0].tagName === "rect" ? "fill" : "stroke"],
    letters: letters.height });
}
const figure = document.querySelector("figure"), svg = figure.querySelector("svg.chart");
const box = svg.getBoundingClientRect();
fire(svg, "pointermove", box.left + box.width / 2, box.top + box.height / 2);
said.hover = figure.querySelector("figcaption").textContent;
said.cursor = figure.querySelector(".cursor").getAttribute("visibility");
const view = () => figure.querySelector("svg.plot").getAttribute("viewBox");
const key = (name) => svg.closest(".scroll").dispatchEvent(
  new KeyboardEvent("keydown", { key: name, bubbles: true }));
said.whole = view();
key("+"); said.zoomed = view();
key("0"); said.again = view();
key("End"); said.last = figure.querySelector("figcaption").textContent;
svg.setPointerCapture = () => {};
fire(svg, "pointerdown", box.left + box.width * 0.4, box.top + 20);
fire(svg, "pointerup", box.left + box.width * 0.7, box.top + 20);
said.dragged = view();
figure.querySelector("button:last-of-type").click();
said.all = view();
said.reachable = [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")].length;
const pre = document.createElement("pre");
pre.id = "probe";
pre.textContent = JSON.stringify(said);
document.body.append(pre);
</script>"#;

#[test]
fn the_page_works_in_a_browser() {
    let directory = tempfile::tempdir().unwrap();
    let (page, probed) = (directory.path().join("a.html"), directory.path().join("probed.html"));
    let ended = run(tcptrace(&["report", "-r", RECORDING, "--out", text(&page)]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let html = fs::read_to_string(&page).unwrap();
    fs::write(&probed, html.replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    let mut backgrounds = Vec::new();
    for (width, dark) in [(1200, false), (1200, true), (500, false), (500, true)] {
        let Some((dom, console)) = browser(&file(&probed), width, dark, &["--dump-dom"]) else {
            return;
        };
        assert_eq!(spoken(&console), [""; 0]);
        let said = dom.split_once("<pre id=\"probe\">").unwrap().1.split_once("</pre>").unwrap().0;
        let said: Value = serde_json::from_str(&unescaped(said)).unwrap();
        assert_eq!(said["ready"], "yes");
        assert_eq!(said["fetched"], serde_json::json!([]), "nothing is asked for");
        assert!(said["overflow"].as_f64().unwrap() <= 0.0, "no sideways scrolling: {said}");
        let charts = said["charts"].as_array().unwrap();
        assert!(charts.len() >= 7, "{said}");
        for chart in charts {
            let of = |name: &str| chart[name].as_f64().unwrap();
            assert!(of("shapes") >= 1.0, "{chart}");
            assert!(of("width") > f64::from(width.min(900)) * 0.8, "{width}: {chart}");
            assert!(of("height") > 50.0 && of("letters") >= 10.0, "{width}: {chart}");
            assert_ne!(chart["colour"], said["background"], "{chart}");
        }
        assert_eq!(said["cursor"], "visible");
        assert!(said["hover"].as_str().unwrap().contains("LISTEN "), "{said}");
        assert!(said["last"].as_str().unwrap().starts_with("07:01:"), "{said}");
        assert_ne!(said["zoomed"], said["whole"]);
        assert_ne!(said["dragged"], said["whole"]);
        assert_eq!((&said["again"], &said["all"]), (&said["whole"], &said["whole"]));
        backgrounds.push((dark, said["background"].clone(), said["ink"].clone()));
        let picture = directory.path().join(format!("{width}-{dark}.png"));
        let shot = format!("--screenshot={}", picture.display());
        browser(&file(&page), width, dark, &[&shot]).unwrap();
        assert!(fs::read(picture).unwrap().len() > 20_000, "there is something on it");
    }
    assert_eq!(backgrounds[0], backgrounds[2]);
    assert_ne!(backgrounds[0].1, backgrounds[1].1, "dark is dark");
    assert_ne!(backgrounds[0].2, backgrounds[1].2);
}
