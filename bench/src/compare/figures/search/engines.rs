//! The search engines: the chat API over HTTP, and SQLite and Postgres called directly.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::OptionalExtension as _;
use sqlx::{Connection as _, PgConnection};

use super::queries::{LIMIT, Query, RequestedResult, Scope};
use crate::compare::postgres;
use crate::compare::raw_http::RawConnection;
use crate::compare::seeded_log::SeededLog;
use crate::latency::{Latencies, Percentiles};

/// The number of rows of one insert.
const ROWS_PER_INSERT: usize = 10_000;

/// The results of an engine for a list of queries.
#[derive(Clone, Copy, Debug)]
pub struct QueryResults {
    /// The percentiles of the time until the whole result of a query is read, with the total if it is requested.
    pub latencies: Percentiles,
    /// The number of queries with a hit.
    pub queries_with_hits: usize,
}

/// Runs queries against the chat API, over one connection.
pub async fn query_chat_api(
    address: &str,
    app: &str,
    queries: &Arc<[Query]>,
    scope: Scope,
    requested: RequestedResult,
) -> io::Result<QueryResults> {
    let paths: Vec<String> = queries.iter().map(|query| query.path(app, scope, requested)).collect();
    let mut connection = RawConnection::connect(address)?;
    let run = move || {
        time_queries(&paths, |path| {
            let body = connection.get(path)?;
            Ok(!body.starts_with(EMPTY_RESPONSE_PREFIX))
        })
    };
    tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
}

/// The start of the response to a search without hits.
const EMPTY_RESPONSE_PREFIX: &[u8] = br#"{"status":"success","messages":[]"#;

/// SQLite with an FTS5 trigram index over a table of messages.
#[derive(Clone)]
pub struct Fts5 {
    connection: Arc<Mutex<rusqlite::Connection>>,
}

impl Fts5 {
    const SCHEMA: &str = "\
        PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -262144; \
        PRAGMA mmap_size = 8589934592; \
        CREATE TABLE messages (id INTEGER PRIMARY KEY, app TEXT NOT NULL, chat INTEGER NOT NULL, \
            number INTEGER NOT NULL, body TEXT NOT NULL, created_at INTEGER NOT NULL); \
        CREATE VIRTUAL TABLE messages_fts USING fts5 (body, content = 'messages', content_rowid = 'id', \
            tokenize = 'trigram')";
    const INDEX: &str = "\
        INSERT INTO messages_fts (messages_fts) VALUES ('rebuild'); \
        INSERT INTO messages_fts (messages_fts) VALUES ('optimize'); \
        CREATE UNIQUE INDEX in_chat ON messages (app, chat, number); ANALYZE";
    const IN_APP: &str = "\
        SELECT m.chat, m.number, m.body, m.created_at FROM messages_fts JOIN messages m ON m.id = messages_fts.rowid \
        WHERE messages_fts MATCH ?1 AND m.app = ?2 ORDER BY messages_fts.rowid DESC LIMIT ?3";
    const IN_CHAT: &str = "\
        SELECT m.chat, m.number, m.body, m.created_at FROM messages_fts JOIN messages m ON m.id = messages_fts.rowid \
        WHERE messages_fts MATCH ?1 AND m.app = ?2 AND m.chat = ?4 ORDER BY messages_fts.rowid DESC LIMIT ?3";

    const COUNT_IN_APP: &str = "\
        SELECT count(*) FROM messages_fts JOIN messages m ON m.id = messages_fts.rowid \
        WHERE messages_fts MATCH ?1 AND m.app = ?2";
    const COUNT_IN_CHAT: &str = "\
        SELECT count(*) FROM messages_fts JOIN messages m ON m.id = messages_fts.rowid \
        WHERE messages_fts MATCH ?1 AND m.app = ?2 AND m.chat = ?3";

    /// Stores and indexes the messages of a seeded log.
    pub async fn new(path: &Path, seeded_log: &SeededLog) -> io::Result<Self> {
        let (path, seeded_log) = (path.to_owned(), seeded_log.clone());
        let fill = move || -> rusqlite::Result<_> {
            let mut connection = rusqlite::Connection::open(path)?;
            connection.execute_batch(Self::SCHEMA)?;
            let transaction = connection.transaction()?;
            for nth in 0..seeded_log.messages {
                let message = seeded_log.message(nth);
                let mut insert =
                    transaction.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                let app = seeded_log.token.expose();
                insert.execute((nth + 1, app, message.chat, message.number, message.body, nth))?;
            }
            transaction.commit()?;
            connection.execute_batch(Self::INDEX)?;
            Ok(connection)
        };
        let connection = tokio::task::spawn_blocking(fill).await.map_err(io::Error::other)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection.map_err(io::Error::other)?)) })
    }

    /// Runs each query.
    pub async fn run_queries(
        &self,
        app: &str,
        queries: &Arc<[Query]>,
        scope: Scope,
        requested: RequestedResult,
    ) -> io::Result<QueryResults> {
        let (connection, app) = (Arc::clone(&self.connection), app.to_owned());
        let queries = Arc::clone(queries);
        let run = move || {
            let connection = connection.lock().map_err(|_| io::Error::other("a query panicked"))?;
            time_queries(&queries, |query| {
                let hits = Self::run_query(&connection, &app, query, scope, requested);
                hits.map(|count| count > 0).map_err(io::Error::other)
            })
        };
        tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
    }

    fn run_query(
        connection: &rusqlite::Connection,
        app: &str,
        query: &Query,
        scope: Scope,
        requested: RequestedResult,
    ) -> rusqlite::Result<usize> {
        let text = format!("\"{}\"", query.text);
        let (page, count) = match scope {
            Scope::App => (Self::IN_APP, Self::COUNT_IN_APP),
            Scope::Chat => (Self::IN_CHAT, Self::COUNT_IN_CHAT),
        };
        let mut page = connection.prepare_cached(page)?;
        let mut rows = match scope {
            Scope::App => page.query((&text, app, LIMIT))?,
            Scope::Chat => page.query((&text, app, LIMIT, query.chat))?,
        };
        let mut hits = 0;
        while let Some(row) = rows.next()? {
            let read: (u64, u64, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            std::hint::black_box(read);
            hits += 1;
        }
        if requested == RequestedResult::PageAndTotal {
            let mut count = connection.prepare_cached(count)?;
            let total: u64 = match scope {
                Scope::App => count.query_row((&text, app), |row| row.get(0))?,
                Scope::Chat => count.query_row((&text, app, query.chat), |row| row.get(0))?,
            };
            std::hint::black_box(total);
        }
        Ok(hits)
    }

    /// Returns the disk space of the table and its indexes, in bytes.
    pub async fn bytes(&self) -> io::Result<f64> {
        let connection = Arc::clone(&self.connection);
        let run = move || {
            let connection = connection.lock().map_err(|_| io::Error::other("a query panicked"))?;
            let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
            let bytes = connection.query_row(size, (), |row| row.get::<_, f64>(0)).optional();
            Ok(bytes.map_err(io::Error::other)?.unwrap_or_default())
        };
        tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
    }
}

/// Postgres with a trigram index over a table of messages.
pub struct PgTrgm {
    connection: PgConnection,
    url: String,
}

impl PgTrgm {
    const SCHEMA: &str = "\
        CREATE EXTENSION pg_trgm; \
        CREATE TABLE messages (id bigint PRIMARY KEY, app text NOT NULL, chat bigint NOT NULL, \
            number bigint NOT NULL, body text NOT NULL, created_at bigint NOT NULL)";
    const INDEX: &str = "\
        CREATE INDEX ON messages USING gin (body gin_trgm_ops); \
        CREATE UNIQUE INDEX ON messages (app, chat, number)";
    const INSERT: &str = "INSERT INTO messages SELECT id, $1, chat, number, body, id \
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) AS rows (id, chat, number, body)";
    const IN_APP: &str = "SELECT chat, number, body, created_at FROM messages \
        WHERE app = $1 AND body ILIKE $2 ORDER BY id DESC LIMIT $3";
    const IN_CHAT: &str = "SELECT chat, number, body, created_at FROM messages \
        WHERE app = $1 AND chat = $4 AND body ILIKE $2 ORDER BY number DESC LIMIT $3";
    const COUNT_IN_APP: &str = "SELECT count(*) FROM messages WHERE app = $1 AND body ILIKE $2";
    const COUNT_IN_CHAT: &str =
        "SELECT count(*) FROM messages WHERE app = $1 AND body ILIKE $2 AND chat = $3";

    /// Stores and indexes the messages of a seeded log.
    pub async fn new(server: &Arc<chat_testing::Postgres>, seeded_log: &SeededLog) -> io::Result<Self> {
        let url = postgres::create_unicode_database(server).await?;
        let mut connection = postgres::connect(&url).await?;
        let error = io::Error::other;
        sqlx::raw_sql(Self::SCHEMA).execute(&mut connection).await.map_err(error)?;
        for first in (0..seeded_log.messages).step_by(ROWS_PER_INSERT) {
            let (mut ids, mut chats, mut numbers, mut bodies) = (vec![], vec![], vec![], vec![]);
            for nth in first..(first + ROWS_PER_INSERT as u64).min(seeded_log.messages) {
                let message = seeded_log.message(nth);
                ids.push(nth.cast_signed() + 1);
                chats.push(message.chat.cast_signed());
                numbers.push(message.number.cast_signed());
                bodies.push(message.body);
            }
            let insert = sqlx::query(Self::INSERT).bind(seeded_log.token.expose()).bind(ids).bind(chats);
            insert.bind(numbers).bind(bodies).execute(&mut connection).await.map_err(error)?;
        }
        sqlx::raw_sql(Self::INDEX).execute(&mut connection).await.map_err(error)?;
        sqlx::raw_sql("VACUUM ANALYZE messages").execute(&mut connection).await.map_err(error)?;
        // Makes Postgres plan each query: rare and frequent matches need different plans.
        let custom = sqlx::raw_sql("SET plan_cache_mode = force_custom_plan");
        custom.execute(&mut connection).await.map_err(error)?;
        Ok(Self { connection, url })
    }

    /// Runs each query.
    pub async fn run_queries(
        &mut self,
        app: &str,
        queries: &[Query],
        scope: Scope,
        requested: RequestedResult,
    ) -> io::Result<QueryResults> {
        let (mut latencies, mut queries_with_hits) = (Latencies::new(), 0);
        for query in queries {
            let start = Instant::now();
            let hits = self.run_query(app, query, scope, requested).await.map_err(io::Error::other)?;
            latencies.record_latency(start.elapsed());
            queries_with_hits += usize::from(hits > 0);
        }
        Ok(QueryResults { latencies: latencies.latency_percentiles(), queries_with_hits })
    }

    async fn run_query(
        &mut self,
        app: &str,
        query: &Query,
        scope: Scope,
        requested: RequestedResult,
    ) -> sqlx::Result<usize> {
        let (page, count, chat) = match scope {
            Scope::App => (Self::IN_APP, Self::COUNT_IN_APP, None),
            Scope::Chat => (Self::IN_CHAT, Self::COUNT_IN_CHAT, Some(query.chat.cast_signed())),
        };
        let pattern = format!("%{}%", query.text);
        let mut rows = sqlx::query_as::<_, (i64, i64, String, i64)>(page).bind(app).bind(&pattern);
        rows = rows.bind(i64::from(LIMIT));
        let mut total = sqlx::query_scalar::<_, i64>(count).bind(app).bind(&pattern);
        if let Some(chat) = chat {
            (rows, total) = (rows.bind(chat), total.bind(chat));
        }
        let hits = rows.fetch_all(&mut self.connection).await?.len();
        if requested == RequestedResult::PageAndTotal {
            std::hint::black_box(total.fetch_one(&mut self.connection).await?);
        }
        Ok(hits)
    }

    /// Returns the disk space of the table and its indexes, in bytes.
    pub async fn bytes(&self) -> io::Result<f64> {
        postgres::database_size(&self.url).await
    }

    /// Closes the connection.
    pub async fn close(self) -> io::Result<()> {
        self.connection.close().await.map_err(io::Error::other)
    }
}

/// Runs queries one after another. `run` returns whether a query has hits.
fn time_queries<T>(queries: &[T], mut run: impl FnMut(&T) -> io::Result<bool>) -> io::Result<QueryResults> {
    let (mut latencies, mut queries_with_hits) = (Latencies::new(), 0);
    for query in queries {
        let start = Instant::now();
        queries_with_hits += usize::from(run(query)?);
        latencies.record_latency(start.elapsed());
    }
    Ok(QueryResults { latencies: latencies.latency_percentiles(), queries_with_hits })
}
