//! Connections that can be cut.
//!
//! What comes over a socket is handed on through a pipe: the socket is closed by ending whoever hands it on.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

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
    pub(super) fn connect(&self, socket: TcpStream) -> io::Result<Pipe> {
        let (mut near, far) = duplex(PIPE_BYTES);
        socket.set_nodelay(true)?;
        let mut socket = Prompt::new(socket)?;
        let task = tokio::spawn(async move {
            // A client that goes away is no failure.
            let _ = copy_bidirectional(&mut socket, &mut near).await;
        });
        let mut open = self.open();
        open.lines.retain(|_, task| !task.is_finished());
        open.last += 1;
        let line = Line(open.last);
        open.lines.insert(line, task.abort_handle());
        Ok(Pipe { line, inner: far })
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

/// A socket that acknowledges at once what it has read.
///
/// The client (1.2) leaves Nagle's algorithm on and sends a call in two pieces: it keeps the second back until the first
/// is acknowledged, which Linux puts off for 40 ms. Tests are to wait for what they are about.
struct Prompt {
    socket: TcpStream,
    #[cfg(target_os = "linux")]
    options: std::net::TcpStream,
}

#[cfg(target_os = "linux")]
impl Prompt {
    fn new(socket: TcpStream) -> io::Result<Self> {
        let socket = socket.into_std()?;
        let options = socket.try_clone()?;
        Ok(Self { socket: TcpStream::from_std(socket)?, options })
    }

    /// Holds until the socket sends something.
    fn acknowledge(&self) {
        use std::os::linux::net::TcpStreamExt;
        let _ = self.options.set_quickack(true);
    }
}

#[cfg(not(target_os = "linux"))]
impl Prompt {
    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn new(socket: TcpStream) -> io::Result<Self> {
        Ok(Self { socket })
    }

    #[expect(clippy::unused_self, reason = "as on Linux")]
    fn acknowledge(&self) {}
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.socket).poll_read(context, buffer));
        self.acknowledge();
        Poll::Ready(read)
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
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
