//! Stores that do not keep what they confirm, or contradict themselves.

use super::{Admission, Opening, Request, Transaction, TransactionError};
use crate::archive::layout::{MANIFEST_NAME, RUN_RECORD_NAME};
use crate::archive::manifest::Manifest;
use crate::run::memory_store::{Content, Fate, Gate, MemoryStore, Open, Operation, Text};
use crate::run::outcome::StoredPrefix;
use crate::run::plan::PrefixSet;
use jiff::Timestamp;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SOURCE: &str = "http://127.0.0.1:1";
const AB: Prefix = Prefix::from_number(0xAB);

/// Forgets every write of one file.
struct Forgetful(&'static str);

impl Gate for Forgetful {
    fn pass(&self, operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>> {
        let is_forgotten = matches!(operation, Operation::Write(file, _, _) if file == self.0);
        let fate = if is_forgotten {
            Fate::Forgotten
        } else {
            Fate::Answered
        };
        Box::pin(std::future::ready(fate))
    }
}

async fn open(store: &Arc<MemoryStore>, force: bool) -> Result<Opening, TransactionError> {
    open_for(store, "AB", SOURCE, force).await
}

async fn open_for(
    store: &Arc<MemoryStore>,
    prefixes: &str,
    source: &str,
    force: bool,
) -> Result<Opening, TransactionError> {
    open_mode(store, prefixes, source, force, Mode::Sha1).await
}

async fn open_mode(
    store: &Arc<MemoryStore>,
    prefixes: &str,
    source: &str,
    force: bool,
    mode: Mode,
) -> Result<Opening, TransactionError> {
    let prefixes: PrefixSet = prefixes.parse().expect("prefixes");
    let request = Request {
        source,
        mode,
        prefixes: &prefixes,
        force,
        now: Timestamp::UNIX_EPOCH,
        random: u32::from(force),
    };
    let destination = Arc::<MemoryStore>::clone(store);
    Transaction::open(destination, request, &CancellationToken::new()).await
}

/// Mirrors the prefix into the store, up to the manifest.
async fn mirror(store: &Arc<MemoryStore>, force: bool) -> Result<Manifest, TransactionError> {
    mirror_mode(store, force, Mode::Sha1).await
}

async fn mirror_mode(
    store: &Arc<MemoryStore>,
    force: bool,
    mode: Mode,
) -> Result<Manifest, TransactionError> {
    let Opening::Begun { transaction, .. } = open_mode(store, "AB", SOURCE, force, mode).await?
    else {
        panic!("nothing to do")
    };
    let Admission::Upload(upload) = transaction.admit(AB).await? else {
        panic!("no upload")
    };
    let report = store.upload(AB, &upload, "tar", SOURCE).await;
    let report = Report {
        mode,
        ..report.expect("an answer").expect("stored")
    };
    let report = transaction.commit(AB, report, false).await?;
    let stored = StoredPrefix::new(&report, 1);
    transaction.finish(&[&stored], "2026-11-25T00:00:00Z").await
}

/// Mirrors the prefix, and then again into a store that forgets writes of `file`.
async fn mirror_again_forgetting(file: &'static str) -> Result<Manifest, TransactionError> {
    let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
    mirror(&store, false).await.expect("a first archive");
    let forgetful = MemoryStore::new(Arc::clone(&store.files), Arc::new(Forgetful(file)));
    mirror(&Arc::new(forgetful), true).await
}

#[tokio::test]
async fn a_store_that_keeps_what_a_write_should_have_replaced_completes_no_run() {
    for file in [RUN_RECORD_NAME, MANIFEST_NAME] {
        let Err(error) = mirror_again_forgetting(file).await else {
            panic!("the run is complete without its {file}")
        };
        let expected =
            format!("the store confirmed {file}, but does not have it; run the same command again");
        assert_eq!(error.to_string(), expected);
    }
    let Err(error) = mirror_again_forgetting("AB.json").await else {
        panic!("the run is complete without its report")
    };
    assert!(matches!(error, TransactionError::Changed(_)), "{error}");
}

#[tokio::test]
async fn a_run_does_not_begin_if_its_record_is_confirmed_but_not_kept() {
    let store = Arc::new(MemoryStore::new(
        Arc::default(),
        Arc::new(Forgetful(RUN_RECORD_NAME)),
    ));
    let Err(error) = open(&store, false).await else {
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
    let Ok(Opening::Begun { transaction, .. }) = open(&store, false).await else {
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

#[tokio::test]
async fn a_tar_whose_generation_has_changed_by_itself_is_not_taken_for_that_of_the_run() {
    let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
    mirror(&store, false).await.expect("a first archive");
    let begun = open(&store, true).await;
    assert!(matches!(begun, Ok(Opening::Begun { .. })), "a forced run");
    // As if the folder had been copied.
    {
        let mut files = store.files();
        files.get_mut("AB.tar").expect("a tar").generation += 1;
    }
    let Ok(Opening::Begun { transaction, .. }) = open(&store, true).await else {
        panic!("the forced run is resumed")
    };
    let admission = transaction.admit(AB).await;
    assert!(matches!(admission, Ok(Admission::Upload(_))));
}

#[tokio::test]
async fn another_source_does_not_take_over_what_an_unfinished_run_has_stored() {
    const OTHER: &str = "http://127.0.0.1:2";
    let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
    let Ok(Opening::Begun { transaction, .. }) = open(&store, false).await else {
        panic!("nothing to do")
    };
    let nothing_stored = open_for(&store, "AC", OTHER, false).await;
    assert!(
        nothing_stored.is_ok(),
        "the first source may have been mistyped"
    );
    let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
    drop(transaction);
    let Ok(Opening::Begun { transaction, .. }) = open(&store, false).await else {
        panic!("nothing to do")
    };
    let Ok(Admission::Upload(upload)) = transaction.admit(AB).await else {
        panic!("no upload")
    };
    let report = store.upload(AB, &upload, "tar", SOURCE).await;
    let report = report.expect("an answer").expect("stored");
    transaction
        .commit(AB, report, false)
        .await
        .expect("a report");
    for prefixes in ["AC", "AB"] {
        let Err(error) = open_for(&store, prefixes, OTHER, false).await else {
            panic!("{prefixes} of another source")
        };
        assert!(
            matches!(error, TransactionError::OtherSource { .. }),
            "{error}"
        );
    }
    let forced = open_for(&store, "AC", OTHER, true).await;
    assert!(forced.is_ok(), "--force replaces it");
}

#[tokio::test]
async fn a_manifest_that_is_not_what_a_run_writes_is_written_anew() {
    type Change = fn(&mut Manifest);
    let changes: [Change; 3] = [
        |manifest| manifest.totals.hashes += 1,
        |manifest| manifest.totals.content_length -= 1,
        |manifest| manifest.objects.push(manifest.objects[0].clone()),
    ];
    for change in changes {
        let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
        let mut manifest = mirror(&store, false).await.expect("an archive");
        let complete = open(&store, false).await;
        assert!(matches!(complete, Ok(Opening::Complete(_))));
        change(&mut manifest);
        let text = serde_json::to_vec(&manifest).expect("JSON");
        {
            let mut files = store.files();
            files.get_mut(MANIFEST_NAME).expect("a manifest").content =
                Content::Text(Text::new(text));
        }
        let begun = open(&store, false).await;
        assert!(matches!(begun, Ok(Opening::Begun { .. })));
    }
}

/// Expects that a run of the other mode is refused, forced or not, whatever prefix it is about.
async fn assert_other_mode_is_refused(store: &Arc<MemoryStore>, other: Mode, when: &str) {
    let before = store.files().clone();
    for (prefixes, force) in [("AB", false), ("AB", true), ("AC", false), ("AC", true)] {
        let opened = open_mode(store, prefixes, SOURCE, force, other).await;
        let Err(error) = opened else {
            panic!("{when}: {prefixes} of {other} began")
        };
        let is_refused =
            matches!(error, TransactionError::OtherMode { requested, .. } if requested == other);
        assert!(is_refused, "{when}: {error}");
    }
    assert!(*store.files() == before, "{when}: something was written");
}

#[tokio::test]
async fn a_run_of_the_other_mode_changes_nothing_in_an_archive_and_force_does_not_help() {
    for [mode, other] in [[Mode::Sha1, Mode::Ntlm], [Mode::Ntlm, Mode::Sha1]] {
        let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
        let manifest = mirror_mode(&store, false, mode).await.expect("an archive");
        assert_eq!(manifest.mode, mode);
        assert_other_mode_is_refused(&store, other, "a whole archive").await;
        store.files().remove(MANIFEST_NAME);
        assert_other_mode_is_refused(&store, other, "without a manifest").await;
        store.files().remove(RUN_RECORD_NAME);
        for force in [false, true] {
            let opened = open_mode(&store, "AB", SOURCE, force, other).await;
            let is_refused = matches!(opened, Err(TransactionError::OtherMode { .. }));
            assert!(is_refused, "with nothing but a report");
        }
        let resumed = mirror_mode(&store, true, mode).await;
        assert!(resumed.is_ok(), "the archive's own mode");
    }
}

#[tokio::test]
async fn an_unfinished_run_is_resumed_in_its_own_mode_only() {
    let store = Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open)));
    let open = async |mode| open_mode(&store, "AB", SOURCE, false, mode).await;
    // Nothing is stored yet, so the mode may have been mistyped.
    for mode in [Mode::Ntlm, Mode::Sha1] {
        let Ok(Opening::Begun { transaction, .. }) = open(mode).await else {
            panic!("a run of {mode} begins")
        };
        transaction.close().await;
    }
    let Ok(Opening::Begun { transaction, .. }) = open(Mode::Ntlm).await else {
        panic!("nothing to do")
    };
    assert_eq!(transaction.mode(), Mode::Ntlm);
    let Ok(Admission::Upload(upload)) = transaction.admit(AB).await else {
        panic!("no upload")
    };
    let stored = store.upload(AB, &upload, "tar", SOURCE).await;
    stored.expect("an answer").expect("stored");
    assert_other_mode_is_refused(&store, Mode::Sha1, "a tar without a report").await;
    let Ok(Opening::Begun { transaction, .. }) = open(Mode::Ntlm).await else {
        panic!("the run is resumed")
    };
    let Ok(Admission::Stored(report)) = transaction.admit(AB).await else {
        panic!("its tar is found")
    };
    assert_eq!(report.mode, Mode::Ntlm);
}
