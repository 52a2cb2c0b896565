//! Connections that can be cut: a task copies between each socket and a pipe, and the socket is closed when the task
//! ends.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tonic::transport::server::Connected;

/// The capacity of a pipe.
const PIPE_BYTES: usize = 64 << 10;

/// The id of a connection, in the extensions of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(u64);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    last_id: u64,
    tasks: HashMap<ConnectionId, AbortHandle>,
}

impl Connections {
    /// Connects a socket to a pipe, and returns the server's end of it.
    pub(super) fn connect(&self, socket: TcpStream) -> io::Result<PipedConnection> {
        let (mut near, far) = duplex(PIPE_BYTES);
        socket.set_nodelay(true)?;
        let mut socket = QuickAckSocket::new(socket)?;
        let task = tokio::spawn(async move {
            // A client may disconnect at any time.
            let _ = copy_bidirectional(&mut socket, &mut near).await;
        });
        let mut open = self.open();
        open.tasks.retain(|_, task| !task.is_finished());
        open.last_id += 1;
        let id = ConnectionId(open.last_id);
        open.tasks.insert(id, task.abort_handle());
        Ok(PipedConnection { id, inner: far })
    }

    pub(super) fn cut(&self, id: ConnectionId) {
        if let Some(task) = self.open().tasks.remove(&id) {
            task.abort();
        }
    }

    pub(super) fn cut_all(&self) {
        for (_, task) in self.open().tasks.drain() {
            task.abort();
        }
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that acknowledges received data immediately.
///
/// The client (1.2) leaves Nagle's algorithm on and sends a call in two parts. It sends the second part when the first one
/// is acknowledged, which Linux delays by 40 ms.
struct QuickAckSocket {
    socket: TcpStream,
    #[cfg(target_os = "linux")]
    options: std::net::TcpStream,
}

#[cfg(target_os = "linux")]
impl QuickAckSocket {
    fn new(socket: TcpStream) -> io::Result<Self> {
        let socket = socket.into_std()?;
        let options = socket.try_clone()?;
        Ok(Self { socket: TcpStream::from_std(socket)?, options })
    }

    /// The option is reset when the socket sends data, so it is set after each read.
    fn acknowledge(&self) {
        use std::os::linux::net::TcpStreamExt;
        let _ = self.options.set_quickack(true);
    }
}

#[cfg(not(target_os = "linux"))]
impl QuickAckSocket {
    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn new(socket: TcpStream) -> io::Result<Self> {
        Ok(Self { socket })
    }

    #[expect(clippy::unused_self, reason = "as on Linux")]
    fn acknowledge(&self) {}
}

impl AsyncRead for QuickAckSocket {
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

impl AsyncWrite for QuickAckSocket {
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
pub(super) struct PipedConnection {
    id: ConnectionId,
    inner: DuplexStream,
}

impl Connected for PipedConnection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for PipedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for PipedConnection {
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
