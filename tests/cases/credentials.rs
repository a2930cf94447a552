//! Who signs: besides a key at hand, the account of the machine and an account that is impersonated, whose signatures
//! Google makes. The store verifies them as it verifies any other.

use crate::harness::expected_tar;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::google::{Google, IGNORED, IMPERSONATED_TOKEN, METADATA_TOKEN, USER_TOKEN};
use crate::harness::program::{output, texts};
use crate::harness::store_program::StoreProgram;
use serde_json::json;
use std::path::PathBuf;
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
    /// Google signs for who has one of these tokens.
    async fn new(permitted: &[&'static str]) -> Self {
        let store = StoreProgram::start();
        Self {
            source: FaultySource::start(|range| body_of(range, LINES), |_, _| None).await,
            google: Google::start(&store.key_file(), permitted).await,
            store,
        }
    }

    /// A run that logs everything.
    fn run(&self) -> Command {
        let source = self.source.url().to_string();
        let mut run = self
            .store
            .command(&["run", "-p", "2", "--source", &source, "--to"], PATH);
        self.google.tell(&mut run);
        run.env("PREFIX_TAR_LOG", "trace");
        run
    }

    /// The credentials of an impersonated account, in a file.
    fn impersonated(&self) -> PathBuf {
        let file = self.store.beside("impersonated.json");
        let credentials = self.google.impersonated_credentials().to_string();
        std::fs::write(&file, credentials).expect("written");
        file
    }

    fn assert_is_stored(&self, run: &Output) {
        assert_eq!(run.status.code(), Some(0), "{}", told(run));
        for name in ["00", "01"] {
            let tar = std::fs::read(self.store.archive(PATH).join(format!("{name}.tar")));
            let expected = expected_tar(name, |range| body_of(range, LINES));
            assert!(tar.expect("a tar") == expected, "{name} is another");
        }
        // A tar, its report, what is looked at before, twice; the manifest.
        assert!(self.google.asked_for(":signBlob") > 8);
    }
}

/// What a person sees of it: the log is left out.
fn told(run: &Output) -> String {
    let texts = texts(run);
    let lines = texts.lines().filter(|line| !is_of_the_log(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_of_the_log(line: &str) -> bool {
    [" TRACE ", " DEBUG ", " INFO ", " WARN ", " ERROR "]
        .iter()
        .any(|level| line.contains(level))
}

/// No token of Google's is anywhere in it, and neither is a secret of the user's.
fn assert_shows_no_token(run: &Output) {
    let texts = texts(run);
    assert!(texts.lines().any(is_of_the_log), "it was at trace level");
    for secret in [METADATA_TOKEN, USER_TOKEN, IMPERSONATED_TOKEN, "5ec4e7"] {
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
        stage.google.asked_for("/default/token"),
        1,
        "a token is kept for as long as it lives"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impersonated_account_signs_for_a_user() {
    let stage = Stage::new(&[IMPERSONATED_TOKEN]).await;
    let mut run = stage.run();
    run.env("GOOGLE_APPLICATION_CREDENTIALS", stage.impersonated());
    let run = output(run).await;
    stage.assert_is_stored(&run);
    assert_shows_no_token(&run);
    assert_eq!(stage.google.asked_for(":generateAccessToken"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_sign_is_told_which_role_is_missing() {
    let stage = Stage::new(&[]).await;
    let run = output(stage.run()).await;
    let told = told(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("Google answered 403"), "{told}");
    assert!(
        told.contains("roles/iam.serviceAccountTokenCreator"),
        "{told}"
    );
    assert_shows_no_token(&run);
    assert_eq!(
        stage.source.faults().range_requests(),
        0,
        "nothing was fetched"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes the 45 s after which it is told: make soak"]
async fn a_signature_that_never_comes_is_told() {
    let stage = Stage::new(&[IGNORED]).await;
    let run = output(stage.run()).await;
    let told = told(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("did not answer in 45 s"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_an_account_to_impersonate_is_told_how_to_have_one() {
    let stage = Stage::new(&[USER_TOKEN]).await;
    let file = stage.store.beside("user.json");
    let user = json!({
        "type": "authorized_user", "client_id": "client",
        "client_secret": "5ec4e7", "refresh_token": "5ec4e7"
    });
    std::fs::write(&file, user.to_string()).expect("written");
    let mut run = stage.run();
    run.env("GOOGLE_APPLICATION_CREDENTIALS", file);
    let run = output(run).await;
    let told = told(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("--impersonate-service-account"), "{told}");
}
