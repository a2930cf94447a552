//! Fetches the ranges of prefixes and drops them: what fetching costs at least on this HTTP stack, whatever is done
//! with the bodies.

use article::measure;
use article::options::Options;
use article::workers::for_each_range;
use http_body_util::BodyExt as _;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    measure("floor", async |options: &Options, source| {
        let mut bytes = 0;
        for &prefix in &options.prefixes {
            let source = source.clone();
            bytes += for_each_range(options.workers, move |index| {
                let source = source.clone();
                async move {
                    let mut body = source.get(prefix, index).await?.into_body();
                    let mut bytes = 0;
                    while let Some(frame) = body.frame().await {
                        bytes += frame?.data_ref().map_or(0, bytes::Bytes::len) as u64;
                    }
                    Ok(bytes)
                }
            })
            .await?;
        }
        Ok(bytes)
    })
    .await
}
