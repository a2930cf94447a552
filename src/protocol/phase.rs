//! [`Phase`]: what an invocation works on, so that its memory can be told apart.

use serde::{Deserialize, Serialize};

/// What an invocation works on when it allocates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Whatever no other phase covers: the start, the index, the recording.
    #[default]
    Other,
    /// Requesting ranges and receiving their bodies.
    Fetch,
    /// Decoding gzip.
    Inflate,
    /// Checking bodies.
    Check,
    /// Encoding the tar.
    Tar,
    /// Computing the tar's checksum.
    Checksum,
    /// Sending the tar.
    Upload,
    /// Writing the answer.
    Events,
}

impl Phase {
    /// All phases, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Other,
        Self::Fetch,
        Self::Inflate,
        Self::Check,
        Self::Tar,
        Self::Checksum,
        Self::Upload,
        Self::Events,
    ];

    /// The name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Fetch => "fetch",
            Self::Inflate => "inflate",
            Self::Check => "check",
            Self::Tar => "tar",
            Self::Checksum => "checksum",
            Self::Upload => "upload",
            Self::Events => "events",
        }
    }
}

/// What one phase of an invocation allocated on the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PhaseHeap {
    /// The phase.
    pub phase: Phase,
    /// Allocations. One that changes its size counts again.
    pub allocations: u64,
    /// Bytes of all allocations.
    pub allocated_bytes: u64,
    /// The most bytes that were allocated at once, whatever phase they were freed in.
    pub peak_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_at_its_number_and_has_its_name_in_json() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, number);
            let json = serde_json::to_string(&phase).expect("JSON");
            assert_eq!(json, format!("\"{}\"", phase.as_str()));
        }
    }
}
