//! A source whose replies a test chooses.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use orchestrator::http_server::HttpServer;
use orchestrator::range_api::source::RangeSource;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::source::SourceUrl;
use tokio::net::TcpListener;

/// How a source answers a request.
pub(crate) enum Reply {
    /// 200 with this body.
    Body(Bytes),
    /// This status, without a body.
    Status(u16),
    /// No answer for as long as the test runs.
    Never,
}

/// A source in this process.
pub(crate) struct Source {
    server: HttpServer,
}

impl Source {
    /// A source that answers the request for each range with the result of `reply`.
    pub(crate) async fn answering(
        reply: impl Fn(RangeName) -> Reply + Send + Sync + Clone + 'static,
    ) -> Self {
        let server = HttpServer::start(listener().await, move |request| {
            let reply = reply.clone();
            async move {
                let name = request.uri().path().trim_start_matches("/range/");
                let range = name.parse().expect("a range");
                answer(reply(range)).await
            }
        });
        Self {
            server: server.expect("a server"),
        }
    }

    /// The range API that `serve` provides, over a folder.
    pub(crate) async fn of_folder(folder: &std::path::Path) -> Self {
        Self::of(RangeSource::folder(folder.to_owned())).await
    }

    /// The range API that `serve` provides, over ranges from anywhere.
    pub(crate) async fn of(source: RangeSource) -> Self {
        let server = orchestrator::range_api::start(listener().await, source);
        Self {
            server: server.expect("a server"),
        }
    }

    pub(crate) fn url(&self) -> SourceUrl {
        format!("http://{}", self.server.address())
            .parse()
            .expect("a source")
    }
}

/// Listens on a free port that the system chooses.
pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a free port")
}

async fn answer(reply: Reply) -> Response<Full<Bytes>> {
    match reply {
        Reply::Body(body) => Response::new(Full::new(body)),
        Reply::Status(status) => Response::builder()
            .status(status)
            .body(Full::default())
            .expect("a response"),
        Reply::Never => std::future::pending().await,
    }
}

/// A valid body for `range`, of as many lines as fit into `bytes`.
pub(crate) fn valid_body(range: RangeName, bytes: usize) -> Bytes {
    const LINE_BYTES: usize = 35 + ":1\r\n".len();
    let index = range.index();
    let lines: String = (0..bytes / LINE_BYTES)
        .map(|number| format!("{number:031X}{index:04X}:1\r\n"))
        .collect();
    Bytes::from(lines)
}
