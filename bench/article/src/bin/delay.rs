//! A relay that stands for distance: it forwards each direction of a connection after half the delay, so that a request
//! over it takes a round trip longer. Connecting itself costs nothing, and throughput is limited only by the queue.

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until};

const USAGE: &str = "\
Usage: delay LISTEN UPSTREAM MILLISECONDS

Listens on LISTEN, prints the address, and forwards every connection to UPSTREAM with this much more latency in a round
trip. Both addresses are IP:PORT; port 0 of LISTEN lets the system choose.";

/// Read at once at most.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Chunks on their way in one direction of a connection: more than a connection carries in half the delay. When the
/// queue is full, backpressure stops the sender.
const QUEUED_CHUNKS_MAX: usize = 64;

/// By how much the runtime's timer is late on average: it counts whole milliseconds and rounds up.
const TIMER_LATENESS: Duration = Duration::from_micros(1400);

/// Bytes, and when they arrive at the other end.
type Chunk = (Instant, Bytes);

#[tokio::main]
async fn main() -> ExitCode {
    match relay().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

async fn relay() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ensure!(arguments.len() == 3, "three arguments are needed");
    let upstream: SocketAddr = arguments[1].parse().context("UPSTREAM")?;
    let milliseconds: u64 = arguments[2].parse().context("MILLISECONDS")?;
    let one_way = Duration::from_millis(milliseconds) / 2;
    let listener = TcpListener::bind(&arguments[0]).await.context("LISTEN")?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A connection that breaks ends on both sides: the halves are dropped.
            let _ = forward(client, upstream, one_way).await;
        });
    }
}

/// Forwards a connection until both directions have ended or one has failed.
async fn forward(client: TcpStream, upstream: SocketAddr, one_way: Duration) -> anyhow::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::try_join!(
        direction(client_read, server_write, one_way),
        direction(server_read, client_write, one_way),
    )?;
    Ok(())
}

async fn direction(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    one_way: Duration,
) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS_MAX);
    tokio::try_join!(receive(from, sender, one_way), deliver(receiver, to))?;
    Ok(())
}

async fn receive(
    mut from: OwnedReadHalf,
    queue: Sender<Chunk>,
    one_way: Duration,
) -> anyhow::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES_MAX);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let arrival = Instant::now() + one_way.saturating_sub(TIMER_LATENESS);
        queue.send((arrival, buffer.split().freeze())).await?;
    }
}

async fn deliver(mut queue: Receiver<Chunk>, mut to: OwnedWriteHalf) -> anyhow::Result<()> {
    while let Some((arrival, bytes)) = queue.recv().await {
        sleep_until(arrival).await;
        to.write_all(&bytes).await?;
    }
    Ok(to.shutdown().await?)
}
