//! A browser for tests: headless Chromium, driven over WebDriver.

mod window;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

pub use window::{Element, Tab, Window};

use crate::install::{Program, find_or_install};
use crate::port;
use crate::supervised_server::{Server, SupervisedServer, tail_log};

const CHROMIUM: Program = Program {
    name: "chromium",
    title: "Chromium",
    debian_package: "chromium",
    homebrew_package: "chromium",
    search_folders: &[],
};

const CHROMEDRIVER: Program = Program {
    name: "chromedriver",
    title: "Chromium's driver",
    debian_package: "chromium-driver",
    homebrew_package: "chromedriver",
    search_folders: &[],
};

/// The longest time that the driver may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running driver. Dropping it, or the end of the process, ends the driver and all its windows.
#[derive(Debug)]
pub struct Browser {
    _driver: SupervisedServer,
    port: u16,
    chromium: PathBuf,
}

/// The browser of [`Browser::shared`].
static SHARED: LazyLock<Browser> =
    LazyLock::new(|| Browser::start().unwrap_or_else(|error| panic!("a browser can't be started: {error}")));

impl Browser {
    /// The browser that the tests of a process share. It ends with the process.
    ///
    /// # Panics
    ///
    /// Panics if the driver does not start.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// Starts the driver, and waits until it listens. Installs it and Chromium where they are missing.
    pub fn start() -> io::Result<Self> {
        const ATTEMPTS: usize = 10;
        let mut last_error = io::ErrorKind::AddrInUse.into();
        for _ in 0..ATTEMPTS {
            match Self::start_at(port::find_free()?) {
                // Another process took the port.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last_error = error,
                started => return started,
            }
        }
        Err(last_error)
    }

    fn start_at(port: u16) -> io::Result<Self> {
        let chromium = find_or_install(&CHROMIUM);
        let chromedriver = find_or_install(&CHROMEDRIVER);
        let folder = tempfile::Builder::new().prefix("chat-api-browser-").tempdir()?.keep();
        let log = folder.join("log");
        let driver = SupervisedServer::start(&Server {
            command: vec![chromedriver.to_string_lossy().into_owned(), format!("--port={port}")],
            user: None,
            host: None,
            log: log.clone(),
            stop_signal: "TERM",
            remove_on_exit: Some(folder),
        })?;
        let deadline = Instant::now() + START_TIMEOUT;
        // The driver's own output shows that it listens. A connection to the port might reach another process.
        loop {
            let output = fs::read_to_string(&log).unwrap_or_default();
            if output.contains("was started successfully") {
                return Ok(Self { _driver: driver, port, chromium });
            }
            if output.contains("port not available") {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("chromedriver does not answer: {}", tail_log(&log))));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Opens a window with cookies, storage and cache of its own.
    ///
    /// # Panics
    ///
    /// Panics if Chromium does not start, with what the driver says.
    pub async fn open_window(&self) -> Window {
        self.open_window_with(&[]).await
    }

    /// Opens a window that runs no scripts. Methods of [`Window`] that run a script in the page don't work in it:
    /// `find`, `execute`, `wait_for` and `wait_for_text`.
    ///
    /// # Panics
    ///
    /// Panics if Chromium does not start, with what the driver says.
    pub async fn open_window_without_scripts(&self) -> Window {
        self.open_window_with(&["--blink-settings=scriptEnabled=false"]).await
    }

    async fn open_window_with(&self, extra_arguments: &[&str]) -> Window {
        let arguments = [
            "--headless=new",
            // The sandbox does not work for root and in most containers. Tests load pages of their own servers only.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--window-size=1280,900",
            // Chromium ends when the driver's end of the pipe closes.
            "--remote-debugging-pipe",
        ];
        Window::open(self.port, &self.chromium, &[&arguments, extra_arguments].concat()).await
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_port_that_another_process_has_is_reported_as_in_use() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let started = Browser::start_at(other.local_addr().unwrap().port());
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
