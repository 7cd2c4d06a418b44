-- Partners, their API keys and their webhook endpoints: configuration, written by admin-api (endpoints also by
-- ingest). Secrets are sealed with AES-256-GCM under keys that are never in the database.

CREATE TABLE partners (
    id                  BINARY(16)       NOT NULL,
    name                VARCHAR(100)     NOT NULL,
    -- 1 active, 2 suspended.
    status              TINYINT UNSIGNED NOT NULL,
    livemode            TINYINT UNSIGNED NOT NULL,
    -- Requests that the partner may make in a second, sustained.
    requests_per_second INT UNSIGNED     NOT NULL,
    created_at          DATETIME(6)      NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE api_keys (
    id            BINARY(16)       NOT NULL,
    partner_id    BINARY(16)       NOT NULL,
    -- The HMAC key, sealed; bound to this table, column and row.
    secret_sealed VARBINARY(255)   NOT NULL,
    -- A bit for each scope.
    scopes        INT UNSIGNED     NOT NULL,
    created_at    DATETIME(6)      NOT NULL,
    revoked_at    DATETIME(6)      NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE endpoints (
    id          BINARY(16)       NOT NULL,
    partner_id  BINARY(16)       NOT NULL,
    url         VARCHAR(2048)    NOT NULL,
    -- Types it receives, comma separated; NULL for all.
    event_types VARCHAR(1000) CHARACTER SET ascii COLLATE ascii_bin NULL,
    api_version VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- An ed25519 signing key, sealed, for endpoints that also want v1a signatures.
    signing_key_sealed VARBINARY(255) NULL,
    created_at  DATETIME(6)      NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- Is there a new one: the notifier asks before each batch of events, so that none is missed.
    KEY endpoints_created (created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE endpoint_secrets (
    id            BINARY(16)     NOT NULL,
    endpoint_id   BINARY(16)     NOT NULL,
    -- The text `whsec_…`, sealed; bound to this table, column and row.
    secret_sealed VARBINARY(255) NOT NULL,
    created_at    DATETIME(6)    NOT NULL,
    -- Until when it signs along after a rotation; NULL for the current secret.
    expires_at    DATETIME(6)    NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
