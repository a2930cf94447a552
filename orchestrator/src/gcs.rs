//! Google Cloud Storage: which bucket, how objects are stored in it, and signed requests to it.
//!
//! The orchestrator has no token for the bucket. It only signs URLs; all bucket access goes through
//! them: <https://cloud.google.com/storage/docs/xml-api/overview>

pub mod client;
pub mod options;
pub mod path;
