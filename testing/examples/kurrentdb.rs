//! The fake KurrentDB as a process of its own, with an empty log: `cargo run -p chat-testing --example kurrentdb 2113`.

use std::error::Error;
use std::io::Write as _;
use std::{env, io, thread};

use chat_testing::kurrentdb::FakeKurrentDb;

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).ok_or("the port is missing")?.parse()?;
    let server = FakeKurrentDb::start_at(port)?;
    writeln!(io::stdout(), "{}", server.url())?;
    loop {
        thread::park();
    }
}
