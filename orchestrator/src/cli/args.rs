//! Arguments that several commands share, and what they turn into.

use super::private_file::warn_if_shared;
use crate::archive::location::{ArchiveLocation, LocationError};
use crate::gcs::options::ObjectOptions;
use crate::host::embedded::DEADLINE_DEFAULT;
use crate::host::embedded::GuestProfile;
use crate::host::remote::ComponentUrl;
use crate::invoke_token;
use crate::run::dispatch::{DispatchSettings, PARALLEL_MAX};
use crate::run::plan::PrefixSet;
use crate::run::retry::{FIRST_WAIT_MAX, GIVE_UP_AFTER_DEFAULT};
use crate::run::{HostChoice, RemoteComponents};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use prefix_tar::limits::{WINDOW_DEFAULT, WINDOW_MAX};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::source::Encoding;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a graceful shutdown may take, unless the user says otherwise. It is what Kubernetes gives
/// a pod before it kills it.
const GRACE_SECONDS: u64 = 30;

/// A location as it is typed, with `{month}` replaced.
pub(super) fn location(text: &str) -> Result<ArchiveLocation, LocationError> {
    ArchiveLocation::at(text, jiff::Timestamp::now())
}

/// The parser of a mode, which names the modes that there are.
pub(super) fn mode() -> impl TypedValueParser<Value = Mode> {
    let names = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str));
    names.try_map(|name| name.parse::<Mode>())
}

/// Which prefixes.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Prefixes {
    /// The first N prefixes, 1 to 256
    #[arg(short = 'p', value_name = "N", value_parser = PrefixSet::first)]
    first: Option<PrefixSet>,

    /// Only these prefixes, single or as spans: 00-1F,AB  [default: all 256]
    #[arg(long = "prefixes", value_name = "LIST")]
    listed: Option<PrefixSet>,
}

impl Prefixes {
    pub(super) fn or_all(self) -> PrefixSet {
        self.first.or(self.listed).unwrap_or_else(PrefixSet::all)
    }
}

/// How objects are stored in a bucket.
#[derive(Debug, Args)]
pub(super) struct Objects {
    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// Storage class for gs://  [default: the bucket's]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,

    /// Cloud KMS key that encrypts the objects in gs://
    #[arg(long, value_name = "KEY")]
    kms_key: Option<String>,

    /// Cache-Control of the objects in gs://
    #[arg(long, value_name = "VALUE")]
    cache_control: Option<String>,
}

impl Objects {
    pub(super) fn options(self) -> ObjectOptions {
        ObjectOptions {
            endpoint: self.endpoint,
            storage_class: self.storage_class,
            kms_key: self.kms_key,
            cache_control: self.cache_control,
        }
    }
}

/// Components that run elsewhere.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Component that runs elsewhere: spin up, wasmtime serve, a cluster. Repeat it to share the prefixes among several
    #[arg(long = "component", value_name = "URL")]
    components: Vec<ComponentUrl>,

    /// File with the components' bearer token, made by `orchestrator token`; without it, $PREFIX_TAR_TOKEN holds the token
    #[arg(long, value_name = "FILE", requires = "components")]
    token_file: Option<PathBuf>,

    /// Loopback address where a folder receives the uploads of remote components; their UPLOAD_AUTHORITIES must name it
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9000",
        requires = "components"
    )]
    store_listen: SocketAddr,
}

impl Remote {
    pub(super) fn host(
        self,
        component_file: Option<PathBuf>,
        profile: Option<GuestProfile>,
    ) -> anyhow::Result<HostChoice> {
        if self.components.is_empty() {
            return Ok(HostChoice::Embedded {
                component_file,
                profile,
            });
        }
        let token = match &self.token_file {
            Some(file) => {
                warn_if_shared(file);
                invoke_token::read(file)?
            }
            None => invoke_token::from_environment()?,
        };
        Ok(HostChoice::Remote(RemoteComponents {
            components: self.components,
            token: Arc::new(token),
            store: self.store_listen,
        }))
    }
}

/// How a run is tuned.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Tuning {
    /// Concurrent invocations
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=PARALLEL_MAX as i64))]
    parallel: u16,

    /// Range requests in flight per invocation
    #[arg(long, value_name = "N", default_value_t = WINDOW_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=i64::from(WINDOW_MAX)))]
    window: u16,

    /// Encoding of range requests; auto selects gzip over a network and identity on this machine
    #[arg(long, value_name = "CODING", value_enum, default_value_t = EncodingChoice::Auto)]
    encoding: EncodingChoice,

    /// Stop an invocation after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEADLINE_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,

    /// Ride out an outage for this many seconds. Before the source has answered at all, a run waits only if this is set
    /// [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=604_800))]
    give_up_after: Option<u64>,
}

impl Tuning {
    pub(super) fn dispatch(self) -> DispatchSettings {
        DispatchSettings {
            parallel: usize::from(self.parallel),
            window: Some(self.window),
            first_wait_max: FIRST_WAIT_MAX,
            give_up_after: self
                .give_up_after
                .map_or(GIVE_UP_AFTER_DEFAULT, Duration::from_secs),
            waits_for_source: self.give_up_after.is_some(),
        }
    }

    pub(super) const fn encoding(self) -> Option<Encoding> {
        match self.encoding {
            EncodingChoice::Auto => None,
            EncodingChoice::Gzip => Some(Encoding::Gzip),
            EncodingChoice::Identity => Some(Encoding::Identity),
        }
    }

    pub(super) const fn deadline(self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

/// How a run is stopped.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Grace {
    /// After Ctrl-C or SIGTERM, abort the invocations that are still in progress after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE_SECONDS, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: u64,
}

impl Grace {
    pub(super) const fn duration(self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EncodingChoice {
    Auto,
    Gzip,
    Identity,
}
