//! Figure 4: posts with counters in Redis and the read model in Postgres, compared with an application that uses
//! Postgres alone.

use std::fmt::Write as _;
use std::io;
use std::process::Stdio;
use std::sync::Arc;

use chat_testing::Postgres;
use chat_testing::redis::Redis;
use tempfile::TempDir;

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements};
use crate::compare::postgres;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::{CONNECTIONS, RunConfig};
use crate::compare::system_under_test::SystemUnderTest;

/// The highest number of scripts of pgbench. Each script inserts a different text.
const MAX_SCRIPTS: usize = 100;

/// The tables of an application without an event store: the row of a chat holds the number of its last message.
const SCHEMA: &str = "\
    CREATE TABLE apps (app_token text PRIMARY KEY, name text NOT NULL); \
    CREATE TABLE chats (app_token text REFERENCES apps, chat_number bigint, last_message bigint NOT NULL, \
        PRIMARY KEY (app_token, chat_number)) WITH (fillfactor = 50); \
    CREATE TABLE messages (app_token text, chat_number bigint, message_number bigint, body text NOT NULL, \
        created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, \
        PRIMARY KEY (app_token, chat_number, message_number), \
        FOREIGN KEY (app_token, chat_number) REFERENCES chats)";

const APP: &str = "9vGkQ2mTzWc7RxLp4HsYbN8dJfUaE3iKoM6q";

/// Compares two sides on one Postgres instance: the chat API, with its log in SQLite, its counters in Redis and its
/// read model in Postgres; and pgbench.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let server = postgres::start(config).await?;
    let folder = config.folder().to_owned();
    let redis = tokio::task::spawn_blocking(move || Redis::start_in(&folder, "everysec"));
    let redis = redis.await.map_err(io::Error::other)??;
    let url = postgres::create_database(&server).await?;
    let system = SystemUnderTest::start(
        config,
        config.chats(),
        &["--redis-url", &redis.url(), "--database-url", &url],
    )
    .await?;
    let crud = CrudApplication::new(config, &server).await?;
    let (system, crud) = (&system, &crud);
    config.post_for_duration(&system.server.address, &system.paths).await?;
    system.catch_up().await?;
    crud.insert(config).await?;
    let rounds = Rounds::measure(
        config.rounds,
        async |_| {
            let rate = config.post_for_duration(&system.server.address, &system.paths).await?.rate();
            system.catch_up().await?;
            Ok::<_, io::Error>(rate)
        },
        async |_| crud.insert(config).await,
    );
    results.figures.push(Figure {
        number: 4,
        name: format!(
            "POST of messages to {} chats, counters in Redis, read model in Postgres",
            config.chats()
        ),
        against:
            "pgbench that takes the next number of a chat's row and inserts the message in one statement"
                .to_owned(),
        unit: "messages/s".to_owned(),
        goal: Goal::AtLeast(2.25),
        measured: Measurements::Ratio(rounds.await?),
    });
    Ok(())
}

/// An application that keeps counters and messages in rows of one database.
pub(super) struct CrudApplication {
    server: Arc<Postgres>,
    url: String,
    scripts: TempDir,
}

impl CrudApplication {
    pub(super) async fn new(config: &RunConfig, server: &Arc<Postgres>) -> io::Result<Self> {
        let url = postgres::create_database(server).await?;
        let mut connection = postgres::connect(&url).await?;
        let error = io::Error::other;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.map_err(error)?;
        let app = sqlx::query("INSERT INTO apps VALUES ($1, 'bench')").bind(APP);
        app.execute(&mut connection).await.map_err(error)?;
        let chats = config.chats();
        let rows =
            sqlx::query("INSERT INTO chats SELECT $1, n, 0 FROM generate_series(1, $2::bigint) n").bind(APP);
        rows.bind(chats.cast_signed()).execute(&mut connection).await.map_err(error)?;
        sqlx::raw_sql("VACUUM ANALYZE").execute(&mut connection).await.map_err(error)?;
        let scripts = config.new_folder()?;
        let step = (config.texts.corpus().len() / MAX_SCRIPTS).max(1);
        for (script, text) in config.texts.corpus().iter().step_by(step).take(MAX_SCRIPTS).enumerate() {
            let text = sql_literal(text);
            let script_text = format!(
                "\\set chat random(1, {chats})\n\
                 WITH counted AS (UPDATE chats SET last_message = last_message + 1 \
                 WHERE app_token = '{APP}' AND chat_number = :chat RETURNING last_message) \
                 INSERT INTO messages SELECT '{APP}', :chat, last_message, {text}, now(), now() FROM counted;\n"
            );
            std::fs::write(scripts.path().join(format!("{script}.sql")), script_text)?;
        }
        Ok(Self { server: Arc::clone(server), url, scripts })
    }

    /// Runs pgbench, and returns the messages per second.
    pub(super) async fn insert(&self, config: &RunConfig) -> io::Result<f64> {
        let mut pgbench = self.server.client_command("pgbench");
        let connections = CONNECTIONS.to_string();
        // pgbench takes whole seconds, and opening all connections takes a second or two on a busy machine.
        let seconds = config.duration.as_secs().max(3).to_string();
        pgbench.args(["--no-vacuum", "--protocol=prepared", "--client", &connections, "--jobs=2"]);
        pgbench.args(["--time", &seconds]).stdout(Stdio::piped()).stderr(Stdio::piped());
        for script in std::fs::read_dir(self.scripts.path())? {
            pgbench.arg("--file").arg(script?.path());
        }
        pgbench.arg(&self.url);
        let output = tokio::process::Command::from(pgbench).kill_on_drop(true).output().await?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let rate =
            stdout.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let failed = || format!("pgbench: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        rate.filter(|_| output.status.success()).ok_or_else(|| io::Error::other(failed()))
    }
}

/// Encodes a text as an SQL literal without colons, which pgbench takes for variables.
fn sql_literal(text: &str) -> String {
    let mut literal = "E'".to_owned();
    for character in text.chars() {
        if character.is_ascii() && !character.is_ascii_alphanumeric() && character != ' ' {
            // Writing to a String can't fail.
            let _ = write!(literal, "\\x{:02x}", u32::from(character));
        } else {
            literal.push(character);
        }
    }
    literal + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_sql_and_variables_of_pgbench() {
        assert_eq!(sql_literal("it's :chat\\ \n ok é"), r"E'it\x27s \x3achat\x5c \x0a ok é'");
    }
}
