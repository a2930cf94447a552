//! Signing without a local key: Google signs for the machine's account, an impersonated account and
//! a workload of another cloud. The store verifies these signatures like any other.

use crate::harness::expected_tar;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::google::{
    FEDERATED_TOKEN, Google, IMPERSONATED_TOKEN, METADATA_TOKEN, NEVER_ANSWERED, SUBJECT_TOKEN,
    USER_TOKEN,
};
use crate::harness::program::{output, texts};
use crate::harness::store_program::StoreProgram;
use serde_json::{Value, json};
use std::process::{Command, Output};

const LINES: u64 = 5;
const PATH: &str = "archive";

/// A source, a store, and a Google that signs for the account that the store trusts.
struct Stage {
    source: FaultySource,
    store: StoreProgram,
    google: Google,
}

impl Stage {
    /// Google signs if the caller has one of the tokens `permitted`.
    async fn new(permitted: &[&'static str]) -> Self {
        let store = StoreProgram::start();
        Self {
            source: FaultySource::start(|range| body_of(range, LINES), |_, _| None).await,
            google: Google::start(&store.key_file(), permitted).await,
            store,
        }
    }

    /// A run that logs everything, on a machine with an account.
    fn run(&self) -> Command {
        let source = self.source.url().to_string();
        let mut run = self
            .store
            .command(&["run", "-p", "2", "--source", &source, "--to"], PATH);
        self.google.configure(&mut run);
        run.env("PREFIX_TAR_LOG", "trace");
        run
    }

    /// A run that finds these credentials.
    fn run_with(&self, credentials: &Value) -> Command {
        let file = self.store.beside("credentials.json");
        std::fs::write(&file, credentials.to_string()).expect("written");
        let mut run = self.run();
        run.env("GOOGLE_APPLICATION_CREDENTIALS", file);
        run
    }

    fn assert_is_stored(&self, run: &Output) {
        assert_eq!(run.status.code(), Some(0), "{}", shown(run));
        for name in ["00", "01"] {
            let tar = std::fs::read(self.store.archive(PATH).join(format!("{name}.tar")));
            let expected = expected_tar(name, |range| body_of(range, LINES));
            assert!(tar.expect("a tar") == expected, "{name} differs");
        }
        // For each prefix a tar, its report and what is read before; the manifest.
        assert!(self.google.requests(":signBlob") > 8);
    }
}

/// The output without its log lines.
fn shown(run: &Output) -> String {
    let texts = texts(run);
    let lines = texts.lines().filter(|line| !is_logged(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_logged(line: &str) -> bool {
    [" TRACE ", " DEBUG ", " INFO ", " WARN ", " ERROR "]
        .iter()
        .any(|level| line.contains(level))
}

/// Expects the output, at trace level, to contain no token and no secret of the user.
fn assert_shows_no_token(run: &Output) {
    let texts = texts(run);
    assert!(texts.lines().any(is_logged), "it was at trace level");
    for secret in [
        METADATA_TOKEN,
        USER_TOKEN,
        SUBJECT_TOKEN,
        FEDERATED_TOKEN,
        IMPERSONATED_TOKEN,
        "5ec4e7",
    ] {
        let shown = texts.lines().find(|line| line.contains(secret));
        assert_eq!(shown, None, "{secret} is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_the_machine_signs_without_a_key() {
    let stage = Stage::new(&[METADATA_TOKEN]).await;
    let run = output(stage.run()).await;
    stage.assert_is_stored(&run);
    assert_shows_no_token(&run);
    assert_eq!(
        stage.google.requests("/default/token"),
        1,
        "a token is used for as long as it is valid"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impersonated_account_signs_for_a_user() {
    let stage = Stage::new(&[IMPERSONATED_TOKEN]).await;
    let run = stage.run_with(&stage.google.impersonated_credentials());
    let run = output(run).await;
    stage.assert_is_stored(&run);
    assert_shows_no_token(&run);
    assert_eq!(stage.google.requests(":generateAccessToken"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impersonated_account_signs_for_a_workload_of_another_cloud() {
    let stage = Stage::new(&[IMPERSONATED_TOKEN]).await;
    let run = stage.run_with(&stage.google.federated_credentials());
    let run = output(run).await;
    stage.assert_is_stored(&run);
    assert_shows_no_token(&run);
    assert_eq!(stage.google.requests("/v1/token"), 1);
    assert_eq!(stage.google.requests(":generateAccessToken"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_for_a_caller_that_may_not_sign_names_the_missing_role() {
    let stage = Stage::new(&[]).await;
    let run = output(stage.run()).await;
    let shown = shown(&run);
    assert_eq!(run.status.code(), Some(1), "{shown}");
    assert!(shown.contains("Google answered 403"), "{shown}");
    assert!(
        shown.contains("roles/iam.serviceAccountTokenCreator"),
        "{shown}"
    );
    assert_shows_no_token(&run);
    // Two reports are looked up at the same time, and the first error ends the run.
    let signatures = stage.google.requests(":signBlob");
    assert!(
        (1..=2).contains(&signatures),
        "a permanent error is not retried"
    );
    assert_eq!(
        stage.source.faults().range_requests(),
        0,
        "nothing was fetched"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes the 45 s after which the signer gives up: make soak"]
async fn a_signature_that_never_comes_is_an_error_after_45_seconds() {
    let stage = Stage::new(&[NEVER_ANSWERED]).await;
    let run = output(stage.run()).await;
    let shown = shown(&run);
    assert_eq!(run.status.code(), Some(1), "{shown}");
    assert!(shown.contains("did not answer in 45 s"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_for_a_user_s_own_credentials_says_how_to_impersonate_an_account() {
    let stage = Stage::new(&[USER_TOKEN]).await;
    let run = stage.run_with(&json!({
        "type": "authorized_user", "client_id": "client",
        "client_secret": "5ec4e7", "refresh_token": "5ec4e7"
    }));
    let run = output(run).await;
    let shown = shown(&run);
    assert_eq!(run.status.code(), Some(1), "{shown}");
    assert!(shown.contains("--impersonate-service-account"), "{shown}");
}
