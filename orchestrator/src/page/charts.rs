//! Draws the charts of a run as SVG, or the picture of memory into pixels.
//!
//! Every colour has one meaning, so that the page's style sheet can replace it for dark mode.

use crate::timeline::Timeline;
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use std::sync::Once;

/// The memory of the article's program after tuning, and before, in bytes: 410 MB and 722 MB of heap.
pub const ARTICLE_BYTES: [(u64, &str); 2] = [
    (722_000_000, "the article's program: 722 MB"),
    (410_000_000, "after tuning: 410 MB"),
];

/// The colour of text and axes.
pub const TEXT: RGBColor = RGBColor(0x1A, 0x20, 0x2C);
/// The colour of grid lines.
pub const GRID: RGBColor = RGBColor(0xE2, 0xE8, 0xF0);
/// The colour of the background.
pub const BACKGROUND: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
/// The colour of the component: its linear memory, its prefixes.
pub const COMPONENT: RGBColor = RGBColor(0x2B, 0x6C, 0xB0);
/// The colour of the orchestrator's process.
pub const PROCESS: RGBColor = RGBColor(0x6B, 0x46, 0xC1);
/// The colour of the cap.
pub const CAP: RGBColor = RGBColor(0xC5, 0x30, 0x30);
/// The colour of the article's program.
pub const ARTICLE: RGBColor = RGBColor(0x97, 0x5A, 0x16);
/// The colour of a prefix that took more than one attempt.
pub const RETRIED: RGBColor = RGBColor(0xDD, 0x6B, 0x20);

const MIB: f64 = 1024.0 * 1024.0;

/// The ends of the memory axis, in MiB. It is logarithmic: on a linear axis up to 722 MB, 8 MiB would be one pixel.
const MEMORY_AXIS_MIB: std::ops::Range<f64> = 1.0..1024.0;

/// Steps of the throughput chart.
const RATE_STEPS: usize = 240;

/// The width below which a chart has fewer labels.
const NARROW_PIXELS: u32 = 600;

/// The one typeface of the charts. Only pixels need its outlines; in SVG, the reader's own sans serif is used.
const FONT: &str = "sans-serif";

/// The size of a chart in pixels.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The width.
    pub width: u32,
    /// The height.
    pub height: u32,
}

impl Size {
    /// For a page as wide as a desk's screen.
    pub const WIDE: Self = Self {
        width: 960,
        height: 420,
    };
    /// For a telephone.
    pub const NARROW: Self = Self {
        width: 400,
        height: 340,
    };

    const fn is_narrow(self) -> bool {
        self.width < NARROW_PIXELS
    }

    /// The room for the labels of the vertical axis.
    const fn y_label_pixels(self) -> u32 {
        if self.is_narrow() { 52 } else { 70 }
    }

    /// A chart that says less needs less height.
    #[must_use]
    pub const fn flat(self) -> Self {
        Self {
            width: self.width,
            height: self.height * 2 / 3,
        }
    }
}

/// Why a chart could not be drawn. Memory and SVG always can, so this is a fault of ours.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the chart: {0}")]
pub struct NotDrawn(String);

type Area<'area, Backend> = DrawingArea<Backend, Shift>;
type Drawn = Result<(), NotDrawn>;

fn not_drawn(error: impl std::fmt::Display) -> NotDrawn {
    NotDrawn(error.to_string())
}

/// Registers the typeface once per process.
fn with_font() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // A font that cannot be parsed shows in the first text that is drawn.
        let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

/// Draws a chart as an SVG document.
fn svg(
    size: Size,
    draw: impl FnOnce(&Area<'_, SVGBackend<'_>>) -> Drawn,
) -> Result<String, NotDrawn> {
    with_font();
    let mut text = String::new();
    {
        let area =
            SVGBackend::with_string(&mut text, (size.width, size.height)).into_drawing_area();
        draw(&area)?;
        area.present().map_err(not_drawn)?;
    }
    // The size in the document would keep it from fitting into its place on the page.
    let sized = format!("width=\"{}\" height=\"{}\" ", size.width, size.height);
    Ok(text.replacen(&sized, "", 1))
}

/// The picture of memory, as SVG.
///
/// # Errors
/// It cannot be drawn.
pub fn memory_svg(timeline: &Timeline<'_>, size: Size) -> Result<String, NotDrawn> {
    svg(size, |area| memory(area, timeline, size))
}

/// The throughput over time, as SVG.
///
/// # Errors
/// It cannot be drawn.
pub fn throughput_svg(timeline: &Timeline<'_>, size: Size) -> Result<String, NotDrawn> {
    svg(size, |area| throughput(area, timeline, size))
}

/// The duration of each prefix, as SVG.
///
/// # Errors
/// It cannot be drawn.
pub fn prefixes_svg(bars: &[Bar], size: Size) -> Result<String, NotDrawn> {
    svg(size, |area| prefixes(area, bars, size))
}

/// The picture of memory, in pixels of three bytes.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn memory_pixels(timeline: &Timeline<'_>, size: Size) -> Result<Vec<u8>, NotDrawn> {
    with_font();
    let mut pixels = vec![0; size.width as usize * size.height as usize * 3];
    let backend = BitMapBackend::with_buffer(&mut pixels, (size.width, size.height));
    {
        let area = backend.into_drawing_area();
        memory(&area, timeline, size)?;
        area.present().map_err(not_drawn)?;
    }
    Ok(pixels)
}

fn text_style(size: Size) -> TextStyle<'static> {
    let points = if size.is_narrow() { 12 } else { 14 };
    (FONT, points).into_font().color(&TEXT)
}

/// The whole seconds of the time axis.
fn seconds_of(timeline: &Timeline<'_>) -> f64 {
    (timeline.milliseconds as f64 / 1000.0).max(0.001)
}

/// A label of the time axis. Its steps are whole seconds unless the run was short.
fn seconds_label(at: f64, seconds: f64) -> String {
    let decimals = match seconds {
        ..1.0 => 2,
        1.0..10.0 => 1,
        _ => 0,
    };
    format!("{at:.decimals$}")
}

/// The style of axes, grid and labels that all charts have.
fn styled<'mesh, 'chart, 'formatter, X, Y, Backend>(
    mesh: &'mesh mut MeshStyle<'chart, 'formatter, X, Y, Backend>,
    size: Size,
) -> &'mesh mut MeshStyle<'chart, 'formatter, X, Y, Backend>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Backend: DrawingBackend,
{
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(TEXT)
        .label_style(text_style(size))
        .axis_desc_style(text_style(size))
}

/// A horizontal axis of seconds.
fn with_time_axis<'mesh, 'chart, 'formatter, X, Y, Backend>(
    mesh: &'mesh mut MeshStyle<'chart, 'formatter, X, Y, Backend>,
    size: Size,
    label: &'formatter dyn Fn(&f64) -> String,
) -> &'mesh mut MeshStyle<'chart, 'formatter, X, Y, Backend>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Backend: DrawingBackend,
{
    mesh.x_labels(if size.is_narrow() { 4 } else { 8 })
        .x_desc("seconds since the start")
        .x_label_formatter(label)
}

/// The memory of the invocations and of the process, beside the cap and the article's program.
fn memory<Backend: DrawingBackend>(
    area: &Area<'_, Backend>,
    timeline: &Timeline<'_>,
    size: Size,
) -> Drawn {
    area.fill(&BACKGROUND).map_err(not_drawn)?;
    let seconds = seconds_of(timeline);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(size.y_label_pixels())
        .build_cartesian_2d(0.0..seconds, MEMORY_AXIS_MIB.log_scale().base(2.0))
        .map_err(not_drawn)?;
    with_time_axis(styled(&mut chart.configure_mesh(), size), size, &|at| {
        seconds_label(*at, seconds)
    })
    .y_labels(11)
    .y_label_formatter(&|mib| format!("{mib:.0} MiB"))
    .draw()
    .map_err(not_drawn)?;
    let cap = LINEAR_MEMORY_BYTES_MAX as u64;
    let marks = ARTICLE_BYTES
        .iter()
        .map(|(bytes, label)| (*bytes, *label, ARTICLE))
        .chain([(cap, "the cap of an invocation: 8 MiB", CAP)]);
    for (bytes, label, color) in marks {
        let mib = bytes as f64 / MIB;
        let line = [(0.0, mib), (seconds, mib)];
        chart
            .draw_series(DashedLineSeries::new(line, 6, 4, color.stroke_width(2)))
            .map_err(not_drawn)?;
        chart
            .draw_series([line_label(label, seconds, mib, color, size)])
            .map_err(not_drawn)?;
    }
    for process in &timeline.processes {
        let usage = process.usage;
        let points = usage.milliseconds.iter().zip(&usage.rss_bytes);
        let line = points.filter(|(_, bytes)| **bytes > 0).map(|(at, bytes)| {
            let at = (process.began + at) as f64 / 1000.0;
            (at, *bytes as f64 / MIB)
        });
        chart
            .draw_series(LineSeries::new(line, PROCESS.stroke_width(2)))
            .map_err(not_drawn)?;
    }
    for invocation in &timeline.invocations {
        let points = invocation
            .points()
            .map(|(at, point)| (at as f64 / 1000.0, point.linear_memory as f64 / MIB));
        let line = without_repetitions(points);
        chart
            .draw_series(LineSeries::new(line, COMPONENT.stroke_width(2)))
            .map_err(not_drawn)?;
    }
    label_lines(&mut chart, timeline, size)
}

/// A label at the left end of a line, above it.
fn line_label(
    label: &str,
    seconds: f64,
    mib: f64,
    color: RGBColor,
    size: Size,
) -> Text<'_, (f64, f64), &str> {
    let mut style = text_style(size);
    style.color = color.to_backend_color();
    style.pos = Pos::new(HPos::Left, VPos::Bottom);
    // On a logarithmic axis, a factor is a distance.
    Text::new(label, (seconds * 0.01, mib * 1.08), style)
}

/// Labels the lines of the process and of the invocations above their highest points.
fn label_lines<Backend: DrawingBackend>(
    chart: &mut MemoryChart<'_, Backend>,
    timeline: &Timeline<'_>,
    size: Size,
) -> Drawn {
    let seconds = seconds_of(timeline);
    let rss = timeline
        .processes
        .iter()
        .flat_map(|process| process.usage.rss_bytes.iter().copied())
        .max();
    let linear = timeline
        .invocations
        .iter()
        .flat_map(|invocation| invocation.points())
        .map(|(_, point)| point.linear_memory)
        .max();
    for (bytes, label, color) in [
        (rss, "resident memory of the process", PROCESS),
        (linear, "linear memory of each invocation", COMPONENT),
    ] {
        let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else {
            continue;
        };
        let mib = bytes as f64 / MIB;
        chart
            .draw_series([line_label(label, seconds, mib, color, size)])
            .map_err(not_drawn)?;
    }
    Ok(())
}

type MemoryChart<'area, Backend> = ChartContext<
    'area,
    Backend,
    Cartesian2d<
        plotters::coord::types::RangedCoordf64,
        plotters::coord::combinators::LogCoord<f64>,
    >,
>;

/// Leaves out the points inside a level stretch.
fn without_repetitions(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if let [.., (_, before), (_, last)] = kept.as_slice()
            && *before == point.1
            && *last == point.1
        {
            kept.pop();
        }
        kept.push(point);
    }
    kept
}

/// Ranges per second over time.
fn throughput<Backend: DrawingBackend>(
    area: &Area<'_, Backend>,
    timeline: &Timeline<'_>,
    size: Size,
) -> Drawn {
    area.fill(&BACKGROUND).map_err(not_drawn)?;
    let steps = RATE_STEPS.min(size.width as usize / 4);
    let rates = timeline.rates(steps);
    let highest = rates.iter().map(|rate| rate.ranges).fold(1.0, f64::max);
    let seconds = seconds_of(timeline);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(size.y_label_pixels())
        .build_cartesian_2d(0.0..seconds, 0.0..highest * 1.1)
        .map_err(not_drawn)?;
    with_time_axis(styled(&mut chart.configure_mesh(), size), size, &|at| {
        seconds_label(*at, seconds)
    })
    .y_labels(5)
    .y_label_formatter(&|rate| crate::humanize::grouped(*rate as u64))
    .draw()
    .map_err(not_drawn)?;
    let width = seconds / steps as f64;
    let line = rates
        .iter()
        .enumerate()
        .map(|(step, rate)| ((step as f64 + 0.5) * width, rate.ranges));
    chart
        .draw_series(
            AreaSeries::new(line, 0.0, COMPONENT.mix(0.25)).border_style(COMPONENT.stroke_width(2)),
        )
        .map_err(not_drawn)?;
    Ok(())
}

/// One prefix in the chart of prefixes.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The prefix's name.
    pub name: String,
    /// How long its invocation took.
    pub seconds: f64,
    /// Whether it took more than one attempt.
    pub is_retried: bool,
}

/// How long each prefix took.
fn prefixes<Backend: DrawingBackend>(area: &Area<'_, Backend>, bars: &[Bar], size: Size) -> Drawn {
    area.fill(&BACKGROUND).map_err(not_drawn)?;
    let longest = bars.iter().map(|bar| bar.seconds).fold(0.001, f64::max);
    let count = bars.len().max(1);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(size.y_label_pixels())
        .build_cartesian_2d(0.0..count as f64, 0.0..longest * 1.1)
        .map_err(not_drawn)?;
    let labels = count.min(if size.is_narrow() { 8 } else { 16 });
    styled(&mut chart.configure_mesh(), size)
        .x_labels(0)
        .y_labels(5)
        .y_label_formatter(&|seconds| format!("{seconds:.1} s"))
        .draw()
        .map_err(not_drawn)?;
    chart
        .draw_series(bars.iter().enumerate().map(|(at, bar)| {
            let color = if bar.is_retried { RETRIED } else { COMPONENT };
            let at = at as f64;
            Rectangle::new([(at + 0.1, 0.0), (at + 0.9, bar.seconds)], color.filled())
        }))
        .map_err(not_drawn)?;
    // Labels in the middle of their bars; the axis would put them at the bars' edges.
    let style = text_style(size).transform(FontTransform::None);
    for at in (0..count).step_by(count.div_ceil(labels)) {
        let Some(bar) = bars.get(at) else { break };
        let (x, y) = chart.backend_coord(&(at as f64 + 0.5, 0.0));
        let below = (x - 8, y + 8);
        let origin = area.get_base_pixel();
        let place = (below.0 - origin.0, below.1 - origin.1);
        area.draw(&Text::new(bar.name.clone(), place, style.clone()))
            .map_err(not_drawn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::tests::sample;

    #[test]
    fn the_picture_of_memory_shows_the_cap_and_the_article_beside_the_run() {
        let measurements = sample();
        let timeline = Timeline::new(&measurements);
        for size in [Size::WIDE, Size::NARROW] {
            let svg = memory_svg(&timeline, size).expect("drawn");
            for text in [
                "722 MB",
                "410 MB",
                "8 MiB",
                "linear memory of each invocation",
                "resident memory of the process",
            ] {
                assert!(svg.contains(text), "{text} in {svg}");
            }
            assert!(svg.contains(&format!("viewBox=\"0 0 {} {}\"", size.width, size.height)));
            assert!(!svg.contains("http://127.0.0.1"), "{svg}");
        }
    }

    #[test]
    fn every_chart_can_be_drawn_of_nothing() {
        let mut measurements = sample();
        measurements.processes.clear();
        measurements.invocations.clear();
        let timeline = Timeline::new(&measurements);
        memory_svg(&timeline, Size::WIDE).expect("drawn");
        throughput_svg(&timeline, Size::NARROW.flat()).expect("drawn");
        prefixes_svg(&[], Size::WIDE.flat()).expect("drawn");
        assert_eq!(
            memory_pixels(&timeline, Size::NARROW).expect("drawn").len(),
            400 * 340 * 3
        );
    }

    #[test]
    fn a_level_line_needs_only_its_ends() {
        let points = [
            (0.0, 1.0),
            (1.0, 1.0),
            (2.0, 1.0),
            (3.0, 2.0),
            (4.0, 2.0),
            (5.0, 2.0),
        ];
        assert_eq!(
            without_repetitions(points.into_iter()),
            [(0.0, 1.0), (2.0, 1.0), (3.0, 2.0), (5.0, 2.0)]
        );
    }
}
