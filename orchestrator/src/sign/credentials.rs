//! Finds the credentials that sign, where Google's clients find them.

use super::exchange::ANSWER_BYTES_MAX;
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use reqsign_core::{Context, ProvideCredential};
use reqsign_google::{Credential, VmMetadataCredentialProvider};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Requests to the metadata server before the machine counts as one without. In a new pod of a
/// cluster, the server takes a few seconds to come up.
const METADATA_ATTEMPTS_MAX: u32 = 3;

/// The wait between these requests.
const METADATA_WAIT: Duration = Duration::from_secs(1);

/// An e-mail address, in bytes.
const EMAIL_BYTES_MAX: usize = 254;

/// The file of credentials, if the environment names one or gcloud has written one.
pub(super) fn find_file() -> Option<PathBuf> {
    find_file_in(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

fn find_file_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(path.into());
    }
    let folder = variable("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| {
        let home = PathBuf::from(variable("HOME")?);
        Some(home.join(".config/gcloud"))
    })?;
    let path = folder.join("application_default_credentials.json");
    path.is_file().then_some(path)
}

/// A file of credentials, in the form that reqsign takes. It is a secret.
pub(super) struct CredentialFile {
    pub(super) json: String,
    /// Whether it holds the key of a service account, which signs without Google.
    pub(super) is_key: bool,
}

/// Reads a file of credentials.
///
/// # Errors
/// It cannot be read, or its credentials cannot sign. No message quotes it.
pub(super) fn read_file(path: &Path) -> anyhow::Result<CredentialFile> {
    let shown = path.display();
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(ANSWER_BYTES_MAX as u64 + 1)
                .read_to_end(&mut text)
        })
        .with_context(|| format!("cannot read the Google credentials {shown}"))?;
    ensure!(
        text.len() <= ANSWER_BYTES_MAX,
        "{shown} is not a file of Google credentials: it has more than {ANSWER_BYTES_MAX} bytes"
    );
    let mut credentials: Value = serde_json::from_slice(&text).map_err(|error| {
        let line = error.line();
        anyhow::anyhow!("{shown} is not a file of Google credentials: invalid JSON at line {line}")
    })?;
    check(&mut credentials)
        .with_context(|| format!("the Google credentials {shown} cannot sign"))?;
    Ok(CredentialFile {
        json: credentials.to_string(),
        is_key: credentials["type"] == "service_account",
    })
}

fn check(credentials: &mut Value) -> anyhow::Result<()> {
    match kind(credentials) {
        "service_account" => Ok(()),
        "impersonated_service_account" => {
            let source = kind(&credentials["source_credentials"]);
            ensure!(
                source == "authorized_user",
                "their source_credentials have the type {source}; supported is authorized_user"
            );
            Ok(())
        }
        "external_account" => check_external_account(credentials),
        "authorized_user" => bail!(
            "they are a user's, and only service accounts sign; run `gcloud auth application-default login --impersonate-service-account=ACCOUNT`"
        ),
        kind => bail!(
            "their type is {kind}; supported are service_account, impersonated_service_account and external_account"
        ),
    }
}

fn kind(credentials: &Value) -> &str {
    credentials["type"].as_str().unwrap_or("missing")
}

fn check_external_account(credentials: &mut Value) -> anyhow::Result<()> {
    ensure!(
        credentials["service_account_impersonation_url"].is_string(),
        "they name no service account that signs; create them with `gcloud iam workload-identity-pools create-cred-config --service-account=ACCOUNT`"
    );
    let source = &mut credentials["credential_source"];
    ensure!(
        source.get("executable").is_none(),
        "their token comes from an executable, which is not supported; supported are files, URLs and AWS"
    );
    // Plain text is the default, which reqsign does not know.
    let has_no_format = source.get("format").is_none();
    if let Some(source) = source.as_object_mut().filter(|_| has_no_format) {
        source.insert("format".to_owned(), json!({ "type": "text" }));
    }
    Ok(())
}

/// The service account of the machine: its metadata server gives the tokens, IAM Credentials signs.
#[derive(Clone, Debug)]
pub(super) struct MachineAccount {
    host: String,
    email: Arc<OnceLock<String>>,
}

impl MachineAccount {
    pub(super) fn new(host: String) -> Self {
        Self {
            host,
            email: Arc::default(),
        }
    }

    /// Whether the metadata server has answered once.
    pub(super) fn is_known(&self) -> bool {
        self.email.get().is_some()
    }

    async fn email(&self, context: &Context) -> reqsign_core::Result<&str> {
        if let Some(email) = self.email.get() {
            return Ok(email);
        }
        let mut attempts = 1;
        let answer = loop {
            match context.http_send(self.email_request()?).await {
                Ok(answer) => break answer,
                Err(error) if attempts == METADATA_ATTEMPTS_MAX => return Err(error),
                Err(_) => tokio::time::sleep(METADATA_WAIT).await,
            }
            attempts += 1;
        };
        let is_of_google = answer
            .headers()
            .get("metadata-flavor")
            .is_some_and(|flavor| flavor == "Google");
        let email = std::str::from_utf8(answer.body()).ok().map(str::trim);
        let email = email.filter(|email| is_of_google && is_email(email));
        let email = email.ok_or_else(|| {
            let message = format!("{} answers as no metadata server of Google's", self.host);
            reqsign_core::Error::config_invalid(message)
        })?;
        Ok(self.email.get_or_init(|| email.to_owned()))
    }

    fn email_request(&self) -> reqsign_core::Result<http::Request<Bytes>> {
        let host = &self.host;
        let url =
            format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/email");
        Ok(http::Request::get(url)
            .header("metadata-flavor", "Google")
            .body(Bytes::new())?)
    }
}

/// Whether the text is an e-mail address that needs no escaping in a path.
fn is_email(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.-_".contains(&byte);
    text.len() <= EMAIL_BYTES_MAX && text.contains('@') && text.bytes().all(is_plain)
}

impl ProvideCredential for MachineAccount {
    type Credential = Credential;

    async fn provide_credential(
        &self,
        context: &Context,
    ) -> reqsign_core::Result<Option<Credential>> {
        let email = self.email(context).await?;
        let tokens = VmMetadataCredentialProvider::new().with_endpoint(&self.host);
        let credential = tokens.provide_credential(context).await?;
        Ok(credential.map(|credential| credential.with_signer_email(email)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_where_google_s_clients_find_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let gcloud = folder.path().join(".config/gcloud");
        std::fs::create_dir_all(&gcloud).expect("created");
        let written = gcloud.join("application_default_credentials.json");
        let home = |name: &str| (name == "HOME").then(|| folder.path().into());
        assert_eq!(find_file_in(home), None);
        std::fs::write(&written, "{}").expect("written");
        assert_eq!(find_file_in(home), Some(written.clone()));
        let configured = |name: &str| (name == "CLOUDSDK_CONFIG").then(|| gcloud.clone().into());
        assert_eq!(find_file_in(configured), Some(written));
        // A file that is named is the one, whether it is there or not.
        let named = |_: &str| Some("named.json".into());
        assert_eq!(find_file_in(named), Some(PathBuf::from("named.json")));
        assert_eq!(find_file_in(|_| None), None);
    }

    #[test]
    fn a_file_that_is_not_of_credentials_is_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        for (text, expected) in [
            ("5ec4e7".to_owned(), "invalid JSON at line 1"),
            (
                r#"{"private_key":"5ec4e7"#.to_owned(),
                "invalid JSON at line 1",
            ),
            ("5ec4e7".repeat(20_000), "more than 65536 bytes"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = read_file(&path).err().expect("not usable");
            let shown = format!("{error:#} {error:?}");
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains("5ec4e7"), "{shown}");
        }
    }

    #[test]
    fn an_account_s_email_is_plain_enough_for_a_path() {
        assert!(is_email("mirror@project.iam.gserviceaccount.com"));
        for text in ["", "mirror", "a/b@c", "a@b?c", "a@b:c", "a@b c"] {
            assert!(!is_email(text), "{text}");
        }
    }
}
