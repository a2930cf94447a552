//! Answers a PUT with `x-goog-copy-source`: the new object is a copy of another one in the store.
//!
//! <https://cloud.google.com/storage/docs/xml-api/put-object-copy>

use crate::conditions;
use crate::error::StoreError;
use crate::headers::{describe, generation, single};
use crate::objects::{GenerationMatch, Objects};
use crate::put::UploadTerms;
use crate::{StoreBody, on_disk};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The header that names the object to copy: `/bucket/object`, escaped as in a URL.
pub(crate) const SOURCE: &str = "x-goog-copy-source";

const SOURCE_GENERATION: &str = "x-goog-copy-source-generation";

/// Copies the object at `source`, if every condition holds.
pub(crate) async fn copy(
    source: PathBuf,
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
    terms: UploadTerms,
) -> Result<Response<StoreBody>, StoreError> {
    let requested = conditions::of_write(headers)?;
    let wanted = match single(headers, SOURCE_GENERATION)?.map(generation) {
        None => GenerationMatch::Any,
        Some(Some(wanted)) => GenerationMatch::Is(wanted),
        Some(None) => {
            return Err(StoreError::InvalidArgument(
                "x-goog-copy-source-generation must be a generation.",
            ));
        }
    };
    let (permitted, denied) = (terms.permitted(requested), terms.denial());
    let metadata = on_disk(move || {
        // It counts as an upload until it has ended.
        let _permit = terms.permit;
        objects.check_generation(&path, permitted).map_err(denied)?;
        objects.check_generation(&path, requested)?;
        let copied = objects.copy_from(&source, wanted, &path, permitted);
        copied.map_err(denied)
    })
    .await?;
    let document = format!(
        "<?xml version='1.0' encoding='UTF-8'?><CopyObjectResult><ETag>{}</ETag></CopyObjectResult>",
        metadata.etag()
    );
    let body = Full::new(Bytes::from(document)).map_err(io::Error::other);
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    describe(response.headers_mut(), &metadata)?;
    let xml = HeaderValue::from_static("application/xml; charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, xml);
    Ok(response)
}
