-- The ledger. Only the processor writes these tables; each of its transactions applies one batch of commands
-- together with the position it came from, so that a command is applied once or not at all.
--
-- Ids are BINARY(16) UUIDs, money is BIGINT minor units beside its currency, time is UTC. Codes are the small
-- numbers of the domain crate's closed sets. No foreign keys: every row is written by one program that has just
-- read what it refers to, and the checks would cost a lock each on the hot path.

-- An account and its balance. One narrow row, because every posting rewrites two of them and the binary log
-- carries each image twice.
CREATE TABLE accounts (
    id                BINARY(16)       NOT NULL,
    owner_kind        TINYINT UNSIGNED NOT NULL,
    owner_id          BINARY(16)       NOT NULL,
    currency          CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    status            TINYINT UNSIGNED NOT NULL,
    balance_minor     BIGINT           NOT NULL,
    held_minor        BIGINT           NOT NULL,
    overdraft_minor   BIGINT           NOT NULL,
    payment_max_minor BIGINT           NULL,
    daily_max_minor   BIGINT           NULL,
    -- The bank's day (days since 1970-01-01) that spent_minor counts; it never goes back.
    spent_day         INT              NOT NULL,
    spent_minor       BIGINT           NOT NULL,
    -- How many entries the account has; the version of the last one.
    version           BIGINT UNSIGNED  NOT NULL,
    -- The hash of the last entry: the head of the account's chain (zeros before the first).
    head              BINARY(32)       NOT NULL,
    -- The time of the last entry (of the opening before the first): entries never go back in time.
    entered_at        DATETIME(6)      NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- Balances of one owner (GET /v1/balances).
    KEY accounts_of_owner (owner_kind, owner_id),
    CONSTRAINT accounts_held CHECK (held_minor >= 0 AND overdraft_minor >= 0),
    -- The bank's own accounts (owner_kind 3) mirror money outside and may go below zero.
    CONSTRAINT accounts_available CHECK (owner_kind = 3 OR balance_minor + overdraft_minor - held_minor >= 0)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The account that a partner's payments in a currency are credited to: its first one. Never changed, so that
-- readers may remember it.
CREATE TABLE settlement_accounts (
    partner_id BINARY(16) NOT NULL,
    currency   CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    account_id BINARY(16) NOT NULL,
    PRIMARY KEY (partner_id, currency) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row for every command that asked to move money, whatever became of it. Clustered by the position of the
-- command, so that rows are appended: a random id as primary key would write all over a large table.
CREATE TABLE payments (
    source           TINYINT UNSIGNED  NOT NULL,
    kafka_partition  SMALLINT UNSIGNED NOT NULL,
    kafka_offset     BIGINT UNSIGNED   NOT NULL,
    id               BINARY(16)        NOT NULL,
    root_id          BINARY(16)        NOT NULL,
    kind             TINYINT UNSIGNED  NOT NULL,
    status           TINYINT UNSIGNED  NOT NULL,
    reason           TINYINT UNSIGNED  NULL,
    version          INT UNSIGNED      NOT NULL,
    partner_id       BINARY(16)        NULL,
    mandate_id       BINARY(16)        NULL,
    currency         CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    amount_minor     BIGINT            NOT NULL,
    captured_minor   BIGINT            NOT NULL,
    refunded_minor   BIGINT            NOT NULL,
    -- The two entries of the posting, as (account, version); NULL when nothing moved.
    debit_account    BINARY(16)        NULL,
    debit_version    BIGINT UNSIGNED   NULL,
    credit_account   BINARY(16)        NULL,
    credit_version   BIGINT UNSIGNED   NULL,
    -- The partner's event that told the outcome, as a sequence; NULL when nobody is told.
    event_sequence   BIGINT UNSIGNED   NULL,
    -- What was asked (a version byte and SHA-256): another request under a used id is a conflict.
    fingerprint      BINARY(33)        NOT NULL,
    livemode         TINYINT UNSIGNED  NOT NULL,
    reference        VARCHAR(100)      NULL,
    description      VARCHAR(200)      NULL,
    metadata         TEXT              NULL,
    -- Who asked: the API key of a partner or the user of the bank; with the request, this is the audit of it.
    actor_id         BINARY(16)        NOT NULL,
    actor_reason     VARCHAR(500)      NULL,
    request_id       BINARY(16)        NOT NULL,
    address          VARBINARY(16)     NULL,
    idempotency_key  VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL,
    accepted_at      DATETIME(6)       NOT NULL,
    decided_at       DATETIME(6)       NOT NULL,
    PRIMARY KEY (source, kafka_partition, kafka_offset) /*T![clustered_index] CLUSTERED */,
    -- Is this command applied already, and what became of it (idempotent replay, GET /v1/payments/{id}).
    UNIQUE KEY payments_id (id),
    CONSTRAINT payments_amount CHECK (amount_minor > 0),
    CONSTRAINT payments_refunded CHECK (refunded_minor >= 0 AND refunded_minor <= captured_minor AND captured_minor <= amount_minor)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row for every command on an account or a mandate: its outcome, and the audit of it.
CREATE TABLE changes (
    source           TINYINT UNSIGNED  NOT NULL,
    kafka_partition  SMALLINT UNSIGNED NOT NULL,
    kafka_offset     BIGINT UNSIGNED   NOT NULL,
    id               BINARY(16)        NOT NULL,
    -- The word of the bank command, as in its JSON.
    kind             VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- NULL: applied. Otherwise why it was rejected.
    reason           TINYINT UNSIGNED  NULL,
    -- The account or mandate.
    target_id        BINARY(16)        NOT NULL,
    -- The partner that was told, and by which event.
    partner_id       BINARY(16)        NULL,
    event_sequence   BIGINT UNSIGNED   NULL,
    fingerprint      BINARY(33)        NOT NULL,
    -- The command as it was asked, JSON.
    command          TEXT              NOT NULL,
    actor_id         BINARY(16)        NOT NULL,
    actor_reason     VARCHAR(500)      NOT NULL,
    request_id       BINARY(16)        NOT NULL,
    address          VARBINARY(16)     NULL,
    accepted_at      DATETIME(6)       NOT NULL,
    decided_at       DATETIME(6)       NOT NULL,
    PRIMARY KEY (source, kafka_partition, kafka_offset) /*T![clustered_index] CLUSTERED */,
    -- Is this command applied already.
    UNIQUE KEY changes_id (id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One debit or credit of an account. A statement, a balance at a past time and a chain are each one range read
-- of the primary key, so there is no other index. Nobody may UPDATE or DELETE here.
CREATE TABLE entries (
    account_id    BINARY(16)       NOT NULL,
    version       BIGINT UNSIGNED  NOT NULL,
    payment_id    BINARY(16)       NOT NULL,
    direction     TINYINT UNSIGNED NOT NULL,
    amount_minor  BIGINT           NOT NULL,
    balance_minor BIGINT           NOT NULL,
    entered_at    DATETIME(6)      NOT NULL,
    -- SHA-256 of the previous entry's hash and this entry.
    hash          BINARY(32)       NOT NULL,
    PRIMARY KEY (account_id, version) /*T![clustered_index] CLUSTERED */,
    CONSTRAINT entries_amount CHECK (amount_minor > 0)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- A customer's authority for a partner to debit an account.
CREATE TABLE mandates (
    id                BINARY(16)       NOT NULL,
    partner_id        BINARY(16)       NOT NULL,
    account_id        BINARY(16)       NOT NULL,
    kind              TINYINT UNSIGNED NOT NULL,
    status            TINYINT UNSIGNED NOT NULL,
    version           INT UNSIGNED     NOT NULL,
    currency          CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    payment_max_minor BIGINT           NULL,
    daily_max_minor   BIGINT           NULL,
    spent_day         INT              NOT NULL,
    spent_minor       BIGINT           NOT NULL,
    expires_at        DATETIME(6)      NULL,
    reference         VARCHAR(100)     NULL,
    granted_at        DATETIME(6)      NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Facts told to a partner, numbered without gaps. The log of a partner is one range read.
CREATE TABLE events (
    partner_id  BINARY(16)        NOT NULL,
    sequence    BIGINT UNSIGNED   NOT NULL,
    epoch       SMALLINT UNSIGNED NOT NULL,
    type        TINYINT UNSIGNED  NOT NULL,
    occurred_at DATETIME(6)       NOT NULL,
    -- The bytes of `data` in the webhook.
    data        MEDIUMTEXT        NOT NULL,
    PRIMARY KEY (partner_id, sequence) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The last sequence given out per partner.
CREATE TABLE partner_sequences (
    partner_id    BINARY(16)        NOT NULL,
    last_sequence BIGINT UNSIGNED   NOT NULL,
    -- Raised by hand when a restore lost sequences that were already sent.
    epoch         SMALLINT UNSIGNED NOT NULL,
    PRIMARY KEY (partner_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How far each partition is applied and announced. The lock of a row is the fence: whoever holds it owns the
-- partition. Rows are created with the schema and never by the processor, since a missing row must stop it.
CREATE TABLE positions (
    source           TINYINT UNSIGNED  NOT NULL,
    kafka_partition  SMALLINT UNSIGNED NOT NULL,
    next_offset      BIGINT UNSIGNED   NOT NULL,
    -- Events of commands below this offset are known to be on the event topic.
    announced_offset BIGINT UNSIGNED   NOT NULL,
    -- SHA-256 of the record at next_offset - 1: notices a topic that was made anew. NULL before the first.
    record_hash      BINARY(32)        NULL,
    PRIMARY KEY (source, kafka_partition) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO positions (source, kafka_partition, next_offset, announced_offset) VALUES
    (1, 0, 0, 0), (1, 1, 0, 0), (1, 2, 0, 0), (1, 3, 0, 0), (1, 4, 0, 0), (1, 5, 0, 0), (1, 6, 0, 0), (1, 7, 0, 0),
    (2, 0, 0, 0), (2, 1, 0, 0), (2, 2, 0, 0), (2, 3, 0, 0);

-- Commands that could not be applied, kept with their reason until an operator redrives or rejects them.
CREATE TABLE dead_letters (
    source          TINYINT UNSIGNED  NOT NULL,
    kafka_partition SMALLINT UNSIGNED NOT NULL,
    kafka_offset    BIGINT UNSIGNED   NOT NULL,
    -- 1: open. Later ones by an operator.
    status          TINYINT UNSIGNED  NOT NULL,
    -- The payment or change that the command asked for; NULL when the record could not be read.
    id              BINARY(16)        NULL,
    -- What the record was keyed by: later commands on it wait behind this one. NULL when the key is no id.
    root_id         BINARY(16)        NULL,
    -- undecodable, data_error or behind_dead_letter.
    reason          VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    detail          VARCHAR(500)      NOT NULL,
    record_key      VARBINARY(1024)   NULL,
    record_value    MEDIUMBLOB        NOT NULL,
    accepted_at     DATETIME(6)       NOT NULL,
    recorded_at     DATETIME(6)       NOT NULL,
    PRIMARY KEY (source, kafka_partition, kafka_offset) /*T![clustered_index] CLUSTERED */,
    -- Is this root blocked by an open dead letter.
    KEY dead_letters_of_root (root_id, status),
    -- Is this payment under review.
    KEY dead_letters_id (id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
