//! The connection below the Docker client: one a request, with a bound on what is read.
//!
//! Owns: nothing between two requests. Promises: an answer without an end costs a bounded number of bytes, because the client above
//! collects whole bodies. Never: carries a stream; those have [`super::super::http`].

use crate::backend::container::http::Wire;
use bollard::BollardRequest;
use bollard::errors::Error;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Bytes of an answer, head and all. The longest honest one is a list of all containers.
pub(super) const MAX_ANSWER: usize = 8 << 20;

/// A client whose every request has a connection of its own.
pub(super) fn client(wire: Wire) -> Result<bollard::Docker, Error> {
    let transport = move |request: BollardRequest| send(wire.clone(), request);
    // The backend above puts a deadline on every question; this one only has to be longer.
    let timeout = 3600;
    let at = Some("http://engine");
    bollard::Docker::connect_with_custom_transport(
        transport,
        at,
        timeout,
        bollard::API_DEFAULT_VERSION,
    )
}

async fn send(wire: Wire, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
    // As it is: `told::fault` takes it out again.
    let inner = wire.connect().await.map_err(io::Error::other)?;
    let stream = Bounded {
        inner,
        left: MAX_ANSWER,
    };
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let host = hyper::header::HeaderValue::from_static("engine");
    request.headers_mut().insert(HOST, host);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(256 << 10)
        .handshake(TokioIo::new(stream))
        .await?;
    // It ends with the request: hyper closes what nobody waits for.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?)
}

/// A connection from which only so much is read.
struct Bounded {
    inner: UnixStream,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.left = self.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
