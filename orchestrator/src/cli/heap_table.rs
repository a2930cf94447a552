//! Prints what the phases of all invocations allocated, as `go tool pprof -top` does.

use crate::humanize;
use prefix_tar::protocol::phase::{Phase, PhaseHeap};
use prefix_tar::protocol::recording::Recording;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The heap of a run's invocations as a table; `None` if no invocation said what it allocated. `total` and `allocations`
/// are sums over the invocations, `peak live` is the most of any.
pub(super) fn heap_table<'run>(
    recordings: impl Iterator<Item = &'run Recording>,
) -> Option<String> {
    let recordings: Vec<_> = recordings
        .filter(|recording| !recording.heap_phases.is_empty())
        .collect();
    let heap_peak = recordings
        .iter()
        .map(|recording| recording.heap_peak)
        .max()?;
    let mut phases: BTreeMap<Phase, PhaseHeap> = BTreeMap::new();
    for heap in recordings
        .iter()
        .flat_map(|recording| &recording.heap_phases)
    {
        let sum = phases.entry(heap.phase).or_insert(PhaseHeap {
            allocations: 0,
            allocated_bytes: 0,
            peak_bytes: 0,
            ..*heap
        });
        sum.allocations = sum.allocations.saturating_add(heap.allocations);
        sum.allocated_bytes = sum.allocated_bytes.saturating_add(heap.allocated_bytes);
        sum.peak_bytes = sum.peak_bytes.max(heap.peak_bytes);
    }
    let mut phases: Vec<PhaseHeap> = phases.into_values().collect();
    phases.sort_by_key(|heap| std::cmp::Reverse((heap.allocated_bytes, heap.phase)));
    let allocated: u64 = phases
        .iter()
        .fold(0, |sum, heap| sum.saturating_add(heap.allocated_bytes));
    let mut table = format!(
        "Heap of {}: {} allocated, {} live at the peak of any\n",
        humanize::prefixes(recordings.len()),
        humanize::data(allocated),
        humanize::memory(heap_peak),
    );
    table.push_str("     total  total%    sum%   peak live  allocations  phase\n");
    let mut sum = 0_u64;
    for heap in phases {
        sum = sum.saturating_add(heap.allocated_bytes);
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "{:>10} {:>6.2}% {:>6.2}%  {:>10} {:>12}  {}",
            humanize::data(heap.allocated_bytes),
            percent(heap.allocated_bytes, allocated),
            percent(sum, allocated),
            humanize::memory(heap.peak_bytes),
            heap.allocations,
            heap.phase.as_str()
        );
    }
    Some(table)
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(heap_phases: Vec<PhaseHeap>) -> Recording {
        Recording {
            heap_phases,
            heap_peak: 3_700_000,
            ..Recording::default()
        }
    }

    fn heap(phase: Phase, allocations: u64, allocated_bytes: u64, peak_bytes: u64) -> PhaseHeap {
        PhaseHeap {
            phase,
            allocations,
            allocated_bytes,
            peak_bytes,
        }
    }

    #[test]
    fn phases_are_summed_over_invocations_and_the_largest_comes_first() {
        let recordings = [
            recording(vec![
                heap(Phase::Upload, 4, 70_000_000, 66_000),
                heap(Phase::Fetch, 90_000, 310_000_000, 3_000_000),
            ]),
            recording(vec![heap(Phase::Fetch, 10_000, 20_000_000, 3_500_000)]),
        ];
        let table = heap_table(recordings.iter()).expect("a table");
        insta::assert_snapshot!(table, @r"
        Heap of 2 prefixes: 400.0 MB allocated, 3.5 MiB live at the peak of any
             total  total%    sum%   peak live  allocations  phase
          330.0 MB  82.50%  82.50%     3.3 MiB       100000  fetch
           70.0 MB  17.50% 100.00%     0.1 MiB            4  upload
        ");
    }

    #[test]
    fn there_is_no_table_of_nothing() {
        let old = recording(vec![]);
        assert_eq!(heap_table([&old].into_iter()), None);
    }
}
