//! Connections that can be cut. Each has a task that copies between its socket and a pipe. When the task ends, the
//! socket is closed.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

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
    /// Connects a socket to a pipe, and returns the server's end of the pipe.
    pub(super) fn connect(&self, mut socket: TcpStream) -> io::Result<PipedConnection> {
        let (mut near, far) = duplex(PIPE_BYTES);
        socket.set_nodelay(true)?;
        let task = tokio::spawn(async move {
            // A client may disconnect at any time.
            let _ = copy_bidirectional(&mut socket, &mut near).await;
        });
        let mut open = self.lock_open();
        open.tasks.retain(|_, task| !task.is_finished());
        open.last_id += 1;
        let id = ConnectionId(open.last_id);
        open.tasks.insert(id, task.abort_handle());
        Ok(PipedConnection { id, inner: far })
    }

    pub(super) fn cut(&self, id: ConnectionId) {
        if let Some(task) = self.lock_open().tasks.remove(&id) {
            task.abort();
        }
    }

    pub(super) fn cut_all(&self) {
        for (_, task) in self.lock_open().tasks.drain() {
            task.abort();
        }
    }

    fn lock_open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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
