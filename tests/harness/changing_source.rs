//! A source whose ranges change, and which answers conditional requests.

use super::faulty_source::body_of;
use super::source::listener;
use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH, LAST_MODIFIED};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use md5::{Digest as _, Md5};
use orchestrator::http_server::HttpServer;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::source::SourceUrl;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The least lines of a range that has not changed.
const LINES: u64 = 5;

/// The ETags of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Etags {
    Strong,
    Weak,
    Missing,
}

/// What a source was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// Answers with a body.
    pub(crate) bodies: u64,
}

/// Which ranges have changed, in ranges of each 1,000, from this index on; and by how many lines.
#[derive(Clone, Copy, Default)]
struct Change {
    per_mille: u16,
    first: u16,
    lines: u64,
}

impl Change {
    fn concerns(self, range: RangeName) -> bool {
        // Spread evenly: 7 and 1,000 have no common factor.
        range.index() >= self.first && (range.index() * 7) % 1000 < self.per_mille
    }
}

struct State {
    etags: Etags,
    change: Change,
    /// More lines of single ranges.
    more: BTreeMap<RangeName, u64>,
    /// A prefix whose ranges are not found.
    refused: Option<Prefix>,
    /// Whether every conditional request gets a 304 with another ETag.
    is_confused: bool,
    counts: Counts,
}

impl State {
    fn body(&self, range: RangeName) -> Vec<u8> {
        let changed = if self.change.concerns(range) {
            self.change.lines
        } else {
            0
        };
        let more = self.more.get(&range).copied().unwrap_or(0);
        body_of(range, LINES + changed + more)
    }

    fn answer(&mut self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let name = request.uri().path().trim_start_matches("/range/");
        let range: RangeName = name.parse().expect("a range");
        let body = self.body(range);
        let digest = hex::encode(Md5::digest(&body));
        let etag = match self.etags {
            Etags::Strong => Some(format!("\"{digest}\"")),
            Etags::Weak => Some(format!("W/\"{digest}\"")),
            Etags::Missing => None,
        };
        self.counts.requests += 1;
        if self.refused == Some(range.prefix()) {
            let refused = Response::builder().status(StatusCode::NOT_FOUND);
            return refused.body(Full::default()).expect("a response");
        }
        let asked = request.headers().get(IF_NONE_MATCH);
        let mut response =
            Response::builder().header(LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT");
        if self.is_confused && asked.is_some() {
            let response = response.header(ETAG, "\"other\"");
            let response = response.status(StatusCode::NOT_MODIFIED);
            return response.body(Full::default()).expect("a response");
        }
        if let Some(etag) = &etag {
            response = response.header(ETAG, etag);
        }
        let is_known =
            asked.is_some_and(|asked| Some(asked.as_bytes()) == etag.as_deref().map(str::as_bytes));
        if is_known {
            let response = response.status(StatusCode::NOT_MODIFIED);
            return response.body(Full::default()).expect("a response");
        }
        self.counts.bodies += 1;
        response.body(Full::new(body.into())).expect("a response")
    }
}

/// A source in this process.
pub(crate) struct ChangingSource {
    server: HttpServer,
    state: Arc<Mutex<State>>,
}

impl ChangingSource {
    pub(crate) async fn start(etags: Etags) -> Self {
        let state = Arc::new(Mutex::new(State {
            etags,
            change: Change::default(),
            more: BTreeMap::new(),
            refused: None,
            is_confused: false,
            counts: Counts::default(),
        }));
        let served = Arc::clone(&state);
        let server = HttpServer::start(listener().await, move |request| {
            let response = locked(&served).answer(&request);
            async { response }
        });
        Self {
            server: server.expect("a server"),
            state,
        }
    }

    pub(crate) fn url(&self) -> SourceUrl {
        let url = format!("http://{}", self.server.address());
        url.parse().expect("a source")
    }

    /// Adds `lines` to so many ranges of each 1,000, from the index `first` on.
    pub(crate) fn change(&self, per_mille: u16, first: u16, lines: u64) {
        locked(&self.state).change = Change {
            per_mille,
            first,
            lines,
        };
    }

    /// Adds `lines` to one range.
    pub(crate) fn change_only(&self, range: RangeName, lines: u64) {
        *locked(&self.state).more.entry(range).or_default() += lines;
    }

    /// The present body of a range.
    pub(crate) fn body(&self, range: RangeName) -> Vec<u8> {
        locked(&self.state).body(range)
    }

    /// How many ranges of a prefix [`Self::change`] has changed.
    pub(crate) fn changed_ranges(&self, prefix: &str) -> u64 {
        let change = locked(&self.state).change;
        let ranges = super::prefix(prefix).ranges();
        ranges.filter(|range| change.concerns(*range)).count() as u64
    }

    /// Answers 404 to every request for a range of this prefix from now on.
    pub(crate) fn refuse(&self, prefix: Prefix) {
        locked(&self.state).refused = Some(prefix);
    }

    /// Answers conditional requests with a 304 for another ETag from now on.
    pub(crate) fn confuse(&self) {
        locked(&self.state).is_confused = true;
    }

    /// What was asked for since the last call.
    pub(crate) fn take_counts(&self) -> Counts {
        std::mem::take(&mut locked(&self.state).counts)
    }
}

fn locked(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
