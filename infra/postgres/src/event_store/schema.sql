CREATE TABLE chat_event_log.log (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    id uuid NOT NULL,
    version integer NOT NULL
);

CREATE TABLE chat_event_log.incarnations (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    began_after bigint NOT NULL,
    began_at bigint NOT NULL,
    reason text NOT NULL,
    replaces uuid[] NOT NULL
);

CREATE TABLE chat_event_log.streams (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- Rows are only added, so the first vacuum that sees a page freezes it, and no later one has to.
CREATE TABLE chat_event_log.events (
    position bigint NOT NULL,
    stream bigint NOT NULL,
    revision bigint NOT NULL,
    recorded_at bigint NOT NULL,
    id uuid NOT NULL,
    schema_version integer NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    data text NOT NULL,
    metadata text NOT NULL,
    CONSTRAINT events_by_position PRIMARY KEY (position),
    CONSTRAINT events_in_stream UNIQUE (stream, revision),
    CONSTRAINT events_by_id UNIQUE (id)
) WITH (autovacuum_freeze_min_age = 0);

-- The edits and deletions of a chat are found without reading its messages.
CREATE INDEX events_changing ON chat_event_log.events (stream, revision) WHERE event_type <> 'MessageCreated';

CREATE FUNCTION chat_event_log.refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'CH004', MESSAGE = 'the event log is append-only: ' || TG_OP || ' is refused';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON chat_event_log.log
    FOR EACH STATEMENT EXECUTE FUNCTION chat_event_log.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON chat_event_log.incarnations
    FOR EACH STATEMENT EXECUTE FUNCTION chat_event_log.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON chat_event_log.streams
    FOR EACH STATEMENT EXECUTE FUNCTION chat_event_log.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON chat_event_log.events
    FOR EACH STATEMENT EXECUTE FUNCTION chat_event_log.refuse_change();

CREATE FUNCTION chat_event_log.current_id() RETURNS uuid
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(
        (SELECT i.id FROM chat_event_log.incarnations i ORDER BY i.number DESC LIMIT 1),
        (SELECT l.id FROM chat_event_log.log l)
    )
$$;

-- Locks the log for appends until the end of the transaction, and returns its head. Each statement after the lock sees
-- all transactions that held it before, because a transaction becomes visible before it releases its locks. That needs
-- a snapshot for each statement, as in READ COMMITTED. A durable commit is not left to the settings of the server.
CREATE FUNCTION chat_event_log.lock_for_append() RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'CH003', MESSAGE = 'appends need the isolation level READ COMMITTED';
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM 1 FROM chat_event_log.log FOR UPDATE;
    RETURN (SELECT coalesce(max(e.position), 0) FROM chat_event_log.events e);
END
$$;

-- Appends to any number of streams. Item n of the first two arrays is one append; the other arrays have its events,
-- with n in event_appends. Returns for each append whether it was stored now, and otherwise the position of its last
-- event if the same events were stored earlier, or NULL. The events that were stored now have the positions after
-- old_head, in order.
--
-- incarnation: the log that the caller means. seen_position, seen_id: an event that the caller knows to be in it.
CREATE FUNCTION chat_event_log.append(
    incarnation uuid,
    seen_position bigint,
    seen_id uuid,
    stream_names text[],
    expected_revisions bigint[],
    event_appends integer[],
    event_revisions bigint[],
    event_ids uuid[],
    event_types text[],
    event_versions integer[],
    event_times bigint[],
    event_data text[],
    event_metadata text[],
    OUT old_head bigint,
    OUT stored_now boolean[],
    OUT stored_earlier bigint[]
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    stream_ids bigint[];
    new_head bigint;
BEGIN
    old_head := chat_event_log.lock_for_append();
    IF incarnation IS DISTINCT FROM chat_event_log.current_id() THEN
        RAISE EXCEPTION USING ERRCODE = 'CH001', MESSAGE = 'another incarnation of the log has begun';
    END IF;
    IF seen_position > 0 AND NOT EXISTS (
        SELECT FROM chat_event_log.events e WHERE e.position = seen_position AND e.id = seen_id
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'CH002', MESSAGE = 'the log has lost events: it ends at position ' || old_head;
    END IF;

    INSERT INTO chat_event_log.streams (name)
    SELECT a.name
    FROM unnest(stream_names, expected_revisions) WITH ORDINALITY AS a (name, expected, n)
    WHERE a.expected = -1 AND NOT EXISTS (SELECT FROM chat_event_log.streams s WHERE s.name = a.name)
    ORDER BY a.n;

    SELECT array_agg(coalesce(s.id, 0) ORDER BY a.n), array_agg(coalesce(last.revision, -1) = a.expected ORDER BY a.n)
    INTO stream_ids, stored_now
    FROM unnest(stream_names, expected_revisions) WITH ORDINALITY AS a (name, expected, n)
    LEFT JOIN chat_event_log.streams s ON s.name = a.name
    LEFT JOIN LATERAL (
        SELECT e.revision FROM chat_event_log.events e WHERE e.stream = s.id ORDER BY e.revision DESC LIMIT 1
    ) last ON true;

    INSERT INTO chat_event_log.events
        (position, stream, revision, recorded_at, id, schema_version, event_type, data, metadata)
    SELECT old_head + row_number() OVER (ORDER BY e.n), stream_ids[e.append], e.revision, e.recorded_at, e.id,
        e.schema_version, e.event_type, e.data, e.metadata
    FROM unnest(event_appends, event_revisions, event_ids, event_types, event_versions, event_times, event_data,
        event_metadata) WITH ORDINALITY
        AS e (append, revision, id, event_type, schema_version, recorded_at, data, metadata, n)
    WHERE stored_now[e.append]
    ORDER BY e.n;
    GET DIAGNOSTICS new_head = ROW_COUNT;
    new_head := old_head + new_head;

    IF false = ANY (stored_now) THEN
        SELECT array_agg(found.position ORDER BY found.append)
        INTO stored_earlier
        FROM (
            SELECT e.append, CASE WHEN count(s.position) = count(*) THEN max(s.position) END AS position
            FROM unnest(event_appends, event_revisions, event_ids) AS e (append, revision, id)
            LEFT JOIN chat_event_log.events s
                ON s.stream = stream_ids[e.append] AND s.revision = e.revision AND s.id = e.id
            GROUP BY e.append
        ) found;
    END IF;
    IF new_head > old_head THEN
        PERFORM pg_notify('chat_event_log', new_head::text);
    END IF;
END
$$;

-- Begins an incarnation, unless it has begun already.
CREATE FUNCTION chat_event_log.begin_incarnation(
    new_id uuid, new_began_at bigint, new_reason text, new_replaces uuid[]
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    head bigint := chat_event_log.lock_for_append();
BEGIN
    INSERT INTO chat_event_log.incarnations (id, began_after, began_at, reason, replaces)
    SELECT new_id, head, new_began_at, new_reason, new_replaces
    WHERE NOT EXISTS (SELECT FROM chat_event_log.incarnations i WHERE i.id = new_id);
END
$$;

-- Only users with a grant may call the functions.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chat_event_log FROM PUBLIC;

COMMENT ON TABLE chat_event_log.log IS 'chat-api event log';
