//! The page: facts in the order in which a person reads them.
//!
//! One file without a network: style and script are in it, nothing is fetched, and a policy in it
//! forbids to. All text is escaped by `maud`; only what this program drew or has as a constant is
//! put in as it is.

mod sections;
mod table;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    chart::{self, Drawing},
    facts::Facts,
    figures::{Figure, Panel, figures},
};
use table::table;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// For the page of a host that runs: takes over what is new.
const LIVE_SCRIPT: &str = include_str!("live.js");

/// Nothing may be fetched.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; base-uri 'none'; form-action 'none'";

/// Nothing but the page itself, anew.
const LIVE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
                           script-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'";

/// The page of `facts`.
pub fn page(facts: &Facts) -> String {
    let figures = figures(facts);
    let title = sections::title(facts);
    let policy = if facts.live { LIVE_POLICY } else { POLICY };
    let page = html! {
        (DOCTYPE)
        html lang="en" data-live[facts.live] {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(concat!("tcptrace ", env!("CARGO_PKG_VERSION")));
                link rel="icon" href="data:,";
                @if facts.live { noscript { meta http-equiv="refresh" content="5"; } }
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the findings" }
                header {
                    h1 { (title) }
                    (sections::whence(facts))
                }
                (contents(&figures))
                @if facts.live { (sections::answers()) }
                main #main {
                    (sections::findings(facts))
                    @for shown in &figures { (figure(shown)) }
                    (sections::stuck(facts))
                    (sections::ports(facts))
                    (sections::losses(facts))
                }
                script { (PreEscaped(SCRIPT)) }
                @if facts.live { script { (PreEscaped(LIVE_SCRIPT)) } }
            }
        }
    };
    page.into_string()
}

fn contents(figures: &[Figure]) -> Markup {
    html! {
        nav aria-label="Contents" {
            a href="#findings" { "Findings" }
            @for figure in figures { a href={ "#" (figure.id) } { (figure.title) } }
            a href="#stuck" { "Stuck" }
            a href="#ports" { "Ports" }
            a href="#losses" { "Losses" }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    let drawn: Vec<(&Panel, Drawing)> = figure
        .panels
        .iter()
        .filter_map(|panel| Some((panel, chart::draw(panel, figure.table.rows.len())?)))
        .collect();
    let rows = figure.table.rows.len();
    let several = figure.panels.first().is_some_and(|panel| panel.series.len() > 1);
    html! {
        section id=(figure.id) {
            h2 { (figure.title) }
            p { (figure.says) }
            @if !drawn.is_empty() {
                figure data-timed[figure.timed] {
                    @if several { (legend(&figure.panels)) }
                    @for (panel, drawing) in &drawn { (plot(figure, panel, drawing)) }
                    figcaption aria-live="polite" {}
                }
            }
            details {
                summary { "The numbers (" (rows) @if rows == 1 { " row)" } @else { " rows)" } }
                (table(&figure.table, figure.title))
            }
        }
    }
}

fn legend(panels: &[Panel]) -> Markup {
    html! {
        ul.legend {
            @for series in panels.iter().take(1).flat_map(|panel| &panel.series) {
                @if series.values.iter().any(|value| *value != 0.0) {
                    li { span.swatch.{ "c" (series.colour % chart::COLOURS.len()) } {} (series.name) }
                }
            }
        }
    }
}

fn plot(figure: &Figure, panel: &Panel, drawing: &Drawing) -> Markup {
    let (width, height) = drawing.size;
    let (left, top, wide, high) = drawing.plot;
    let view = format!("{left} {top} {wide} {high}");
    let rows = panel.series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    let label = match panel.name.as_str() {
        "" => figure.title.to_owned(),
        name => format!("{}: {name}", figure.title),
    };
    let name = |row: usize| {
        let cell = figure.table.rows.get(row).and_then(|row| row.first());
        cell.map(|name| short(name, if figure.timed { 12 } else { 15 })).unwrap_or_default()
    };
    html! {
        div.panel {
            @if !panel.name.is_empty() { h3 { (panel.name) } }
            div.scroll tabindex="0" role="group" aria-label={ (label) ", plot: arrow keys move, plus \
                and minus zoom, 0 shows all; the numbers are in the table below" } {
                svg.chart viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(label)
                    data-rows=(rows) data-plot=(view) data-labels=(panel.labels) {
                    (PreEscaped(&drawing.axes))
                    svg.plot x=(left) y=(top) width=(wide) height=(high) viewBox=(view)
                        preserveAspectRatio="none" { (PreEscaped(&drawing.values)) }
                    g.names {
                        @for (row, x) in &drawing.named {
                            text x=(format!("{x:.1}")) y=(top + high + 16) text-anchor="middle" {
                                (name(*row))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// At most so many characters, the last an ellipsis where some were cut.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
