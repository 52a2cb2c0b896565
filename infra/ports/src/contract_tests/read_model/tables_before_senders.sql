-- The tables (version 3) that programs without senders and data created, with the rows that `commit_chat_with_messages`
-- of the contract suite commits for three messages.
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
    body       TEXT   NOT NULL
) /* options */;
CREATE UNIQUE INDEX messages_by_number ON messages (chat_id, number);

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

CREATE TABLE checkpoint (
    layout   BIGINT PRIMARY KEY,
    log      TEXT, -- the log's id; NULL in a new read model
    position BIGINT NOT NULL
) /* options */;

INSERT INTO apps (id, token, name, chat_count, last_chat, version, created_at, updated_at)
VALUES (1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'app a', 1, 1, 2, 1790000000001, 1790000000002);
INSERT INTO chats (number, message_count, version, created_at, updated_at, id, app_id, last_message)
VALUES (1, 3, 0, 1790000000003, 1790000000004, 2, 1, 3);
INSERT INTO messages (number, body, version, created_at, updated_at, id, chat_id) VALUES
    (1, 'message 1', 1, 1790000000005, 1790000000006, 11, 2),
    (2, 'message 2', 1, 1790000000005, 1790000000006, 12, 2),
    (3, 'message 3', 1, 1790000000005, 1790000000006, 13, 2);
INSERT INTO checkpoint (layout, log, position) VALUES (3, '00000000-0000-0000-0000-000000000001', 1000);
