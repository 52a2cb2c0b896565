//! Runs the example clients over connections that lose responses, against a server that is killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
/// The output of a client. The client repeats six commands: the creation of the chat and of the five messages. The
/// first response, to the creation of the app, is not lost.
const OUTPUT: &str = "1 Where is the quick fox?\n2 At the <gate>\n3 Which gate?\n4 The north gate\n5 Quick foxes\n\
    found 1 Where is the quick <mark>fox</mark>?\nfound 5 Quick <mark>fox</mark>es\n\
    message.created 1 Where is the fox?\nmessage.created 2 At the <gate>\nmessage.created 3 Which gate?\n\
    message.created 4 The north gate\nmessage.created 5 Quick foxes\nmessage.edited 1 Where is the quick fox?\n\
    repeated commands that the server recognized: 6\n";

struct Server {
    process: Child,
    address: SocketAddr,
    data_dir: PathBuf,
    response_count: u64,
    has_cut_a_stream: bool,
}

impl Server {
    fn start(data_dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat-api"));
        command.env_clear().args(["serve", "--listen-addr", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address_in = |line: String| line.split_once("http://")?.1.split_whitespace().next()?.parse().ok();
        let address = log.by_ref().lines().map_while(Result::ok).find_map(address_in).unwrap();
        thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Self { process, address, data_dir: data_dir.to_owned(), response_count: 0, has_cut_a_stream: false }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.kill();
        let Self { response_count, has_cut_a_stream, .. } = *self;
        *self = Self { response_count, has_cut_a_stream, ..Self::start(&self.data_dir) };
    }

    /// Counts this part if it is the beginning of a response, and returns whether to lose it. Every second response is
    /// lost.
    fn loses_response(&mut self, part: &[u8]) -> bool {
        if !part.starts_with(b"HTTP/1.1 ") {
            return false;
        }
        self.response_count += 1;
        // The sixth response answers the first attempt to post the second message. The server is killed after it stored
        // the event and before the client has the response.
        if self.response_count == 6 {
            self.restart();
        }
        self.response_count.is_multiple_of(2)
    }

    /// Returns whether this response is the first event stream, of which only half is to be relayed. If it is, restarts
    /// the server.
    fn cuts_stream(&mut self, response: &[u8]) -> bool {
        let name = b"text/event-stream";
        let cuts = !self.has_cut_a_stream && response.windows(name.len()).any(|part| part == name);
        if cuts {
            self.has_cut_a_stream = true;
            self.restart();
        }
        cuts
    }
}

/// Relays one connection until a response is lost.
fn relay(client: &TcpStream, server: &Mutex<Server>) {
    let address = server.lock().unwrap().address;
    let Ok(upstream) = &TcpStream::connect(address) else { return };
    thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut { client }, &mut { upstream }));
        let mut response = vec![0; 65_536];
        while let Ok(length @ 1..) = { upstream }.read(&mut response) {
            if server.lock().unwrap().cuts_stream(&response[..length]) {
                let _ = { client }.write_all(&response[..length / 2]);
                break;
            }
            if server.lock().unwrap().loses_response(&response[..length]) || { client }
                .write_all(&response[..length])
                .is_err()
            {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
    });
}

/// Runs a client and checks that the server executed each of its commands once.
fn run_session(client: &mut Command) {
    let data_dir = tempfile::tempdir().unwrap();
    let server: &'static Mutex<Server> = Box::leak(Box::new(Mutex::new(Server::start(data_dir.path()))));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || relay(&connection, server));
        }
    });
    let output = client.env("CHAT_API_URL", url).env("NO_PROXY", "127.0.0.1").output().unwrap();
    server.lock().unwrap().kill();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), OUTPUT);
    let log = rusqlite::Connection::open(data_dir.path().join("events.db")).unwrap();
    let events: u64 = log.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(events, 8, "not exactly the events of an app, a chat, five messages and an edit");
}

/// Returns whether a program is installed. If it is not, writes a note to standard error, which the test runner
/// does not capture.
fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let _ = writeln!(io::stderr(), "an example was skipped: the program {program} is not installed");
    }
    found
}

#[test]
fn the_python_client_executes_each_command_once() {
    if is_installed("python3") {
        run_session(Command::new("python3").arg("chat_client.py").current_dir(format!("{EXAMPLES}/python")));
    }
}

#[test]
fn the_typescript_client_executes_each_command_once() {
    if !is_installed("node") || !is_installed("npm") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for file in ["chat-client.ts", "package.json", "package-lock.json", "tsconfig.json"] {
        fs::copy(format!("{EXAMPLES}/typescript/{file}"), folder.path().join(file)).unwrap();
    }
    let _ = writeln!(io::stderr(), "installing the TypeScript compiler in a temporary folder");
    let npm_ci = ["ci", "--prefer-offline", "--no-audit", "--no-fund"];
    let installed = Command::new("npm").args(npm_ci).current_dir(&folder).output().unwrap();
    assert!(installed.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&installed.stderr));
    run_session(Command::new("npm").args(["start", "--silent"]).current_dir(&folder));
}
