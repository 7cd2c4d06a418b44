-- Webhooks as their owner manages them: settings, notices, and what was asked to be sent again.

ALTER TABLE endpoints
    ADD COLUMN description VARCHAR(200) NULL,
    -- Deliveries in a second, at most; NULL for no limit of its own.
    ADD COLUMN deliveries_per_second INT UNSIGNED NULL,
    -- A JSON object of further request headers, sealed: one of them may be a credential.
    ADD COLUMN headers_sealed VARBINARY(8192) NULL,
    -- Counts changes, for If-Match.
    ADD COLUMN version INT UNSIGNED NOT NULL DEFAULT 1,
    -- Any change of the row moves it. Who changes secrets or the state of an endpoint raises its version as well.
    ADD COLUMN changed_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    DROP KEY endpoints_created,
    -- Is there a new or changed one: the notifier asks before each batch of events, so that none meets old settings.
    ADD KEY endpoints_changed (changed_at),
    -- A partner's endpoints, oldest first (GET /v1/endpoints).
    ADD KEY endpoints_of_partner (partner_id, created_at);

ALTER TABLE endpoint_secrets
    -- Secrets of an endpoint.
    ADD KEY endpoint_secrets_of_endpoint (endpoint_id, created_at);

ALTER TABLE endpoint_states
    -- When the endpoint was disabled: after which sequence its partner's events may have got no delivery. A bound
    -- from below.
    ADD COLUMN missed_after BIGINT UNSIGNED NULL;

ALTER TABLE deliveries
    -- Attempts that were made before it was last asked for again: the schedule begins anew behind them.
    ADD COLUMN attempts_before TINYINT UNSIGNED NOT NULL DEFAULT 0,
    -- Deliveries of an endpoint by status, newest first (GET /v1/deliveries); failed ones since a time; what is too
    -- old to be kept.
    ADD KEY deliveries_of_endpoint (endpoint_id, status, created_at);

ALTER TABLE attempts
    -- Of an attempt that the guard refused: the rule, as a word of a closed set.
    ADD COLUMN refused_by VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NULL;

-- A message to an endpoint that is no event: a ping, a rehearsal (a ping with a flaw), the news that an endpoint was
-- disabled. Inserted together with its row in deliveries by whoever causes it. Its id is random, so it never meets the
-- id of an event.
CREATE TABLE notices (
    endpoint_id     BINARY(16)       NOT NULL,
    id              BINARY(16)       NOT NULL,
    partner_id      BINARY(16)       NOT NULL,
    -- 1 ping, 2 endpoint.disabled.
    type            TINYINT UNSIGNED NOT NULL,
    -- What is wrong with it on purpose: 1 wrong signature, 2 old timestamp, 3 sent twice; NULL for nothing.
    flaw            TINYINT UNSIGNED NULL,
    -- The only secret that signs it; NULL for all that live.
    secret_id       BINARY(16)       NULL,
    -- The bytes of `data` in the webhook.
    data            TEXT             NOT NULL,
    created_at      DATETIME(6)      NOT NULL,
    -- Of a ping: when it is to be sent, or when the lease of the attempt ends; NULL once it is answered.
    next_attempt_at DATETIME(6)      NULL,
    -- Of a ping: 1 passed, 2 failed, 3 the receiver gave no answer.
    verdict         TINYINT UNSIGNED NULL,
    -- By how much the receiver's clock was ahead of ours, by the Date of its answer.
    clock_skew_s    INT              NULL,
    PRIMARY KEY (endpoint_id, id) /*T![clustered_index] CLUSTERED */,
    -- Pings to be sent.
    KEY notices_due (next_attempt_at),
    -- What the last ping that one secret alone signed has shown.
    KEY notices_of_secret (secret_id, created_at),
    -- Endpoints that were disabled since a time, for who tells their owners; notices too old to be kept.
    KEY notices_by_type (type, created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What was asked to be sent to an endpoint (again): ingest inserts, the notifier works it off in steps.
CREATE TABLE replays (
    id            BINARY(16)       NOT NULL,
    endpoint_id   BINARY(16)       NOT NULL,
    partner_id    BINARY(16)       NOT NULL,
    -- 1 one event, 2 what failed since a time, 3 every event of a range, 4 the events of a range without a delivery.
    kind          TINYINT UNSIGNED NOT NULL,
    -- 1 open, 2 done, 3 cancelled.
    status        TINYINT UNSIGNED NOT NULL,
    -- Kind 1.
    event_id      BINARY(16)       NULL,
    -- Kind 2: deliveries first recorded at this time or later, and before the replay was asked for.
    since         DATETIME(6)      NULL,
    -- Kinds 3 and 4: the range, both inclusive.
    from_sequence BIGINT UNSIGNED  NULL,
    to_sequence   BIGINT UNSIGNED  NULL,
    created_at    DATETIME(6)      NOT NULL,
    finished_at   DATETIME(6)      NULL,
    -- When the next step is due; a step moves it first, so that of two notifiers one makes it.
    next_step_at  DATETIME(6)      NOT NULL,
    -- The last that was looked at: a sequence, or a delivery.
    last_sequence BIGINT UNSIGNED  NULL,
    last_at       DATETIME(6)      NULL,
    last_event_id BINARY(16)       NULL,
    -- Deliveries that it made due, and those that it left as they were.
    queued        BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    skipped       BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- Steps to be made.
    KEY replays_due (status, next_step_at),
    -- Replays of an endpoint, newest first; how many are open.
    KEY replays_of_endpoint (endpoint_id, created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Used idempotency keys of writes other than payments, each made in its write's transaction; kept for a day.
CREATE TABLE idempotency_keys (
    partner_id      BINARY(16)        NOT NULL,
    idempotency_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    fingerprint     BINARY(33)        NOT NULL,
    -- What was answered: the HTTP status, the body as JSON without what is shown once, and Location.
    status          SMALLINT UNSIGNED NOT NULL,
    answer          MEDIUMTEXT        NULL,
    location        VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL,
    created_at      DATETIME(6)       NOT NULL,
    PRIMARY KEY (partner_id, idempotency_key) /*T![clustered_index] CLUSTERED */,
    -- Keys that are to be forgotten.
    KEY idempotency_keys_created (created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Who would like to become a partner. A test partner with a sandbox key is made at once; an administrator decides
-- whether it goes live.
CREATE TABLE partner_applications (
    id             BINARY(16)       NOT NULL,
    partner_id     BINARY(16)       NOT NULL,
    -- 1 pending, 2 approved, 3 declined.
    status         TINYINT UNSIGNED NOT NULL,
    -- Name, e-mail and web site of who applied, JSON, sealed under the key of the partners' API keys.
    contact_sealed VARBINARY(4096)  NOT NULL,
    created_at     DATETIME(6)      NOT NULL,
    decided_at     DATETIME(6)      NULL,
    decided_by     BINARY(16)       NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- Applications of a day, which are bounded; those that wait, oldest first.
    KEY partner_applications_created (created_at),
    KEY partner_applications_waiting (status, created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
