//! One attempt at a request to a bucket, within its time.

use super::{Answer, BucketClient, RequestError, Unsigned, request_to};
use crate::archive::measurements::MEASUREMENTS_BYTES_MAX;
use crate::http_client::{self, Lease};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prefix_tar::protocol::signed_url::SignedUrl;
use tokio::time::{Instant, timeout_at};

/// An answer that is read into memory, in bytes: one range, or what the store says about a request.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A whole file that is read into memory, in bytes. Measurements are the largest.
const FILE_BYTES_MAX: usize = MEASUREMENTS_BYTES_MAX;

/// One attempt at a request. If it takes too long, the next one uses another connection.
pub(super) struct Attempt<'request> {
    pub(super) client: &'request BucketClient,
    pub(super) unsigned: &'request Unsigned<'request>,
    /// The URL, if it is signed already.
    pub(super) url: Option<&'request SignedUrl>,
    pub(super) lease: Lease<Full<Bytes>>,
    pub(super) deadline: Instant,
}

impl Attempt<'_> {
    /// Signs and sends the request, and waits for the response's head.
    pub(super) async fn response(&self) -> Result<Response<Incoming>, RequestError> {
        let operation = &self.unsigned.operation;
        let response = async {
            let request = match self.url {
                Some(url) => request_to(url, self.unsigned)?,
                None => self.client.signed(self.unsigned).await?,
            };
            self.lease.request(request).await.map_err(|error| {
                let cause = http_client::cause(&error);
                RequestError::Lost(format!("{operation} failed: {cause}"))
            })
        };
        timeout_at(self.deadline, response)
            .await
            .unwrap_or_else(|_| {
                let seconds = self.client.attempt_time_max.as_secs_f64();
                Err(RequestError::Lost(format!(
                    "{operation} was not answered within {seconds} s"
                )))
            })
    }

    /// Reads an answer to its end.
    pub(super) async fn read(&self, response: Response<Incoming>) -> Result<Answer, RequestError> {
        let operation = &self.unsigned.operation;
        let (head, body) = response.into_parts();
        let is_file = operation.method == Method::GET && self.unsigned.byte_range.is_none();
        let bytes_max = if is_file {
            FILE_BYTES_MAX
        } else {
            ANSWER_BYTES_MAX
        };
        let body = Limited::new(body, bytes_max).collect();
        let body = timeout_at(self.deadline, self.lease.watch(body))
            .await
            .map_err(|_| {
                let seconds = self.client.attempt_time_max.as_secs_f64();
                RequestError::Lost(format!(
                    "the answer to {operation} did not end within {seconds} s"
                ))
            })?
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return RequestError::TooLong {
                        operation: operation.to_string(),
                        bytes_max,
                    };
                }
                RequestError::Lost(format!("{operation}: the answer was cut off"))
            })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
            operation: operation.clone(),
        })
    }
}
