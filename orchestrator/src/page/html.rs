//! Puts charts and figures together as one HTML document that needs nothing else.

use super::charts::{Bar, NotDrawn, Size, memory_svg, prefixes_svg, throughput_svg};
use super::figures::{Figures, PrefixRow};
use crate::archive::manifest::Manifest;
use crate::archive::measurements::{MeasuredProcess, Measurements};
use crate::humanize;
use crate::timeline::Timeline;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::text::escaped_within;
use std::time::Duration;

const STYLE: &str = include_str!("page.css");

/// Prefixes in the table of the slowest.
const SLOWEST: usize = 10;

/// Text from a file, in characters. Names of sources have fewer.
const TEXT_CHARACTERS_MAX: usize = 300;

/// Renders the page of an archive. `location` is how the reader named it.
///
/// # Errors
/// A chart cannot be drawn.
pub fn render(
    location: &str,
    manifest: Option<&Manifest>,
    measurements: &Measurements,
) -> Result<String, NotDrawn> {
    let timeline = Timeline::new(measurements);
    let figures = Figures::new(manifest, measurements, &timeline);
    let memory = both_sizes(|size| memory_svg(&timeline, size))?;
    let throughput = both_sizes(|size| throughput_svg(&timeline, size.flat()))?;
    let bars: Vec<Bar> = figures
        .prefixes
        .iter()
        .map(|row| Bar {
            name: row.prefix.to_string(),
            seconds: row.seconds.unwrap_or(0.0),
            is_retried: row.attempts > 1,
        })
        .collect();
    let prefixes = both_sizes(|size| prefixes_svg(&bars, size.flat()))?;
    let is_of_run = manifest.is_some_and(|manifest| manifest.run == Some(measurements.run.clone()));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "prefix-tar: " (shown(location)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "The run of " (shown(location)) }
                    (introduction(&figures, measurements, is_of_run))
                    h2 { "Memory" }
                    p {
                        "The memory axis is logarithmic. Each blue line is the linear memory of one invocation, which \
                         handles 4,096 ranges; its cap is part of the component."
                    }
                    figure { (memory) }
                    h2 { "Throughput" }
                    p { "Ranges per second, all invocations together." }
                    figure { (throughput) }
                    h2 { "Prefixes" }
                    p { "How long the last invocation of each prefix took. Orange: it took more than one attempt." }
                    figure { (prefixes) }
                    (table_over_time(&figures))
                    (table_of_slowest(&figures))
                    (tables_of_causes(&figures))
                    (what_was_run(measurements))
                    details {
                        summary { "All prefixes" }
                        (table_of_prefixes(figures.prefixes.iter()))
                    }
                }
                footer {
                    "Made by prefix-tar " (env!("CARGO_PKG_VERSION")) " from what run " (measurements.run)
                    " measured of itself."
                }
            }
        }
    };
    Ok(page.into_string())
}

/// Text from a file or the command line, on one line and of bounded length. `html!` escapes it for HTML.
fn shown(text: &str) -> String {
    escaped_within(text, TEXT_CHARACTERS_MAX)
}

/// The same chart for a wide and for a narrow page: a chart that is only scaled cannot be read on a telephone.
fn both_sizes(draw: impl Fn(Size) -> Result<String, NotDrawn>) -> Result<Markup, NotDrawn> {
    let (wide, narrow) = (draw(Size::WIDE)?, draw(Size::NARROW)?);
    Ok(html! {
        div class="wide" { (PreEscaped(wide)) }
        div class="narrow" { (PreEscaped(narrow)) }
    })
}

fn introduction(figures: &Figures, measurements: &Measurements, is_of_run: bool) -> Markup {
    let cap = humanize::memory(LINEAR_MEMORY_BYTES_MAX as u64);
    let mirrored = figures.prefixes.len();
    html! {
        p class="lead" {
            "Peak linear memory of an invocation: " strong { (humanize::memory(figures.linear_memory_peak)) }
            ", capped at " (cap) ". Peak resident memory of the process: "
            strong { (humanize::memory(figures.rss_peak)) } "."
        }
        @if !is_of_run {
            p class="note" {
                "The manifest does not name this run: it is unfinished, or a later run had nothing to do."
            }
        }
        table class="totals" {
            tbody {
                tr { th { "Source" } td { (shown(&measurements.source)) } }
                tr { th { "Measured" } td { (humanize::prefixes(mirrored)) } }
                @if let Some(totals) = figures.totals {
                    tr {
                        th { "Archive" }
                        td {
                            (humanize::prefixes(usize::try_from(totals.prefixes).unwrap_or(0))) ", "
                            (humanize::grouped(totals.ranges)) " ranges, "
                            (humanize::grouped(totals.hashes)) " hashes, "
                            (humanize::data(totals.data_bytes)) ", in tars of "
                            (humanize::data(totals.content_length))
                        }
                    }
                    tr {
                        th { "Requests" }
                        td { (humanize::grouped(totals.requests)) ", " (humanize::grouped(totals.retries)) " of them retries" }
                    }
                }
                tr { th { "Time" } td { (seconds(figures.seconds)) } }
                tr { th { "CPU" } td { (seconds(figures.cpu_seconds)) } }
                tr { th { "Peak heap of an invocation" } td { (humanize::memory(figures.heap_peak)) } }
            }
        }
    }
}

fn seconds(seconds: f64) -> String {
    humanize::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn table_over_time(figures: &Figures) -> Markup {
    html! {
        h2 { "The same as a table" }
        div class="scroll" {
            table {
                thead {
                    tr {
                        th { "Until" } th { "Linear memory, largest" } th { "Resident memory" } th { "Ranges/s" }
                        th { "Received/s" }
                    }
                }
                tbody {
                    @for row in &figures.over_time {
                        tr {
                            td { (seconds(row.seconds)) }
                            td { (measured(row.linear_memory)) }
                            td { (measured(row.rss)) }
                            td { (humanize::grouped(row.ranges_per_second as u64)) }
                            td { (humanize::data(row.bytes_in_per_second as u64)) }
                        }
                    }
                }
            }
        }
    }
}

/// An amount of memory; nothing if none was measured.
fn measured(bytes: u64) -> String {
    match bytes {
        0 => "\u{2013}".to_owned(),
        bytes => humanize::memory(bytes),
    }
}

fn table_of_slowest(figures: &Figures) -> Markup {
    html! {
        h2 { "Slowest prefixes" }
        (table_of_prefixes(figures.slowest(SLOWEST).into_iter()))
    }
}

fn table_of_prefixes<'row>(rows: impl Iterator<Item = &'row PrefixRow>) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th { "Prefix" } th { "Time" } th { "Ranges/s" } th { "Linear memory" } th { "Heap" }
                        th { "Attempts" } th { "Repeated requests" }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            td { (row.prefix) }
                            td { @match row.seconds { Some(time) => (seconds(time)), None => "failed" } }
                            td { (rate(row)) }
                            td { (measured(row.linear_memory_peak)) }
                            td { (measured(row.heap_peak)) }
                            td { (row.attempts) }
                            td { (humanize::grouped(row.range_retries)) }
                        }
                    }
                }
            }
        }
    }
}

fn rate(row: &PrefixRow) -> String {
    let duration = row
        .seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    humanize::grouped(humanize::per_second(
        row.ranges,
        duration.unwrap_or_default(),
    ))
}

fn tables_of_causes(figures: &Figures) -> Markup {
    let causes = |title: &str, none: &str, counts: &[(FailureKind, u64)]| {
        html! {
            h2 { (title) }
            @if counts.is_empty() {
                p { (none) }
            } @else {
                table {
                    thead { tr { th { "Cause" } th { "Count" } } }
                    tbody {
                        @for (kind, count) in counts {
                            tr { td { (kind.as_str()) } td { (humanize::grouped(*count)) } }
                        }
                    }
                }
            }
        }
    };
    html! {
        (causes("Repeated range requests", "No range request was repeated.", &figures.range_retries))
        (causes("Failed attempts at a prefix", "No attempt at a prefix failed.", &figures.failed_attempts))
    }
}

fn what_was_run(measurements: &Measurements) -> Markup {
    let window = |process: &MeasuredProcess| {
        process
            .window
            .map_or_else(|| "default".to_owned(), |window| window.to_string())
    };
    html! {
        h2 { "What was run" }
        div class="scroll" {
            table {
                thead {
                    tr { th { "Began" } th { "Host" } th { "Parallel" } th { "Window" } th { "Processors" } th { "Version" } }
                }
                tbody {
                    @for process in &measurements.processes {
                        tr {
                            td { (shown(&process.started)) }
                            td { (shown(&process.host)) }
                            td { (process.parallel) }
                            td { (window(process)) }
                            td { (process.processors) }
                            td { (shown(&measurements.version)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::tests::sample;

    #[test]
    fn the_page_has_the_charts_the_tables_and_no_address_to_load_from() {
        let page = render("./archive", None, &sample()).expect("rendered");
        for text in [
            "The run of ./archive",
            "source_status",
            "source_timeout",
            "3.0 MiB",
            "32.0 MiB",
            "What was run",
            "<svg",
        ] {
            assert!(page.contains(text), "no {text}");
        }
        for loading in ["<script", "<link", "<img", "src=", "url(", "@import"] {
            assert!(!page.contains(loading), "{loading}");
        }
    }

    #[test]
    fn text_of_others_is_escaped() {
        let mut measurements = sample();
        measurements.source = "http://x/<script>alert(1)</script>\u{1b}[2J".to_owned();
        measurements.processes[0].host = "<b>".to_owned();
        measurements.version = "&amp;".to_owned();
        let page = render("<i>", None, &measurements).expect("rendered");
        assert!(!page.contains("<script>") && !page.contains("<b>") && !page.contains("<i>"));
        assert!(!page.contains('\u{1b}'));
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }
}
