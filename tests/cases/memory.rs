//! The cap, and what becomes of ranges that strain it.

use crate::harness::source::{Reply, Source, valid_body};
use crate::harness::{Stage, generated, mirror, prefix, run_whole};
use orchestrator::generate::HASHES_PER_RANGE;
use orchestrator::host::embedded::bundled_component;
use prefix_tar::failure::FailureKind;
use prefix_tar::limits::{LINEAR_MEMORY_BYTES_MAX, RANGE_BYTES_MAX, STACK_BYTES, STATIC_BYTES_MAX};
use wasmparser::{Operator, Parser, Payload};

const MIB: u64 = 1024 * 1024;

/// What the built module says of its memory.
struct ModuleMemory {
    pages_max: Option<u64>,
    stack_top: Option<i32>,
    data_end: usize,
}

fn module_memory() -> ModuleMemory {
    let mut found = ModuleMemory {
        pages_max: None,
        stack_top: None,
        data_end: 0,
    };
    for payload in Parser::new(0).parse_all(bundled_component()) {
        match payload.expect("a component") {
            Payload::MemorySection(memories) => {
                for memory in memories {
                    found.pages_max = memory.expect("a memory").maximum;
                }
            }
            // The first global of a module that LLVM links is the stack pointer, at the stack's top.
            Payload::GlobalSection(globals) if found.stack_top.is_none() => {
                let global = globals.into_iter().next().expect("a global");
                found.stack_top = Some(constant(&global.expect("a global").init_expr));
            }
            Payload::DataSection(segments) => {
                for segment in segments {
                    let segment = segment.expect("a segment");
                    if let wasmparser::DataKind::Active { offset_expr, .. } = segment.kind {
                        let offset = usize::try_from(constant(&offset_expr)).expect("an offset");
                        found.data_end = found.data_end.max(offset + segment.data.len());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn constant(expression: &wasmparser::ConstExpr<'_>) -> i32 {
    match expression.get_operators_reader().read() {
        Ok(Operator::I32Const { value }) => value,
        other => panic!("no constant: {other:?}"),
    }
}

#[test]
fn the_built_module_has_a_maximum_of_128_pages_and_the_stack_and_data_that_are_accounted_for() {
    let memory = module_memory();
    assert_eq!(memory.pages_max, Some(128));
    assert_eq!(LINEAR_MEMORY_BYTES_MAX, 128 * 64 * 1024);
    let stack_top = usize::try_from(memory.stack_top.expect("a stack")).expect("an address");
    assert!(stack_top <= STACK_BYTES, "the stack begins at {stack_top}");
    assert!(memory.data_end - stack_top <= STATIC_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_ranges_at_window_64_take_at_most_4_mib() {
    let ranges = generated("00", HASHES_PER_RANGE);
    let source = Source::of_folder(ranges.path()).await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut mirror = mirror(&source.url(), archive.path(), "00");
    mirror.settings.window = Some(64);
    let mirrored = run_whole(mirror).await;
    for stored in mirrored.outcome.stored.values() {
        assert!(
            stored.linear_memory_peak <= 4 * MIB,
            "{} bytes",
            stored.linear_memory_peak
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_the_largest_size_are_mirrored_within_the_cap() {
    let source = Source::answering(|range| Reply::Body(valid_body(range, RANGE_BYTES_MAX))).await;
    let stage = Stage::new(&source.url(), |_| ()).await;
    let mut job = stage.job(prefix("AB")).await;
    job.window = Some(128);
    let report = stage.invoke(job).await.expect("stored");
    assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
    assert_eq!(report.ranges, 4096);
    assert!(
        report
            .range_bytes
            .iter()
            .all(|bytes| *bytes as usize > RANGE_BYTES_MAX - 40)
    );
    assert_eq!(stage.into_files().await, ["AB.tar"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_mebibyte_fails_by_its_name_and_the_component_lives() {
    let source = Source::answering(|range| Reply::Body(valid_body(range, 1024 * 1024))).await;
    let stage = Stage::new(&source.url(), |_| ()).await;
    assert_too_large(&stage, "AB000").await;
    assert_eq!(stage.into_files().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_range_past_the_bound_among_small_ones_is_named() {
    let source = Source::answering(|range| {
        Reply::Body(match range.index() {
            0x800 => valid_body(range, RANGE_BYTES_MAX + 39),
            0x7FF => valid_body(range, RANGE_BYTES_MAX),
            _ => valid_body(range, 500),
        })
    })
    .await;
    let stage = Stage::new(&source.url(), |_| ()).await;
    assert_too_large(&stage, "AB800").await;
}

/// Expects prefix `AB` to fail for good because of this range.
async fn assert_too_large(stage: &Stage, range: &str) {
    let job = stage.job(prefix("AB")).await;
    let failure = stage.invoke(job).await.expect_err("too large");
    assert_eq!(failure.kind, FailureKind::RangeTooLarge);
    let named = failure.range.map(|range| range.to_string());
    assert_eq!(named.as_deref(), Some(range));
    assert!(!failure.retryable);
}
