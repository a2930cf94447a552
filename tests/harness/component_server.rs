//! The component behind a socket, as `spin up` and `wasmtime serve` have it: the embedded host, with a server in front.

use super::source::listener;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use orchestrator::host::embedded::EmbeddedHost;
use orchestrator::host::remote::ComponentUrl;
use orchestrator::http_server::HttpServer;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

type AnswerBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Pieces of an answer on their way.
const PIECES_MAX: usize = 4;

/// A component behind a socket.
pub(crate) struct ComponentServer {
    server: Option<HttpServer>,
    url: ComponentUrl,
    invocations: Arc<AtomicU32>,
    under_way: Arc<Mutex<Vec<AbortHandle>>>,
}

impl ComponentServer {
    pub(crate) async fn start(host: Arc<EmbeddedHost>) -> Self {
        let invocations = Arc::<AtomicU32>::default();
        let under_way = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (counted, noted) = (Arc::clone(&invocations), Arc::clone(&under_way));
        let server = HttpServer::start(listener().await, move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            let (sender, head) = oneshot::channel();
            let task = tokio::spawn(invoke(Arc::clone(&host), request, sender));
            noted
                .lock()
                .expect("not poisoned")
                .push(task.abort_handle());
            async move { head.await.unwrap_or_else(|_| internal_error()) }
        });
        let server = server.expect("a server");
        let url = format!("http://{}", server.address());
        Self {
            url: url.parse().expect("a URL"),
            server: Some(server),
            invocations,
            under_way,
        }
    }

    pub(crate) const fn url(&self) -> &ComponentUrl {
        &self.url
    }

    pub(crate) fn invocations(&self) -> u32 {
        self.invocations.load(Ordering::Relaxed)
    }

    /// Ends at once, with everything that is under way.
    pub(crate) fn kill(&mut self) {
        drop(self.server.take());
        for task in self.under_way.lock().expect("not poisoned").drain(..) {
            task.abort();
        }
    }
}

fn internal_error() -> Response<AnswerBody> {
    let body = StreamBody::new(futures::stream::empty()).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response
}

async fn invoke(
    host: Arc<EmbeddedHost>,
    request: Request<Incoming>,
    head: oneshot::Sender<Response<AnswerBody>>,
) {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return;
    };
    let mut request = Request::from_parts(parts, body.to_bytes());
    *request.uri_mut() = http::Uri::from_static("http://component/");
    let answer = async |response: Response<_>| {
        let (parts, mut body): (_, wasmtime_wasi_http::p2::body::HyperOutgoingBody) =
            response.into_parts();
        let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        let stream = futures::stream::poll_fn(move |context| {
            pieces
                .poll_recv(context)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        });
        let stream = StreamBody::new(stream).boxed_unsync();
        head.send(Response::from_parts(parts, stream)).ok()?;
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(piece) = frame.into_data() {
                sender.send(piece).await.ok()?;
            }
        }
        Some(())
    };
    // An instance that dies ends its answer without a final event.
    let _ = host
        .call(request, MemoryOutputPipe::new(4096), answer)
        .await;
}
