-- What was done, so that it can be found and proven: the chain of the audit log, and the calls of both APIs.

-- A link for each row of audit_log, in the order in which the sealer met them: the order of the chain is the order of
-- its numbers, whatever the ids say. Nobody may UPDATE or DELETE here.
CREATE TABLE audit_chain (
    -- Counts from 1 without gaps. Two that seal at once take the same number, so one of them fails.
    number   BIGINT UNSIGNED NOT NULL,
    audit_id BINARY(16)      NOT NULL,
    -- SHA-256 of the hash before, the number and every column of the row.
    hash     BINARY(32)      NOT NULL,
    PRIMARY KEY (number) /*T![clustered_index] CLUSTERED */,
    -- Is this row sealed, and where does it stand.
    UNIQUE KEY audit_chain_id (audit_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Rows of audit_log that have no link yet: written in the transaction of the row, deleted in the one that seals it. A
-- row that commits minutes after its id was drawn is found like any other, and looking costs nothing however long the
-- log is.
CREATE TABLE audit_unsealed (
    audit_id BINARY(16) NOT NULL,
    PRIMARY KEY (audit_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO audit_unsealed (audit_id) SELECT id FROM audit_log;

-- What was done to something, newest first (GET /v1/audit).
ALTER TABLE audit_log ADD KEY audit_log_of_target (target, id);
ALTER TABLE changes ADD KEY changes_of_target (target_id, source, kafka_partition, kafka_offset);

-- Requests to the two APIs, loaded from the topic api.calls.v1 and clustered by their place in it, so that rows are
-- appended and each is there once. Kept for 90 days.
CREATE TABLE api_calls (
    kafka_partition SMALLINT UNSIGNED NOT NULL,
    kafka_offset    BIGINT UNSIGNED   NOT NULL,
    -- When it came; nearly in the order of offsets.
    at              DATETIME(6)       NOT NULL,
    -- 1 the partners' API, 2 the bank's.
    service         TINYINT UNSIGNED  NOT NULL,
    method          VARCHAR(10) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The template, such as /v1/payments/{id}.
    route           VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    status          SMALLINT UNSIGNED NOT NULL,
    duration_us     INT UNSIGNED      NOT NULL,
    request_id      BINARY(16)        NOT NULL,
    -- Who; NULL when nobody was recognised.
    partner_id      BINARY(16)        NULL,
    -- The API key or the user.
    actor_id        BINARY(16)        NULL,
    -- The payment that was asked for.
    target_id       BINARY(16)        NULL,
    -- The client's network address, 4 or 16 bytes.
    address         VARBINARY(16)     NULL,
    PRIMARY KEY (kafka_partition, kafka_offset) /*T![clustered_index] CLUSTERED */,
    -- What became of a request. A report that had to be sent again is known by it.
    UNIQUE KEY api_calls_request (request_id),
    -- Calls of a partner and of a key or user, newest first.
    KEY api_calls_of_partner (partner_id, at),
    KEY api_calls_of_actor (actor_id, at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How far the topic is loaded, in the transaction of the rows.
CREATE TABLE api_call_positions (
    kafka_partition SMALLINT UNSIGNED NOT NULL,
    next_offset     BIGINT UNSIGNED   NOT NULL,
    PRIMARY KEY (kafka_partition) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO api_call_positions (kafka_partition, next_offset) VALUES (0, 0);

-- Verifications of the audit chain that somebody asked for, and what they found.
CREATE TABLE audit_verifications (
    id          BINARY(16)       NOT NULL,
    asked_by    BINARY(16)       NOT NULL,
    started_at  DATETIME(6)      NOT NULL,
    -- Moves while it runs: one whose process was killed stands still.
    seen_at     DATETIME(6)      NOT NULL,
    -- Links verified so far.
    verified    BIGINT UNSIGNED  NOT NULL,
    -- 1 running, 2 whole, 3 broken, 4 failed.
    status      TINYINT UNSIGNED NOT NULL,
    -- The report as JSON; NULL while it runs.
    report      TEXT             NULL,
    -- A UUIDv7: rows come in the order of time.
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO leases (name, holder, expires_at) VALUES
    ('audit_sealer', REPEAT(0x00, 16), '2000-01-01'), ('api_calls', REPEAT(0x00, 16), '2000-01-01'),
    ('audit_verification', REPEAT(0x00, 16), '2000-01-01');
