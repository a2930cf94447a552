//! Mirrors prefixes in the article's way: 4,096 buffers that are filled by concurrent workers, then the whole tar in
//! memory, then one PUT. It checks neither lines nor sums.

use anyhow::Context as _;
use article::client::Source;
use article::options::Options;
use article::workers::for_each_range;
use article::{RANGES_PER_PREFIX, measure};
use flate2::write::GzDecoder;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt as _;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The capacity of a buffer: one range of today's size, 75 KB, with room to spare. Memory that no body fills stays
/// untouched.
const BUFFER_BYTES: usize = 96 * 1024;

/// A buffer for each range of a prefix. They are reused for the next prefix.
type Buffers = Arc<Vec<Mutex<Vec<u8>>>>;

#[tokio::main]
async fn main() -> ExitCode {
    measure("article", async |options: &Options, source| {
        let buffer = || Mutex::new(Vec::with_capacity(BUFFER_BYTES));
        let buffers: Buffers = Arc::new((0..RANGES_PER_PREFIX).map(|_| buffer()).collect());
        let mut bytes = 0;
        for (index, &prefix) in options.prefixes.iter().enumerate() {
            bytes += fill(&source, &buffers, prefix, options.workers).await?;
            let tar = tar_of(&buffers, prefix)?;
            source.put(&options.put_url(index)?, tar).await?;
        }
        Ok(bytes)
    })
    .await
}

async fn fill(
    source: &Source,
    buffers: &Buffers,
    prefix: u8,
    workers: usize,
) -> anyhow::Result<u64> {
    let (source, buffers) = (source.clone(), Arc::clone(buffers));
    for_each_range(workers, move |index| {
        let (source, buffers) = (source.clone(), Arc::clone(&buffers));
        async move {
            let mut buffer = std::mem::take(&mut *lock(&buffers[index]));
            buffer.clear();
            let buffer = fetch(&source, prefix, index, buffer).await?;
            let bytes = buffer.len() as u64;
            *lock(&buffers[index]) = buffer;
            Ok(bytes)
        }
    })
    .await
}

async fn fetch(
    source: &Source,
    prefix: u8,
    index: usize,
    mut buffer: Vec<u8>,
) -> anyhow::Result<Vec<u8>> {
    let response = source.get(prefix, index).await?;
    let is_gzip = response.headers().get(CONTENT_ENCODING).is_some();
    let mut body = response.into_body();
    if !is_gzip {
        while let Some(frame) = body.frame().await {
            buffer.extend_from_slice(frame?.data_ref().map_or(&[], |bytes| bytes));
        }
        return Ok(buffer);
    }
    let mut decoder = GzDecoder::new(buffer);
    while let Some(frame) = body.frame().await {
        decoder.write_all(frame?.data_ref().map_or(&[], |bytes| bytes))?;
    }
    decoder.finish().context("a body that is not gzip")
}

/// The tar of all buffers, in memory. It is allocated once and in full, which is the least that this way needs.
fn tar_of(buffers: &Buffers, prefix: u8) -> anyhow::Result<Vec<u8>> {
    let entry = |buffer: &Mutex<Vec<u8>>| 512 + lock(buffer).len().next_multiple_of(512);
    let bytes: usize = buffers.iter().map(entry).sum();
    let mut builder = tar::Builder::new(Vec::with_capacity(bytes + 1024));
    for (index, buffer) in buffers.iter().enumerate() {
        let buffer = lock(buffer);
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(buffer.len() as u64);
        let name = format!("{prefix:02X}{index:03X}.txt");
        builder.append_data(&mut header, name, buffer.as_slice())?;
    }
    Ok(builder.into_inner()?)
}

fn lock(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}
