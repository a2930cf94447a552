//! Signing: V4 signed URLs for an object's PUT, by Google's own client, and the service-account key that an
//! ephemeral store trusts. What is uploaded, and when, is left to `destination` and `dispatch`.

use anyhow::Context as _;
use google_cloud_auth::credentials::service_account;
use google_cloud_auth::signer::Signer;
use google_cloud_storage::builder::storage::SignedUrlBuilder;
use prefix_tar::job::SignedUrl;
use prefix_tar::store_answer::is_passing_status;
use ring::signature::KeyPair as _;
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The size of a generated key, in bits: the least that V4 signatures are made with.
const KEY_BITS: usize = 2048;

/// One signature. A key at hand takes a millisecond; Google, who is asked over the network, is asked again for a while.
const SIGN_TIME_MAX: Duration = Duration::from_secs(45);

/// A key file is about 2 KB.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A service-account key, in the form of Google's key files. It is a secret: `Debug` shows the account only.
#[derive(Clone, Serialize, Deserialize)]
pub struct ServiceAccountKey {
    #[serde(rename = "type")]
    kind: String,
    project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    #[serde(default)]
    token_uri: String,
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServiceAccountKey({})", self.client_email)
    }
}

impl ServiceAccountKey {
    /// Makes a key for a local store. It takes about a tenth of a second.
    ///
    /// # Errors
    /// The system has no randomness, or the key cannot be encoded.
    pub fn generate() -> anyhow::Result<Self> {
        let key = rsa::PrivateKey::new(&mut rand::rng(), KEY_BITS)
            .context("cannot generate a service-account key")?;
        let private_key = key
            .to_pkcs8_pem(LineEnding::LF)
            .context("cannot encode the service-account key")?
            .to_string();
        let id: u64 = rand::random();
        Ok(Self {
            kind: "service_account".to_owned(),
            project_id: "local".to_owned(),
            private_key_id: format!("{id:016x}"),
            private_key,
            client_email: "orchestrator@local.iam.gserviceaccount.com".to_owned(),
            token_uri: String::new(),
        })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, or is no service-account key. The message does not repeat its content.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let metadata = std::fs::metadata(path)
            .with_context(|| format!("cannot read the service-account key {shown}"))?;
        anyhow::ensure!(
            metadata.len() <= KEY_FILE_BYTES_MAX,
            "{shown} is no service-account key: it has {} bytes",
            metadata.len()
        );
        let text = std::fs::read(path)
            .with_context(|| format!("cannot read the service-account key {shown}"))?;
        serde_json::from_slice(&text).map_err(|error| {
            anyhow::anyhow!(
                "{shown} is no service-account key: not the JSON of one at line {}",
                error.line()
            )
        })
    }

    /// Writes the key file, readable by its owner only.
    ///
    /// # Errors
    /// The file exists already or cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let text = serde_json::to_vec_pretty(self)?;
        options
            .open(path)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("cannot write the service-account key {}", path.display()))
    }

    /// The account that signs.
    pub fn client_email(&self) -> &str {
        &self.client_email
    }

    /// The public key as ring verifies with it: the DER of an RSA public key (PKCS#1).
    ///
    /// # Errors
    /// The private key is no PKCS#8 RSA key of at least 2,048 bits.
    pub fn public_key(&self) -> anyhow::Result<Vec<u8>> {
        use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
        // Neither error is shown: both could quote the key.
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.private_key.as_bytes())
            .ok()
            .context("the service-account key's private key is not PKCS#8 in PEM")?;
        let pair = ring::signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .ok()
            .context("the service-account key's private key is no RSA key of 2048 bits or more")?;
        Ok(pair.public_key().as_ref().to_vec())
    }
}

/// Signs URLs of one bucket at one endpoint.
#[derive(Debug)]
pub struct UrlSigner {
    signer: Signer,
    endpoint: String,
    bucket: String,
}

impl UrlSigner {
    /// A signer for `bucket` at `endpoint` (`http://127.0.0.1:9000`), with a key that is at hand.
    ///
    /// # Errors
    /// The key is not usable.
    pub fn new(key: &ServiceAccountKey, endpoint: String, bucket: String) -> anyhow::Result<Self> {
        crate::tls::install_crypto_provider();
        let key = serde_json::to_value(key)?;
        let signer = service_account::Builder::new(key)
            .build_signer()
            .map_err(|_| anyhow::anyhow!("the service-account key is not usable for signing"))?;
        Ok(Self {
            signer,
            endpoint,
            bucket,
        })
    }

    /// A signer for `bucket` at `endpoint`, with the credentials that Google's clients find in the environment.
    ///
    /// # Errors
    /// There are none, or none that can sign.
    pub fn of_environment(endpoint: String, bucket: String) -> anyhow::Result<Self> {
        crate::tls::install_crypto_provider();
        let signer = google_cloud_auth::credentials::Builder::default()
            .build_signer()
            // The error of a key file that cannot be parsed could quote it.
            .map_err(|_| {
                anyhow::anyhow!(
                    "there are no Google credentials that can sign; name a service-account key by GOOGLE_APPLICATION_CREDENTIALS, or sign in by `gcloud auth application-default login --impersonate-service-account=ACCOUNT`"
                )
            })?;
        Ok(Self {
            signer,
            endpoint,
            bucket,
        })
    }

    /// Signs one request for `object`. Each of `headers` has to be sent with it as it is given here.
    ///
    /// # Errors
    /// The key does not sign.
    pub async fn sign(
        &self,
        method: http::Method,
        object: &str,
        headers: &BTreeMap<String, String>,
        expiry: Duration,
    ) -> anyhow::Result<SignedUrl> {
        let bucket = format!("projects/_/buckets/{}", self.bucket);
        let mut builder = SignedUrlBuilder::for_object(bucket, object)
            .with_method(method)
            .with_endpoint(&self.endpoint)
            .with_expiration(expiry);
        for (name, value) in headers {
            builder = builder.with_header(name, value);
        }
        let signed = tokio::time::timeout(SIGN_TIME_MAX, builder.sign_with(&self.signer))
            .await
            .map_err(|_| {
                anyhow::anyhow!(
                    "cannot sign a URL for {object}: Google, who signs for the account, did not answer in {} s",
                    SIGN_TIME_MAX.as_secs()
                )
            })?;
        let text = signed.map_err(|error| not_signed(object, &error))?;
        Ok(SignedUrl::new(text)?)
    }
}

/// Why a URL could not be signed, and what to do about it. Google's errors repeat each other, so of their chain only
/// what names the cause is told.
fn not_signed(object: &str, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let chain = || std::iter::successors(Some(error), |error| error.source());
    let status = chain()
        .filter_map(|error| error.downcast_ref::<google_cloud_storage::Error>())
        .find_map(google_cloud_storage::Error::http_status_code);
    match status {
        Some(status @ (401 | 403)) => anyhow::anyhow!(
            "cannot sign a URL for {object}: Google answered {status}; iamcredentials.googleapis.com has to be enabled in the project, and who asks Google to sign for an account needs roles/iam.serviceAccountTokenCreator on it"
        ),
        Some(status) if is_passing_status(status) => {
            anyhow::anyhow!("cannot sign a URL for {object}: Google answered {status}; try later")
        }
        Some(status) => anyhow::anyhow!(
            "cannot sign a URL for {object}: Google answered {status}; is the account that signs the right one?"
        ),
        None => {
            let cause = chain().last().unwrap_or(error);
            anyhow::anyhow!(
                "cannot sign a URL for {object}: GOOGLE_APPLICATION_CREDENTIALS names no key that signs by itself, and Google cannot be asked to: {cause}"
            )
        }
    }
}
