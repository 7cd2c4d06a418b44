-- What the notifier knows of its work. Only the notifier writes here.

-- How an endpoint fares. A table of its own, because the notifier may write this and not the endpoint.
CREATE TABLE endpoint_states (
    endpoint_id     BINARY(16)   NOT NULL,
    -- Since when every attempt has failed; NULL after a success.
    failing_since   DATETIME(6)  NULL,
    -- No deliveries are created while disabled.
    disabled_at     DATETIME(6)  NULL,
    disabled_reason VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NULL,
    PRIMARY KEY (endpoint_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One event to one endpoint, over all its attempts. Event ids of a partner sort by sequence, so the rows of an
-- endpoint are appended and read in order.
CREATE TABLE deliveries (
    endpoint_id     BINARY(16)       NOT NULL,
    event_id        BINARY(16)       NOT NULL,
    partner_id      BINARY(16)       NOT NULL,
    -- 1 pending, 2 delivered, 3 dead.
    status          TINYINT UNSIGNED NOT NULL,
    attempts        TINYINT UNSIGNED NOT NULL,
    -- When the next attempt is due, or when the lease of the running one ends; NULL when there is none.
    next_attempt_at DATETIME(6)      NULL,
    -- Who attempts now; another may take it once next_attempt_at has passed.
    leased_by       BINARY(16)       NULL,
    created_at      DATETIME(6)      NOT NULL,
    finished_at     DATETIME(6)      NULL,
    PRIMARY KEY (endpoint_id, event_id) /*T![clustered_index] CLUSTERED */,
    -- Attempts that are due, endpoint by endpoint: one with a huge backlog is passed over at no cost.
    KEY deliveries_due (endpoint_id, next_attempt_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One HTTP request of a delivery.
CREATE TABLE attempts (
    endpoint_id BINARY(16)        NOT NULL,
    event_id    BINARY(16)        NOT NULL,
    attempt     TINYINT UNSIGNED  NOT NULL,
    started_at  DATETIME(6)       NOT NULL,
    duration_us INT UNSIGNED      NOT NULL,
    -- The HTTP status, NULL when there was no answer.
    status_code SMALLINT UNSIGNED NULL,
    -- Why it failed, as a word of a closed set; NULL for a success.
    error_class VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- The beginning of the answer's body of a failure.
    excerpt     VARBINARY(1024)   NULL,
    PRIMARY KEY (endpoint_id, event_id, attempt) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
