//! The servers that are compared: processes of their own, ended with the run.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Server {
    /// The chat API in one process, on embedded engines in this folder.
    pub async fn chat_api(program: &Path, folder: &Path, arguments: &[&str]) -> io::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen-addr", &address, "--log", "warn", "--data-dir"])
            .arg(folder)
            .args(arguments);
        // Nothing of the caller's surroundings may make a difference.
        for name in
            ["EVENT_STORE_URL", "REDIS_URL", "DATABASE_URL", "SEARCH_INDEX_DIR", "ADMIN_TOKEN", "RATE_LIMIT"]
        {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { child, address };
        server.wait().await?;
        Ok(server)
    }

    /// The bare handler.
    pub fn bare(answer: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare");
        if let Some(answer) = answer {
            command.arg("--answer").arg(answer);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut address)?;
        }
        Ok(Self { child, address: address.trim().to_owned() })
    }

    async fn wait(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&self.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the server does not listen"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.to_string())
}
