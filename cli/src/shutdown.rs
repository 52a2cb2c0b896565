//! The shutdown of a serving process: its steps and their time limits.

use std::time::Duration;

use chat_ports::event_store::EventStore;
use chat_projector::generations::ProjectorSupervisor;
use chat_web::server::DrainOutcome;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::listeners::{AdminServer, PublicServer, Servers};

/// The time limit of each of three steps: stopping the jobs, the writer, and the projectors.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer a shutdown may take than the limits of its steps add up to. After that, the process exits at once.
pub(crate) const SHUTDOWN_SLACK: Duration = Duration::from_secs(3);

/// Returns how long a shutdown may take. Requests and jobs stop at the same time, then the writer, then the projectors.
pub(crate) fn grace_period(shutdown_delay: Duration, drain_timeout: Duration) -> Duration {
    shutdown_delay + drain_timeout.max(STEP_TIMEOUT) + 2 * STEP_TIMEOUT + SHUTDOWN_SLACK
}

/// Reports the process as not ready, and waits for `delay`, so that gateways send their requests to other processes. If
/// the process closed its connections sooner, requests that are already on them would be lost.
pub(crate) async fn serve_until_gateways_notice(leaving: &watch::Sender<bool>, delay: Duration) {
    leaving.send_replace(true);
    tokio::time::sleep(delay).await;
}

/// Stops the public server and the jobs at the same time.
pub(crate) async fn stop_serving(server: PublicServer, job_runner: Option<JoinHandle<()>>) {
    let jobs = async {
        if let Some(runner) = job_runner {
            stop_jobs(runner).await;
        }
    };
    tokio::join!(stop_public_server(server), jobs);
}

async fn stop_public_server(server: PublicServer) {
    if let DrainOutcome::ConnectionsAborted(connections) = server.stop().await {
        tracing::warn!(connections, "stopped before all requests were answered");
    }
}

/// Stops the servers of a process that is still starting.
pub(crate) async fn stop_servers(servers: Servers) {
    let (public_server, admin_server) = servers.split();
    public_server.stop().await;
    stop_admin_server(admin_server).await;
}

/// Stops the admin server, if there is one, and logs that the process has stopped.
pub(crate) async fn stop_admin_server(server: Option<AdminServer>) {
    if let Some(server) = server {
        server.stop().await;
    }
    tracing::info!("stopped");
}

/// Closes the log. If this fails, the next start does the work that the adapter has postponed.
pub(crate) async fn close_log(event_store: &dyn EventStore) {
    if let Err(error) = event_store.close().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the event log could not be closed");
    }
}

/// Waits until running jobs are interrupted. They are taken up again by another process, or at the next start.
async fn stop_jobs(runner: JoinHandle<()>) {
    if tokio::time::timeout(STEP_TIMEOUT, runner).await.is_err() {
        tracing::warn!("jobs did not stop in time; they are taken up again");
    }
}

pub(crate) async fn stop_projectors(supervisor: ProjectorSupervisor) {
    if tokio::time::timeout(STEP_TIMEOUT, supervisor.wait_until_stopped()).await.is_err() {
        tracing::warn!("the projectors did not stop in time; they resume from their checkpoints");
    }
}

/// Waits until the writer has executed all accepted commands.
pub(crate) async fn finish_commands(writer_task: JoinHandle<()>) -> Result<(), Failure> {
    match tokio::time::timeout(STEP_TIMEOUT, writer_task).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::because("the writer stopped", &error)),
        Err(_) => Err(Failure::interrupted("stopped before all commands were answered")),
    }
}

/// Returns the failure of a process whose writer has ended before the shutdown.
pub(crate) fn writer_failure(result: Result<(), tokio::task::JoinError>) -> Failure {
    match result {
        Ok(()) => Failure::new("the writer stopped although commands may still come"),
        Err(error) => Failure::because("the writer stopped", &error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::*;
    use crate::failure::EXIT_INTERRUPTED;

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_does_not_finish_in_time_is_a_failure() {
        let failure = finish_commands(tokio::spawn(std::future::pending())).await.unwrap_err();
        assert_eq!(format!("{:?}", failure.exit_code()), format!("{:?}", ExitCode::from(EXIT_INTERRUPTED)));
        finish_commands(tokio::spawn(std::future::ready(()))).await.unwrap();
    }

    #[test]
    fn the_grace_period_covers_jobs_that_outlast_the_requests() {
        let delay = Duration::from_secs(3);
        let rest = delay + 2 * STEP_TIMEOUT + SHUTDOWN_SLACK;
        assert_eq!(grace_period(delay, Duration::ZERO), rest + STEP_TIMEOUT);
        assert_eq!(grace_period(delay, Duration::from_mins(1)), rest + Duration::from_mins(1));
    }
}
