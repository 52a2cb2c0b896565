-- Ids are log positions: of the AppCreated, ChatCreated or MessageCreated event. Rows are inserted in that order, so
-- the tables grow at their end; a token of 36 characters stands in `apps` alone.
CREATE TABLE apps (
    id         INTEGER PRIMARY KEY,
    token      TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    chat_count INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE chats (
    id            INTEGER PRIMARY KEY,
    app_id        INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    last_message  INTEGER NOT NULL, -- 0: none yet
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX chats_by_number ON chats (app_id, number);

CREATE TABLE messages (
    id         INTEGER PRIMARY KEY,
    chat_id    INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_by_number ON messages (chat_id, number);

-- Deleted messages move here, so that a page of `messages` never steps over them.
CREATE TABLE deleted_messages (
    chat_id    INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    id         INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER NOT NULL,
    PRIMARY KEY (chat_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    position   INTEGER PRIMARY KEY,
    stream     TEXT    NOT NULL,
    event_type TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    parked_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE checkpoint (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    log      TEXT, -- the log's id; NULL until something was folded
    position INTEGER NOT NULL
) STRICT;
INSERT INTO checkpoint VALUES (1, NULL, 0);
