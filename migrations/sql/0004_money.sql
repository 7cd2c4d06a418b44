-- Every movement of money: two-phase payments, refunds, transfers, withdrawals and reversals.

-- A void or an expiry moves nothing, and a command on a payment that is not there has no amount or currency.
ALTER TABLE payments
    DROP CHECK payments_amount,
    ADD CONSTRAINT payments_amount CHECK (amount_minor >= 0),
    MODIFY COLUMN currency CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- Until when an authorised payment may be captured.
    ADD COLUMN expires_at DATETIME(6) NULL,
    -- A second partner that was told, the owner of the credited account, and the event.
    ADD COLUMN told_partner_id BINARY(16) NULL,
    ADD COLUMN told_sequence BIGINT UNSIGNED NULL,
    -- A partner's payments, newest first (GET /v1/payments). The primary key comes before kind and status, which are
    -- there to be filtered by: the order of a list must not depend on a status, which changes.
    ADD KEY payments_of_partner
        (partner_id, accepted_at, source, kafka_partition, kafka_offset, kind, status),
    -- The same of one mandate. Of a partner, since anybody can name a foreign mandate in a payment.
    ADD KEY payments_of_mandate (partner_id, mandate_id, accepted_at),
    -- The same of one reference.
    ADD KEY payments_of_reference (partner_id, reference, accepted_at);

ALTER TABLE accounts
    -- 0: test money, of test partners and the sandbox. It never mixes with real money, whatever becomes of the owner.
    ADD COLUMN livemode TINYINT UNSIGNED NOT NULL DEFAULT 1;

-- Captures, voids, expiries, refunds and reversals by the payment they belong to. A table of its own, so that the
-- payments that have none pay for no index.
CREATE TABLE follow_ups (
    root_id    BINARY(16) NOT NULL,
    payment_id BINARY(16) NOT NULL,
    PRIMARY KEY (root_id, payment_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Funds reserved by authorised, uncaptured payments. A row is deleted when its hold ends: payments keep the history.
CREATE TABLE holds (
    account_id      BINARY(16)        NOT NULL,
    payment_id      BINARY(16)        NOT NULL,
    -- The partition of the partner commands that the payment came by, whose owner expires it.
    kafka_partition SMALLINT UNSIGNED NOT NULL,
    amount_minor    BIGINT            NOT NULL,
    expires_at      DATETIME(6)       NOT NULL,
    PRIMARY KEY (account_id, payment_id) /*T![clustered_index] CLUSTERED */,
    -- Holds that are due, by partition.
    KEY holds_due (kafka_partition, expires_at),
    CONSTRAINT holds_amount CHECK (amount_minor > 0)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

ALTER TABLE mandates
    -- A mandate that was declined or given up before it was granted has no account.
    MODIFY COLUMN account_id BINARY(16) NULL,
    -- Mandates whose time has come.
    ADD KEY mandates_due (status, expires_at),
    -- Mandates of a partner, newest first (GET /v1/mandates), and of an account.
    ADD KEY mandates_of_partner (partner_id, granted_at),
    ADD KEY mandates_of_account (account_id);

-- What partners ask customers for. Written by ingest; the answer is a bank command, and the mandate a row of the
-- ledger with the same id.
CREATE TABLE mandate_requests (
    id                BINARY(16)       NOT NULL,
    partner_id        BINARY(16)       NOT NULL,
    kind              TINYINT UNSIGNED NOT NULL,
    currency          CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    payment_max_minor BIGINT           NULL,
    daily_max_minor   BIGINT           NULL,
    -- From when on the mandate, once granted, authorises nothing.
    expires_at        DATETIME(6)      NULL,
    reference         VARCHAR(100)     NULL,
    return_url        VARCHAR(2048)    NULL,
    -- SHA-256 of the code that the customer enters.
    code_hash         BINARY(32)       NOT NULL,
    -- Until when it may be answered.
    answer_by         DATETIME(6)      NOT NULL,
    created_at        DATETIME(6)      NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- The request of a code.
    UNIQUE KEY mandate_requests_code (code_hash),
    -- Requests of a partner, newest first (GET /v1/mandates).
    KEY mandate_requests_of_partner (partner_id, created_at),
    -- Requests that nobody answered in time.
    KEY mandate_requests_due (answer_by)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Where customers may be sent after they answered a request: `return_url` of a request lies under one of these URLs.
CREATE TABLE return_urls (
    partner_id BINARY(16)   NOT NULL,
    url        VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (partner_id, url) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

ALTER TABLE dead_letters
    -- 1 open, 2 redriven, 3 rejected; by which row of changes.
    ADD COLUMN change_id BINARY(16) NULL,
    -- What a redrive applied, whose events may still have to be announced.
    ADD KEY dead_letters_of_change (change_id);
