//! Limits an invocation's linear memory, in addition to the module's own maximum.
//!
//! In a guest at its limit, `memory.grow` returns -1.

use wasmtime::ResourceLimiter;

/// The most elements in a table. The component's function table has a few hundred.
const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Limits the size of a store's linear memory and tables.
#[derive(Debug)]
pub(super) struct MemoryBound {
    bytes_max: usize,
}

impl MemoryBound {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max }
    }
}

impl ResourceLimiter for MemoryBound {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.bytes_max)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
