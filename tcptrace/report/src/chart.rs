//! One plot as SVG. Its colours are those of [`COLOURS`], which the page's style sheet takes for
//! names: so the same drawing is legible on a light and on a dark page.
//!
//! What is drawn of the values is in an `<svg class="plot">` of its own, whose `viewBox` is what is
//! to be seen: to zoom is to change that. Without a script it is the whole.

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, types::RangedCoordf64},
    prelude::{Cartesian2d, DrawingArea, IntoDrawingArea as _, Rectangle, SVGBackend},
    series::LineSeries,
    style::{Color as _, FontFamily, FontStyle, IntoTextStyle as _, RGBColor, ShapeStyle},
};

use super::figures::{Kind, Panel};

/// Width, pixels: the page scales it.
const WIDTH: u32 = 760;

/// Where the names of rows are.
const LABELS_HEIGHT: u32 = 22;

/// The colours of the series, in their order: dark enough for a white page.
pub(super) const COLOURS: [RGBColor; 10] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0xb8, 0x4a, 0x00),
    RGBColor(0x1c, 0x7a, 0x4c),
    RGBColor(0x8a, 0x3f, 0x9c),
    RGBColor(0xa6, 0x1b, 0x3b),
    RGBColor(0x6b, 0x5d, 0x00),
    RGBColor(0x00, 0x6f, 0x7d),
    RGBColor(0x7a, 0x4b, 0x2a),
    RGBColor(0x4b, 0x4f, 0xa8),
    RGBColor(0x55, 0x55, 0x55),
];

/// Text and axes.
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);

/// Lines behind the values.
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// A plot.
pub(super) struct Drawing {
    /// The contents of an `<svg>`: no text of the host is in it.
    pub(super) axes: String,
    /// The contents of the one for the values.
    pub(super) values: String,
    /// Width and height, pixels.
    pub(super) size: (u32, u32),
    /// The part for the values: left, top, width, height.
    pub(super) plot: (i32, i32, i32, i32),
    /// The rows that are named below it, and where that name has its middle.
    pub(super) named: Vec<(usize, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws `panel`, of `rows` rows. `None`: there is nothing to draw.
pub(super) fn draw(panel: &Panel, rows: usize) -> Option<Drawing> {
    let drawn = panel.series.iter().map(|series| series.values.len()).max().unwrap_or(0).min(rows);
    if drawn == 0 {
        return None;
    }
    let size = (WIDTH, panel.height);
    let (bottom, top) = range(panel);
    let mut plot = (0, 0, 0, 0);
    let mut layer = |draw: &dyn Fn(&mut Chart<'_>) -> Option<()>| {
        let mut text = String::new();
        {
            let root: Area<'_> = SVGBackend::with_string(&mut text, size).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin_top(8)
                .margin_right(10)
                .x_label_area_size(LABELS_HEIGHT)
                .y_label_area_size(58)
                .build_cartesian_2d(0.0..drawn as f64, bottom..top)
                .ok()?;
            let (x, y) = chart.plotting_area().get_pixel_range();
            plot = (x.start, y.start, x.end - x.start, y.end - y.start);
            draw(&mut chart)?;
            root.present().ok()?;
        }
        inner(&text).map(str::to_owned)
    };
    let axes = layer(&|chart| axes(chart, panel.kind))?;
    let values = layer(&|chart| values(chart, panel))?;
    let step = drawn.div_ceil(panel.labels.max(1));
    let width = f64::from(plot.2) / drawn as f64;
    let named = (0..drawn)
        .step_by(step)
        .map(|row| (row, f64::from(plot.0) + (row as f64 + 0.5) * width))
        .collect();
    Some(Drawing { axes, values, size, plot, named })
}

/// What is between the outer tags.
fn inner(svg: &str) -> Option<&str> {
    let (_, rest) = svg.split_once("<svg ")?;
    let (_, rest) = rest.split_once('>')?;
    Some(rest.rsplit_once("</svg>")?.0.trim())
}

/// From where to where the values go.
fn range(panel: &Panel) -> (f64, f64) {
    let rows = panel.series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    let values = || panel.series.iter().flat_map(|series| series.values.iter().copied());
    match panel.kind {
        Kind::Lines => (0.0, values().fold(1.0, f64::max) * 1.08),
        Kind::Stacked => {
            let sum = |row: usize| -> f64 {
                panel.series.iter().filter_map(|series| series.values.get(row)).sum()
            };
            (0.0, (0..rows).map(sum).fold(1.0, f64::max) * 1.05)
        }
        // Whole powers of ten.
        Kind::BesideLog => {
            let least = values().fold(f64::INFINITY, f64::min).min(0.0).floor();
            (least, values().fold(1.0, f64::max).ceil())
        }
    }
}

fn axes(chart: &mut Chart<'_>, kind: Kind) -> Option<()> {
    let font = (FontFamily::SansSerif, 13.0, FontStyle::Normal);
    let label = font.into_text_style(chart.plotting_area()).with_color(INK);
    let number = |value: &f64| match kind {
        Kind::BesideLog => short(10_f64.powf(*value)),
        Kind::Lines | Kind::Stacked => short(*value),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(4)
        .y_max_light_lines(0)
        .bold_line_style(GRID.stroke_width(1))
        .axis_style(INK.stroke_width(1))
        .label_style(label)
        .y_label_formatter(&number)
        .draw()
        .ok()
}

/// A number in few characters.
fn short(value: f64) -> String {
    let round = |value: f64| {
        let text = format!("{value:.1}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    match value.abs() {
        size if size >= 1e9 => format!("{}G", round(value / 1e9)),
        size if size >= 1e6 => format!("{}M", round(value / 1e6)),
        size if size >= 1e4 => format!("{}k", round(value / 1e3)),
        size if size >= 1.0 || size == 0.0 => round(value),
        _ => format!("{value}").chars().take(6).collect(),
    }
}

fn colour(at: usize) -> RGBColor {
    COLOURS[at % COLOURS.len()]
}

fn values(chart: &mut Chart<'_>, panel: &Panel) -> Option<()> {
    let mut below: Vec<f64> = Vec::new();
    let (bottom, _) = range(panel);
    let wide = panel.series.len().max(1) as f64;
    for (at, series) in panel.series.iter().enumerate() {
        let colour = colour(series.colour);
        let filled: ShapeStyle = colour.filled();
        let bar = |left: f64, right: f64, low: f64, high: f64| {
            Rectangle::new([(left, low), (right, high)], filled)
        };
        let rows = series.values.iter().enumerate().map(|(row, &value)| (row as f64, value));
        match panel.kind {
            Kind::Lines => {
                let steps = rows.flat_map(|(row, value)| [(row, value), (row + 1.0, value)]);
                chart.draw_series(LineSeries::new(steps, colour.stroke_width(2))).ok()?;
            }
            Kind::Stacked => {
                below.resize(series.values.len().max(below.len()), 0.0);
                let bars = rows.zip(&mut below).filter_map(|((row, value), below)| {
                    let low = *below;
                    *below += value;
                    (value > 0.0).then(|| bar(row + 0.1, row + 0.9, low, low + value))
                });
                let bars: Vec<_> = bars.collect();
                chart.draw_series(bars).ok()?;
            }
            Kind::BesideLog => {
                let left = 0.15 + 0.7 * at as f64 / wide;
                let bars = rows.map(|(row, value)| {
                    bar(row + left, row + left + 0.65 / wide, bottom, value.max(bottom))
                });
                chart.draw_series(bars).ok()?;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Series;

    fn panel(kind: Kind, values: &[f64]) -> Panel {
        let series = |colour| Series { name: String::new(), colour, values: values.to_vec() };
        Panel {
            name: String::new(),
            kind,
            series: vec![series(0), series(1)],
            height: 130,
            labels: 3,
        }
    }

    #[test]
    fn every_kind_is_drawn_within_its_plot() {
        for kind in [Kind::Lines, Kind::Stacked, Kind::BesideLog] {
            for values in [&[0.0][..], &[1.0, 2.0, 3.0], &[1e12; 300]] {
                let drawing = draw(&panel(kind, values), values.len()).unwrap();
                let (_, _, width, height) = drawing.plot;
                assert!(width > 600 && height > 80, "{:?}", drawing.plot);
                assert!(drawing.axes.contains("<text"), "{kind:?}");
                assert!(!drawing.axes.contains("<svg") && !drawing.values.contains("NaN"));
                assert!(drawing.named.len() <= 3 && !drawing.named.is_empty());
            }
        }
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert!(draw(&panel(Kind::Lines, &[]), 5).is_none());
        assert!(draw(&panel(Kind::Lines, &[1.0]), 0).is_none());
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.001, "0.001"),
            (12.0, "12"),
            (2.5, "2.5"),
            (12_000.0, "12k"),
            (3e6, "3M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
