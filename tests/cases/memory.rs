//! The memory cap: large ranges are mirrored within it, or refused by name.

use crate::harness::source::{Reply, Source, valid_body};
use crate::harness::{Fixture, generated, prefix, run_config, run_whole};
use orchestrator::generate::HASHES_PER_RANGE;
use orchestrator::host::embedded::bundled_component;
use prefix_tar::limits::{LINEAR_MEMORY_BYTES_MAX, RANGE_BYTES_MAX, STACK_BYTES, STATIC_BYTES_MAX};
use prefix_tar::protocol::failure::FailureKind;
use wasmparser::{Operator, Parser, Payload};

const MIB: u64 = 1024 * 1024;

/// Lines per range in 2023: about 32 KB.
const HASHES_PER_RANGE_2023: u32 = 800;

/// The memory layout of the built module.
struct ModuleMemory {
    pages_max: Option<u64>,
    stack_top: Option<i32>,
    data_end: usize,
}

fn module_memory() -> ModuleMemory {
    let mut memory = ModuleMemory {
        pages_max: None,
        stack_top: None,
        data_end: 0,
    };
    for payload in Parser::new(0).parse_all(bundled_component()) {
        match payload.expect("a component") {
            Payload::MemorySection(memories) => {
                for declared in memories {
                    memory.pages_max = declared.expect("a memory").maximum;
                }
            }
            // LLVM's linker puts the stack pointer first. It starts at the top of the stack.
            Payload::GlobalSection(globals) if memory.stack_top.is_none() => {
                let global = globals.into_iter().next().expect("a global");
                memory.stack_top = Some(constant(&global.expect("a global").init_expr));
            }
            Payload::DataSection(segments) => {
                for segment in segments {
                    let segment = segment.expect("a segment");
                    if let wasmparser::DataKind::Active { offset_expr, .. } = segment.kind {
                        let offset = usize::try_from(constant(&offset_expr)).expect("an offset");
                        memory.data_end = memory.data_end.max(offset + segment.data.len());
                    }
                }
            }
            _ => {}
        }
    }
    memory
}

fn constant(expression: &wasmparser::ConstExpr<'_>) -> i32 {
    match expression.get_operators_reader().read() {
        Ok(Operator::I32Const { value }) => value,
        other => panic!("not a constant: {other:?}"),
    }
}

#[test]
fn the_built_module_has_at_most_128_pages_and_its_stack_and_static_data_fit_their_budgets() {
    let memory = module_memory();
    assert_eq!(memory.pages_max, Some(128));
    assert_eq!(LINEAR_MEMORY_BYTES_MAX, 128 * 64 * 1024);
    let stack_top = usize::try_from(memory.stack_top.expect("a stack")).expect("an address");
    assert!(stack_top <= STACK_BYTES, "the stack starts at {stack_top}");
    assert!(memory.data_end - stack_top <= STATIC_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_2026_at_window_64_take_at_most_4_5_mib() {
    assert_linear_memory_at_most(9 * MIB / 2, HASHES_PER_RANGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_2023_at_window_64_take_at_most_4_mib() {
    assert_linear_memory_at_most(4 * MIB, HASHES_PER_RANGE_2023).await;
}

/// Mirrors a prefix of such ranges at window 64 and expects its peak linear memory to be at most
/// this many bytes.
async fn assert_linear_memory_at_most(bytes_max: u64, hashes_per_range: u32) {
    let ranges = generated("00", hashes_per_range);
    let source = Source::of_folder(ranges.path()).await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(&source.url(), archive.path(), "00");
    config.dispatch.window = Some(64);
    let run = run_whole(config).await;
    for stored in run.outcome.stored.values() {
        assert!(
            stored.linear_memory_peak <= bytes_max,
            "{} bytes",
            stored.linear_memory_peak
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_the_maximum_size_are_mirrored_within_the_cap() {
    let source = Source::answering(|range| Reply::Body(valid_body(range, RANGE_BYTES_MAX))).await;
    let fixture = Fixture::new(&source.url(), |_| ()).await;
    let mut job = fixture.job(prefix("AB")).await;
    job.window = Some(128);
    let report = fixture.invoke(job).await.expect("stored");
    assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
    assert_eq!(report.ranges, 4096);
    assert!(
        report
            .range_bytes
            .iter()
            .all(|bytes| *bytes as usize > RANGE_BYTES_MAX - 40)
    );
    assert_eq!(fixture.into_file_names().await, ["AB.tar"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_one_mebibyte_is_refused_by_name_without_a_trap() {
    let source = Source::answering(|range| Reply::Body(valid_body(range, 1024 * 1024))).await;
    let fixture = Fixture::new(&source.url(), |_| ()).await;
    assert_too_large(&fixture, "AB000").await;
    assert_eq!(fixture.into_file_names().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_range_above_the_maximum_among_small_ones_is_refused_by_name() {
    let source = Source::answering(|range| {
        Reply::Body(match range.index() {
            0x800 => valid_body(range, RANGE_BYTES_MAX + 39),
            0x7FF => valid_body(range, RANGE_BYTES_MAX),
            _ => valid_body(range, 500),
        })
    })
    .await;
    let fixture = Fixture::new(&source.url(), |_| ()).await;
    assert_too_large(&fixture, "AB800").await;
}

/// Expects prefix `AB` to fail permanently because of this range.
async fn assert_too_large(fixture: &Fixture, range: &str) {
    let job = fixture.job(prefix("AB")).await;
    let failure = fixture.invoke(job).await.expect_err("too large");
    assert_eq!(failure.kind, FailureKind::RangeTooLarge);
    let failed_range = failure.range.map(|range| range.to_string());
    assert_eq!(failed_range.as_deref(), Some(range));
    assert!(!failure.retryable);
}
