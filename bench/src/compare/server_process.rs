//! Processes of the compared servers.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::raw_http::RawConnection;
use super::requests::write_post;

/// The time in which a started server must be ready, and a stopped one must end.
const START_STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// The clock ticks of a second in `/proc`: `USER_HZ` of Linux on common processors.
const TICKS_PER_SECOND: u64 = 100;

/// The process of a running server. Dropping it kills the process.
pub struct ServerProcess {
    child: Child,
    /// The address that it listens on.
    pub address: String,
}

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// The resident memory.
    pub resident: f64,
    /// The part of the resident memory that is neither a mapped file nor shared memory.
    pub anonymous: f64,
    /// The highest resident memory so far.
    pub peak: f64,
}

impl ServerProcess {
    /// Starts the chat API in one process, with embedded engines in this folder unless the arguments name other
    /// engines, and waits until the server is ready.
    pub async fn start_chat_api(program: &Path, folder: &Path, arguments: &[&str]) -> io::Result<Self> {
        let mut server = Self::spawn_chat_api(program, folder, arguments)?;
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Starts the chat API and posts until the first 201. Returns the server, and the time from the start of its
    /// process to that 201.
    pub async fn time_first_post(
        program: &Path,
        folder: &Path,
        path: &str,
        body: &str,
    ) -> io::Result<(Self, Duration)> {
        let mut request = Vec::new();
        write_post(&mut request, path, body);
        let started_at = Instant::now();
        let mut server = Self::spawn_chat_api(program, folder, &[])?;
        let address = server.address.clone();
        let first_post = move || {
            let post =
                || RawConnection::connect(&address)?.exchange(&request).map(|response| response.status);
            // The connection is refused at first, and a server that is still starting answers 503.
            while post().ok() != Some(201) {
                if started_at.elapsed() > START_STOP_TIMEOUT {
                    return Err(io::Error::other("the server takes no posts"));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(started_at.elapsed())
        };
        // The blocking task does not own the server. So when this future is dropped, for example after Ctrl-C, the
        // server is dropped too, which kills its process.
        let mut first_post = tokio::task::spawn_blocking(first_post);
        loop {
            tokio::select! {
                posted = &mut first_post => return Ok((server, posted.map_err(io::Error::other)??)),
                () = tokio::time::sleep(Duration::from_millis(100)) => server.check_running()?,
            }
        }
    }

    fn spawn_chat_api(program: &Path, folder: &Path, arguments: &[&str]) -> io::Result<Self> {
        let address = free_address()?;
        let mut command = chat_api_command(program);
        command
            .args(["serve", "--listen-addr", &address, "--log", "warn", "--data-dir"])
            .arg(folder)
            .args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, address })
    }

    /// Starts the baseline server. The file holds the body of the response to `GET /answer`.
    pub fn start_baseline(answer_file: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare");
        if let Some(file) = answer_file {
            command.arg("--answer").arg(file);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut address)?;
        }
        Ok(Self { child, address: address.trim().to_owned() })
    }

    async fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_STOP_TIMEOUT;
        while !is_ready(&self.address).await {
            self.check_running()?;
            if Instant::now() > deadline {
                return Err(io::Error::other("the server is not ready"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn check_running(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(io::Error::other(format!("the server ended: {status}"))),
            None => Ok(()),
        }
    }

    /// Shuts the server down, so that its files are complete.
    pub async fn stop(mut self) -> io::Result<()> {
        // The standard library sends no signal other than SIGKILL.
        let kill = Command::new("kill").arg(self.child.id().to_string()).status()?;
        if !kill.success() {
            return Err(io::Error::other(format!("the server can't be stopped: kill failed with {kill}")));
        }
        let deadline = Instant::now() + START_STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other("the server does not end"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns the CPU time of the process so far, in all threads, as Linux reports it.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the program, in brackets, may contain spaces. 11 other fields follow before the CPU times.
        let fields =
            stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    /// Returns the memory of the process, as Linux reports it.
    pub fn memory(&self) -> io::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
            kibibytes.map_or(0.0, |kibibytes| f64::from(kibibytes) * 1_024.0)
        };
        Ok(Memory { resident: bytes("VmRSS:"), anonymous: bytes("RssAnon:"), peak: bytes("VmHWM:") })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command for the program under test. The environment is empty, so that no variable of this process affects
/// the program.
pub fn chat_api_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command
}

/// Returns whether a server answers `/readyz` with 200.
async fn is_ready(address: &str) -> bool {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        Ok::<_, io::Error>(response)
    };
    ask.await.is_ok_and(|response| response.starts_with(b"HTTP/1.1 200"))
}

fn free_address() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_first_post_fails_as_soon_as_the_server_has_ended() {
        let folder = Path::new("/");
        let Err(error) = ServerProcess::time_first_post(Path::new("/bin/false"), folder, "/", "").await
        else {
            panic!("the first post succeeded without a server");
        };
        assert!(error.to_string().contains("the server ended"), "{error}");
    }
}
