//! How objects of a bucket are stored, and at which store.

use std::collections::BTreeMap;

/// Where Google's store is.
const ENDPOINT_DEFAULT: &str = "https://storage.googleapis.com";

/// The customary environment variable for another store.
const EMULATOR_VARIABLE: &str = "STORAGE_EMULATOR_HOST";

/// How objects are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectOptions {
    /// Another store than Google's, as in `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// Another storage class than the bucket's, as in `NEARLINE`.
    pub storage_class: Option<String>,
    /// A key of Cloud KMS.
    pub kms_key: Option<String>,
    /// What readers may keep in caches, as in `public, max-age=3600`.
    pub cache_control: Option<String>,
}

impl ObjectOptions {
    pub(super) fn headers(&self) -> BTreeMap<String, String> {
        [
            ("x-goog-storage-class", &self.storage_class),
            ("x-goog-encryption-kms-key-name", &self.kms_key),
            ("cache-control", &self.cache_control),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect()
    }

    /// The store's URL: as asked for, or the environment's emulator, or Google's.
    pub(super) fn endpoint(&self) -> String {
        let emulator = || std::env::var(EMULATOR_VARIABLE).ok();
        let endpoint = self.endpoint.clone().or_else(emulator);
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        let endpoint = endpoint.trim_end_matches('/');
        match endpoint.contains("://") {
            true => endpoint.to_owned(),
            // The customary form of the emulator's variable has no scheme.
            false => format!("http://{endpoint}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_named_with_or_without_its_scheme() {
        for (endpoint, url) in [
            ("https://storage.example/", "https://storage.example"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ] {
            let options = ObjectOptions {
                endpoint: Some(endpoint.to_owned()),
                ..ObjectOptions::default()
            };
            assert_eq!(options.endpoint(), url);
        }
    }
}
