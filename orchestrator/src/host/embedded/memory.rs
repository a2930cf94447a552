//! The bound of an invocation's memory, besides the module's own.
//! What happens to a guest that meets it is wasmtime's business: `memory.grow` answers -1.

use wasmtime::ResourceLimiter;

/// Elements of a table: the component's function table has a few hundred.
const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Bounds every linear memory of a store.
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
