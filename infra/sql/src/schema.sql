-- Ids are log positions: of the AppCreated, ChatCreated or MessageCreated event. Rows are inserted in that order,
-- except those of retried dead letters, so `apps`, `chats` and `messages` grow at their end. Chats and messages do not
-- repeat the app's token of 36 characters. Times are milliseconds since 1970.
CREATE TABLE apps (
    id         BIGINT PRIMARY KEY,
    token      TEXT   NOT NULL UNIQUE,
    name       TEXT   NOT NULL,
    chat_count BIGINT NOT NULL,
    last_chat  BIGINT NOT NULL, -- 0: none yet; may exceed chat_count if a creation event was discarded
    version    BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) /* options */;

CREATE TABLE chats (
    id            BIGINT PRIMARY KEY,
    app_id        BIGINT NOT NULL,
    number        BIGINT NOT NULL,
    message_count BIGINT NOT NULL,
    last_message  BIGINT NOT NULL, -- 0: none yet
    version       BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
) /* options */;
CREATE UNIQUE INDEX chats_by_number ON chats (app_id, number);

CREATE TABLE messages (
    id         BIGINT PRIMARY KEY,
    chat_id    BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    -- Programs of versions without senders and data read and write the table without these columns.
    sender_id   TEXT,
    sender_name TEXT,
    data        TEXT
) /* options */;
CREATE UNIQUE INDEX messages_by_number ON messages (chat_id, number);
CREATE INDEX messages_by_sender ON messages (chat_id, sender_id, number) WHERE sender_id IS NOT NULL;

-- Deleted messages move here, so that a page of `messages` never steps over them.
CREATE TABLE deleted_messages (
    chat_id    BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    id         BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT NOT NULL,
    PRIMARY KEY (chat_id, number)
) /* options of a table that is its key's index */;

CREATE TABLE dead_letters (
    position       BIGINT PRIMARY KEY,
    stream         TEXT   NOT NULL,
    revision       BIGINT NOT NULL,
    event_type     TEXT   NOT NULL,
    reason         TEXT   NOT NULL,
    parked_at      BIGINT NOT NULL,
    discarded      BIGINT NOT NULL, -- position of the operator action; 0: pending
    discarded_at   BIGINT NOT NULL,
    discard_reason TEXT   NOT NULL,
    acknowledged   BIGINT NOT NULL  -- position of the operator action; 0: not acknowledged
) /* options */;

-- One row. Every query looks it up by the version of the tables that the query was written for, and so never answers
-- from tables of another version.
CREATE TABLE checkpoint (
    layout   BIGINT PRIMARY KEY,
    log      TEXT, -- the log's id; NULL in a new read model
    position BIGINT NOT NULL
) /* options */;
