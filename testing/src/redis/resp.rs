//! The part of the Redis protocol that tests need: commands, and replies as strings.

use std::io::{self, BufRead, BufReader, Write};
use std::iter;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The time limit of connecting, and of each read and write.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Sends one command to the server at an address. The reply is flat: the strings and numbers of nested arrays in order,
/// without nil.
pub(super) fn send_command(address: SocketAddr, arguments: &[&str]) -> io::Result<Vec<String>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let parts = arguments.iter().map(|argument| format!("${}\r\n{argument}\r\n", argument.len()));
    let request: String = iter::once(format!("*{}\r\n", arguments.len())).chain(parts).collect();
    stream.write_all(request.as_bytes())?;
    let mut texts = Vec::new();
    read_reply(&mut BufReader::new(stream), &mut texts)?;
    Ok(texts)
}

fn read_reply(from: &mut impl BufRead, texts: &mut Vec<String>) -> io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let length = || rest.parse::<i64>().map_err(|_| io::Error::other(format!("no length: {line}")));
    match kind {
        "+" | ":" => texts.push(rest.to_owned()),
        "-" => return Err(io::Error::other(rest.to_owned())),
        "$" => {
            let Ok(length) = usize::try_from(length()?) else { return Ok(()) };
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(length);
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        "*" => {
            for _ in 0..length()? {
                read_reply(from, texts)?;
            }
        }
        _ => return Err(io::Error::other(format!("not a Redis reply: {line}"))),
    }
    Ok(())
}
