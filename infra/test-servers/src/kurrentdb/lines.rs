//! Connections that can be cut.
//!
//! What comes over a socket is handed on through a pipe: the socket is closed by ending whoever hands it on.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tonic::transport::server::Connected;

/// How much a pipe holds.
const PIPE_BYTES: usize = 64 << 10;

/// Names a connection. Requests carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line(u64);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    lines: HashMap<Line, AbortHandle>,
}

impl Lines {
    /// Takes a socket in, and returns the end that the server talks to.
    pub(super) fn connect(&self, mut socket: TcpStream) -> Pipe {
        let (mut near, far) = duplex(PIPE_BYTES);
        let _ = socket.set_nodelay(true);
        let task = tokio::spawn(async move {
            // A client that goes away is no failure.
            let _ = copy_bidirectional(&mut socket, &mut near).await;
        });
        let mut open = self.open();
        open.lines.retain(|_, task| !task.is_finished());
        open.last += 1;
        let line = Line(open.last);
        open.lines.insert(line, task.abort_handle());
        Pipe { line, inner: far }
    }

    pub(super) fn cut(&self, line: Line) {
        if let Some(task) = self.open().lines.remove(&line) {
            task.abort();
        }
    }

    pub(super) fn cut_all(&self) {
        for (_, task) in self.open().lines.drain() {
            task.abort();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's end of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    line: Line,
    inner: DuplexStream,
}

impl Connected for Pipe {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        self.line
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
