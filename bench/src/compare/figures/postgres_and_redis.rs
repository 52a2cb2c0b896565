//! Figure 4: posting with servers for counters and read model, against what an application would do with Postgres alone.

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
use crate::compare::system_under_test::Stage;

/// Scripts that pgbench takes turns with, each with a text of its own.
const SCRIPTS: usize = 100;

/// The tables of an application that keeps messages in rows. It looks an app up by its token, and each chat's row holds
/// the last number that was given out.
const SCHEMA: &str = "\
    CREATE TABLE apps (app_token text PRIMARY KEY, name text NOT NULL); \
    CREATE TABLE chats (app_token text REFERENCES apps, chat_number bigint, last_message bigint NOT NULL, \
        PRIMARY KEY (app_token, chat_number)) WITH (fillfactor = 50); \
    CREATE TABLE messages (app_token text, chat_number bigint, message_number bigint, body text NOT NULL, \
        created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, \
        PRIMARY KEY (app_token, chat_number, message_number), \
        FOREIGN KEY (app_token, chat_number) REFERENCES chats)";

const APP: &str = "9vGkQ2mTzWc7RxLp4HsYbN8dJfUaE3iKoM6q";

/// The log in its file, counters in Redis, the read model in Postgres; pgbench in the same Postgres.
pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let server = postgres::start(setting).await?;
    let folder = setting.folder().to_owned();
    let redis = tokio::task::spawn_blocking(move || Redis::start_in(&folder, "everysec"));
    let redis = redis.await.map_err(io::Error::other)??;
    let ours = postgres::database(&server).await?;
    let stage =
        Stage::new(setting, setting.chats(), &["--redis-url", &redis.url(), "--database-url", &ours]).await?;
    let crud = Crud::new(setting, &server).await?;
    let (stage, crud) = (&stage, &crud);
    setting.posts(&stage.server.address, &stage.paths).await?;
    stage.catch_up().await?;
    crud.insert(setting).await?;
    let rounds = Rounds::measure(
        setting.rounds,
        async |_| {
            let rate = setting.posts(&stage.server.address, &stage.paths).await?.rate();
            stage.catch_up().await?;
            Ok::<_, io::Error>(rate)
        },
        async |_| crud.insert(setting).await,
    );
    findings.figures.push(Figure {
        number: 4,
        name: format!(
            "POST of messages to {} chats, counters in Redis, read model in Postgres",
            setting.chats()
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

/// An application without a log: what counts and what is shown are rows of the same database.
struct Crud {
    server: Arc<Postgres>,
    url: String,
    scripts: TempDir,
}

impl Crud {
    async fn new(setting: &RunConfig, server: &Arc<Postgres>) -> io::Result<Self> {
        let url = postgres::database(server).await?;
        let mut connection = postgres::connect(&url).await?;
        let failed = io::Error::other;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.map_err(failed)?;
        let app = sqlx::query("INSERT INTO apps VALUES ($1, 'bench')").bind(APP);
        app.execute(&mut connection).await.map_err(failed)?;
        let chats = setting.chats();
        let rows =
            sqlx::query("INSERT INTO chats SELECT $1, n, 0 FROM generate_series(1, $2::bigint) n").bind(APP);
        rows.bind(chats.cast_signed()).execute(&mut connection).await.map_err(failed)?;
        sqlx::raw_sql("VACUUM ANALYZE").execute(&mut connection).await.map_err(failed)?;
        let scripts = setting.new_folder()?;
        let step = (setting.texts.corpus().len() / SCRIPTS).max(1);
        for (script, text) in setting.texts.corpus().iter().step_by(step).take(SCRIPTS).enumerate() {
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

    /// Messages a second.
    async fn insert(&self, setting: &RunConfig) -> io::Result<f64> {
        let mut pgbench = self.server.client_command("pgbench");
        let connections = CONNECTIONS.to_string();
        // It counts whole seconds, and a busy machine takes one or two to open all connections.
        let seconds = setting.duration.as_secs().max(3).to_string();
        pgbench.args(["--no-vacuum", "--protocol=prepared", "--client", &connections, "--jobs=2"]);
        pgbench.args(["--time", &seconds]).stdout(Stdio::piped()).stderr(Stdio::piped());
        for script in std::fs::read_dir(self.scripts.path())? {
            pgbench.arg("--file").arg(script?.path());
        }
        pgbench.arg(&self.url);
        let done =
            tokio::task::spawn_blocking(move || pgbench.output()).await.map_err(io::Error::other)??;
        let said = String::from_utf8_lossy(&done.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let failed = || format!("pgbench: {said}{}", String::from_utf8_lossy(&done.stderr));
        rate.filter(|_| done.status.success()).ok_or_else(|| io::Error::other(failed()))
    }
}

/// A text as a literal of SQL, without the colons that pgbench takes for variables.
fn sql_literal(text: &str) -> String {
    let mut literal = "E'".to_owned();
    for letter in text.chars() {
        if letter.is_ascii() && !letter.is_ascii_alphanumeric() && letter != ' ' {
            // Writing to a String can't fail.
            let _ = write!(literal, "\\x{:02x}", u32::from(letter));
        } else {
            literal.push(letter);
        }
    }
    literal + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_taken_for_sql_or_a_variable() {
        assert_eq!(sql_literal("it's :chat\\ \n ok é"), r"E'it\x27s \x3achat\x5c \x0a ok é'");
    }
}
