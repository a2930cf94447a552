//! Stores that do not keep what they confirm, or contradict themselves.

use super::{Admission, Opening, Request, Transaction, TransactionError};
use crate::archive::layout::RUN_RECORD_NAME;
use crate::run::memory_store::{Fate, Gate, MemoryStore, Open, Operation};
use crate::run::plan::PrefixSet;
use jiff::Timestamp;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::prefix::Prefix;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SOURCE: &str = "http://127.0.0.1:1";
const AB: Prefix = Prefix::from_number(0xAB);

/// Forgets every write of the run's record.
struct Forgetful;

impl Gate for Forgetful {
    fn pass(&self, operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>> {
        let is_record =
            matches!(operation, Operation::Write(file, _, _) if file == RUN_RECORD_NAME);
        let fate = if is_record {
            Fate::Forgotten
        } else {
            Fate::Answered
        };
        Box::pin(std::future::ready(fate))
    }
}

async fn open(store: &Arc<MemoryStore>) -> Result<Opening, TransactionError> {
    let prefixes: PrefixSet = "AB".parse().expect("prefixes");
    let request = Request {
        source: SOURCE,
        prefixes: &prefixes,
        force: false,
        now: Timestamp::UNIX_EPOCH,
        random: 1,
    };
    let destination = Arc::<MemoryStore>::clone(store);
    Transaction::open(destination, request, &CancellationToken::new()).await
}

#[tokio::test]
async fn a_run_does_not_begin_if_its_record_is_confirmed_but_not_kept() {
    let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Forgetful)));
    let Err(error) = open(&store).await else {
        panic!("the run began, and would check nothing")
    };
    assert_eq!(
        error.to_string(),
        "the store confirmed run.json, but does not have it; run the same command again"
    );
}

#[tokio::test]
async fn a_store_whose_metadata_contradicts_the_object_is_told_so_after_one_look() {
    let mut store = MemoryStore::new(Arc::default(), Arc::new(Open));
    store.stated_crc32c = Some(Crc32c(7));
    let store = Arc::new(store);
    let Ok(Opening::Begun { transaction, .. }) = open(&store).await else {
        panic!("nothing to do")
    };
    let Ok(Admission::Upload(upload)) = transaction.admit(AB).await else {
        panic!("no upload")
    };
    let stored = store.upload(AB, &upload, "tar", SOURCE).await;
    stored.expect("an answer").expect("stored");
    let Err(error) = transaction.admit(AB).await else {
        panic!("the metadata was believed")
    };
    assert!(
        matches!(error, TransactionError::Contradiction { .. }),
        "{error}"
    );
    // No retry: each would download the whole tar again.
    assert!(!Failure::from(error).retryable);
}
