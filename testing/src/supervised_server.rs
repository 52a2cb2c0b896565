//! Server processes that end with the process that started them, even if the starting process is killed.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::hosts::Host;

/// The supervisor's shell script. Starts the server `"$@"`, prints the server's process id, and waits until the
/// script's standard input closes, which happens when the parent process drops it or ends. Then sends the signal
/// `$STOP` to the server, and removes the folder `$REMOVE` if it is set. The script ignores signals only after it has
/// started the server, because otherwise the server would ignore them too.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" >"$LOG" 2>&1 </dev/null 3<&- &
server=$!
trap '' INT TERM HUP
echo "$server"
# The shell would report a server that was killed.
exec 2>/dev/null
cat <&3 >/dev/null
kill -CONT "$server" 2>/dev/null
kill -"$STOP" "$server" 2>/dev/null
wait "$server"
if [ -n "$REMOVE" ]; then rm -rf "$REMOVE" 2>/dev/null; fi
"#;

/// A server to start.
#[derive(Clone, Debug)]
pub struct Server {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The user and group that it runs as, if other than the caller's.
    pub user: Option<(u32, u32)>,
    /// The host that it runs on, if other than the test's.
    pub host: Option<Host>,
    /// The file for its output.
    pub log: PathBuf,
    /// The signal that ends it, such as `TERM`.
    pub stop_signal: &'static str,
    /// The folder to remove after the server has ended.
    pub remove_on_exit: Option<PathBuf>,
}

/// A running server. Dropping it ends the server and waits for its end.
#[derive(Debug)]
pub struct SupervisedServer {
    supervisor: Child,
    pid: u32,
}

impl SupervisedServer {
    /// Starts a server. It may not answer yet.
    pub fn start(server: &Server) -> io::Result<Self> {
        let mut shell = match &server.host {
            None => Command::new("/bin/sh"),
            Some(host) => host.command("/bin/sh", server.user),
        };
        shell.args(["-c", SUPERVISOR, "supervisor"]).args(&server.command);
        shell.env("LOG", &server.log).env("STOP", server.stop_signal);
        shell.env("REMOVE", server.remove_on_exit.as_deref().unwrap_or(Path::new("")));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some((user, group)) = server.user {
            shell.current_dir("/");
            if server.host.is_none() {
                shell.uid(user).gid(group);
            }
        }
        let mut supervisor = shell.spawn()?;
        let output = supervisor.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let pid = line.trim().parse().map_err(|_| io::Error::other("the server did not start"))?;
        Ok(Self { supervisor, pid })
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the server a signal, such as `CONT` or `KILL`.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        // The standard library sends no signal other than SIGKILL.
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other(format!("SIG{signal} could not be sent"))) }
    }

    /// Kills the server (SIGKILL) and waits for its end.
    pub fn kill(self) -> io::Result<()> {
        self.signal("KILL")
    }
}

impl Drop for SupervisedServer {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // The supervisor ends by itself. If waiting fails, it has ended.
        let _ = self.supervisor.wait();
    }
}

/// The last lines of a server's log, for error messages.
pub fn tail_log(log: &Path) -> String {
    const LINES: usize = 20;
    let Ok(file) = File::open(log) else { return String::new() };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_server_ends_with_its_supervisor_and_its_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap().keep();
        let server = Server {
            command: vec!["sleep".to_owned(), "600".to_owned()],
            user: None,
            log: folder.join("log"),
            host: None,
            stop_signal: "TERM",
            remove_on_exit: Some(folder.clone()),
        };
        let running = SupervisedServer::start(&server).unwrap();
        running.signal("0").unwrap();
        let pid = running.pid();
        drop(running);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < deadline, "the server is still there");
        }
        assert!(!folder.exists());
    }
}
