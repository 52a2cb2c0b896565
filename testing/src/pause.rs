//! Pauses processes.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Pauses processes (SIGSTOP), and waits until they have stopped: on a busy machine, a process may run on for a while
/// after the signal. A process that has ended is left out.
pub fn pause(processes: &[u32]) -> io::Result<()> {
    let ids = processes.iter().map(ToString::to_string);
    // The exit status is ignored: the command fails if one of the processes has ended.
    Command::new("kill").arg("-STOP").args(ids).stderr(Stdio::null()).status()?;
    let deadline = Instant::now() + TIMEOUT;
    for process in processes {
        // Checked twice: a thread may have been started after the list of threads was read the first time. Threads that
        // have stopped start none.
        while !(is_stopped(*process) && is_stopped(*process)) {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("process {process} does not stop")));
            }
            sleep(POLL_INTERVAL);
        }
    }
    Ok(())
}

/// Whether all threads of a process have stopped or ended. Always true without the `/proc` of Linux.
fn is_stopped(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { return true };
        // The state follows the name, which is in parentheses.
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['T', 't', 'Z', 'X']))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn pauses_a_process_and_leaves_out_one_that_has_ended() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        assert!(!is_stopped(busy.id()));
        pause(&[busy.id()]).unwrap();
        assert!(is_stopped(busy.id()));
        busy.kill().unwrap();
        busy.wait().unwrap();
        pause(&[busy.id()]).unwrap();
    }
}
