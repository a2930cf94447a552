//! Sets the memory cap and the stack size in the module itself, so that every host enforces them.

// The same numbers as LINEAR_MEMORY_BYTES_MAX and STACK_BYTES in src/limits.rs. A test reads them
// from the built module.
const LINEAR_MEMORY_BYTES_MAX: u32 = 8 * 1024 * 1024;
const STACK_BYTES: u32 = 256 * 1024;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo:rustc-cdylib-link-arg=--max-memory={LINEAR_MEMORY_BYTES_MAX}");
        println!("cargo:rustc-cdylib-link-arg=-zstack-size={STACK_BYTES}");
    }
}
