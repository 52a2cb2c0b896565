//! A redis-server process with a folder of its own.

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::resp;
use crate::hosts::Host;
use crate::install::{Program, find_or_install};
use crate::pause::pause;
use crate::port;
use crate::supervised_server::{Server, SupervisedServer, tail_log};

const REDIS_SERVER: Program = Program {
    name: "redis-server",
    title: "Redis",
    debian_package: "redis-server",
    homebrew_package: "redis",
    search_folders: &["/opt/homebrew/bin", "/usr/local/bin"],
};

/// The longest time that [`wait_until`] waits. Longer than the 30 seconds for which a sentinel does nothing after
/// it has stalled for two seconds.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The folder of the append-only file, below the server's folder.
const DATA: &str = "appendonlydir";

/// The data that a server has after a restart.
#[derive(Clone, Copy, Debug)]
pub(super) enum RestartData<'a> {
    /// The data that it had.
    Kept,
    /// No data.
    Empty,
    /// An earlier copy from this folder.
    Copied(&'a Path),
}

/// A running server. Dropping it, or the end of the process, stops the server and removes its folder.
#[derive(Debug)]
pub(super) struct RedisInstance {
    port: u16,
    folder: PathBuf,
    /// The host that it runs on, if other than the test's.
    host: Option<Host>,
    /// The options of this server, without those that every server has.
    options: Vec<String>,
    running: Option<SupervisedServer>,
    is_killed: bool,
}

impl RedisInstance {
    /// Starts a server with further options on a free port that `accepts_port` accepts, and waits until it answers.
    pub(super) fn start(options: &[&str], accepts_port: impl Fn(u16) -> bool) -> io::Result<Self> {
        Self::start_in(&env::temp_dir(), options, accepts_port)
    }

    /// Starts a server with further options on a port of a host.
    pub(super) fn start_on(host: &Host, port: u16, options: &[&str]) -> io::Result<Self> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self::launch(new_folder(&env::temp_dir())?, Some(host.clone()), port, options)
    }

    /// Starts a server as [`RedisInstance::start`] does, with its folder below `parent`.
    pub(super) fn start_in(
        parent: &Path,
        options: &[&str],
        accepts_port: impl Fn(u16) -> bool,
    ) -> io::Result<Self> {
        const ATTEMPTS: usize = 10;
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut last_error = io::ErrorKind::AddrInUse.into();
        for _ in 0..ATTEMPTS {
            let port = port::find_free_for_restarts()?;
            if !accepts_port(port) {
                continue;
            }
            match Self::launch(new_folder(parent)?, None, port, options.clone()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last_error = error,
                started => return started,
            }
        }
        Err(last_error)
    }

    fn launch(folder: PathBuf, host: Option<Host>, port: u16, options: Vec<String>) -> io::Result<Self> {
        let program = find_or_install(&REDIS_SERVER);
        let mut command = vec![path_text(&program)];
        // A sentinel needs a configuration file, to which it also writes. The file must be the first argument.
        let sentinel_file = folder.join("sentinel.conf");
        if options.first().is_some_and(|option| option == "--sentinel") {
            fs::write(&sentinel_file, "")?;
            command.push(path_text(&sentinel_file));
        }
        let ip_address = host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::address).to_string();
        let fixed = ["--port", &port.to_string(), "--bind", &ip_address, "--dir", &path_text(&folder)];
        command.extend(fixed.map(str::to_owned));
        if host.is_some() {
            command.extend(["--protected-mode", "no"].map(str::to_owned));
        }
        command.extend(options.iter().cloned());
        let log = folder.join("log");
        let server = Server {
            command,
            user: None,
            host: host.clone(),
            log: log.clone(),
            stop_signal: "TERM",
            remove_on_exit: Some(folder.clone()),
        };
        let running = SupervisedServer::start(&server)?;
        // Another server may have taken the port and answer instead.
        let own_process = format!("process_id:{}\r", running.pid());
        let instance = Self { port, folder, host, options, running: Some(running), is_killed: false };
        let ready = || -> io::Result<bool> {
            Ok(instance.info_contains("server", &own_process)? && instance.command(&["PING"]).is_ok())
        };
        let listens = || match ready() {
            Ok(true) => Ok(true),
            _ if is_port_taken(&log) => Err(io::ErrorKind::AddrInUse.into()),
            Ok(false) | Err(_) => Ok(false),
        };
        wait_until("redis-server answers", listens).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::Error::other(format!("{error}:\n{}", tail_log(&log))),
            _ => error,
        })?;
        Ok(instance)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::address), self.port))
    }

    pub(super) fn command(&self, arguments: &[&str]) -> io::Result<Vec<String>> {
        resp::send_command(self.address(), arguments)
    }

    /// Whether a section of the server's INFO contains a text.
    pub(super) fn info_contains(&self, section: &str, text: &str) -> io::Result<bool> {
        Ok(self.command(&["INFO", section])?.concat().contains(text))
    }

    /// Sends the server a signal.
    pub(super) fn signal(&self, signal: &str) -> io::Result<()> {
        self.running
            .as_ref()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), |server| server.signal(signal))
    }

    /// Pauses the server.
    pub(super) fn pause(&self) -> io::Result<()> {
        let server = self.running.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        pause(&[server.pid()])
    }

    /// Kills the server.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.signal("KILL")?;
        self.is_killed = true;
        Ok(())
    }

    /// Copies the server's data to a folder, as it is at this moment.
    pub(super) fn copy_data(&self, target: &Path) -> io::Result<()> {
        copy_files(&self.folder.join(DATA), target)
    }

    /// Kills the server, if it still runs, and starts it again on the same port.
    pub(super) fn restart(&mut self, data: RestartData<'_>) -> io::Result<()> {
        // A killed server is not killed again: its process id may belong to another process by now.
        if !self.is_killed {
            self.kill()?;
        }
        // Dropping the old server removes the old folder.
        let folder = new_folder(self.folder.parent().unwrap_or(Path::new("/")))?;
        match data {
            RestartData::Kept => fs::rename(self.folder.join(DATA), folder.join(DATA))?,
            RestartData::Empty => {}
            RestartData::Copied(source) => copy_files(source, &folder.join(DATA))?,
        }
        drop(self.running.take());
        // An outgoing connection of another process may use the port.
        wait_until("the port is free again", || Ok(self.host.is_some() || port::is_free(self.port)))?;
        *self = Self::launch(folder, self.host.take(), self.port, std::mem::take(&mut self.options))?;
        Ok(())
    }
}

/// Copies the files of one folder to another, which is created.
fn copy_files(source: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        fs::copy(entry.path(), target.join(entry.file_name()))?;
    }
    Ok(())
}

/// Waits until a condition holds.
pub(super) fn wait_until(condition: &str, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !holds()? {
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("timed out waiting until {condition}"),
            ));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Creates a folder for a server. The server removes its folder when it is dropped.
fn new_folder(parent: &Path) -> io::Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("chat-redis-").tempdir_in(parent)?.keep())
}

fn is_port_taken(log: &Path) -> bool {
    fs::read_to_string(log).is_ok_and(|log| log.contains("Address already in use"))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
