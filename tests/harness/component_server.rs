//! Serves the component over a socket, like `spin up` and `wasmtime serve`, but on the embedded
//! host.

use super::source::listener;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use orchestrator::host::embedded::{AnswerBody, EmbeddedHost};
use orchestrator::host::remote::ComponentUrl;
use orchestrator::http_server::HttpServer;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// Chunks of a response body that are queued for sending.
const QUEUED_CHUNKS_MAX: usize = 4;

/// A component that listens on a port of its own.
pub(crate) struct ComponentServer {
    server: Option<HttpServer>,
    url: ComponentUrl,
    invocations: Arc<AtomicU32>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl ComponentServer {
    /// Serves the component that `host` runs.
    pub(crate) async fn start(host: Arc<EmbeddedHost>) -> Self {
        let invocations = Arc::<AtomicU32>::default();
        let tasks = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (server_invocations, server_tasks) = (Arc::clone(&invocations), Arc::clone(&tasks));
        let server = HttpServer::start(listener().await, move |request| {
            server_invocations.fetch_add(1, Ordering::Relaxed);
            let (sender, head) = oneshot::channel();
            let task = tokio::spawn(invoke(Arc::clone(&host), request, sender));
            server_tasks
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
            tasks,
        }
    }

    pub(crate) const fn url(&self) -> &ComponentUrl {
        &self.url
    }

    /// How many requests have arrived.
    pub(crate) fn invocations(&self) -> u32 {
        self.invocations.load(Ordering::Relaxed)
    }

    /// Stops at once and aborts the invocations in progress.
    pub(crate) fn kill(&mut self) {
        drop(self.server.take());
        for task in self.tasks.lock().expect("not poisoned").drain(..) {
            task.abort();
        }
    }
}

pub(crate) fn internal_error() -> Response<AnswerBody> {
    let body = StreamBody::new(futures::stream::empty()).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Answers one request with the component that `host` runs.
pub(crate) async fn invoke(
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
        let (parts, mut body): (_, AnswerBody) = response.into_parts();
        let (sender, mut chunks) = mpsc::channel::<Bytes>(QUEUED_CHUNKS_MAX);
        let stream = futures::stream::poll_fn(move |context| {
            chunks
                .poll_recv(context)
                .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
        });
        let stream = StreamBody::new(stream).boxed_unsync();
        head.send(Response::from_parts(parts, stream)).ok()?;
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(chunk) = frame.into_data() {
                sender.send(chunk).await.ok()?;
            }
        }
        Some(())
    };
    // If the instance dies, the response ends without a final event.
    let _ = host.call(request, answer).await;
}
