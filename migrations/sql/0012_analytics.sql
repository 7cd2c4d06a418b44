-- Figures by hour and day, so that no page reads payments. Written by admin-api, the last table by the notifier.
--
-- Each row is a sum. It is added to in the transaction that moves the position of what was counted, so that nothing
-- counts twice. What comes from the ledger belongs to a generation: counting anew makes the next one beside the one
-- that is shown. Buckets are hours (of UTC) or days (of the bank's zone) since 1970.

CREATE TABLE analytics_generations (
    generation INT UNSIGNED     NOT NULL,
    -- 1 being counted, 2 shown. One row at most is shown.
    status     TINYINT UNSIGNED NOT NULL,
    -- Whose days are counted, by its IANA name.
    time_zone  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    started_at DATETIME(6)      NOT NULL,
    -- When it was last looked whether there is something to count.
    counted_at DATETIME(6)      NOT NULL,
    PRIMARY KEY (generation) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How far commands (sources 1 and 2, as in positions) are counted, and API calls (source 3, generation 0). The lock of
-- a generation's rows is the fence: of two that count at once, the second goes on where the first one ended.
CREATE TABLE analytics_positions (
    generation      INT UNSIGNED      NOT NULL,
    source          TINYINT UNSIGNED  NOT NULL,
    kafka_partition SMALLINT UNSIGNED NOT NULL,
    next_offset     BIGINT UNSIGNED   NOT NULL,
    PRIMARY KEY (generation, source, kafka_partition) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Commands that asked to move money, by what became of each when it was decided. What becomes of a root later is a
-- command of its own (capture, void, expiry, refund), so nothing here is ever taken back.
CREATE TABLE analytics_outcomes (
    generation      INT UNSIGNED     NOT NULL,
    livemode        TINYINT UNSIGNED NOT NULL,
    -- 1 hour, 2 day.
    grain           TINYINT UNSIGNED NOT NULL,
    bucket          INT              NOT NULL,
    kind            TINYINT UNSIGNED NOT NULL,
    -- Empty for a command on nothing.
    currency        CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- A status: posted, rejected, conflicted, authorized.
    outcome         TINYINT UNSIGNED NOT NULL,
    -- 0: none.
    reason          TINYINT UNSIGNED NOT NULL,
    commands        BIGINT UNSIGNED  NOT NULL,
    -- Minor units; a sum of many may be larger than any amount.
    requested_minor DECIMAL(38, 0)   NOT NULL,
    moved_minor     DECIMAL(38, 0)   NOT NULL,
    PRIMARY KEY (generation, livemode, grain, bucket, kind, currency, outcome, reason) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- From accepted to decided.
CREATE TABLE analytics_latency (
    generation INT UNSIGNED      NOT NULL,
    grain      TINYINT UNSIGNED  NOT NULL,
    bucket     INT               NOT NULL,
    -- Of the histogram of the domain crate.
    step       SMALLINT UNSIGNED NOT NULL,
    commands   BIGINT UNSIGNED   NOT NULL,
    PRIMARY KEY (generation, grain, bucket, step) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What partners did, by day.
CREATE TABLE analytics_partners (
    generation     INT UNSIGNED     NOT NULL,
    livemode       TINYINT UNSIGNED NOT NULL,
    day            INT              NOT NULL,
    partner_id     BINARY(16)       NOT NULL,
    currency       CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    commands       BIGINT UNSIGNED  NOT NULL,
    rejected       BIGINT UNSIGNED  NOT NULL,
    -- By payments and captures.
    taken_minor    DECIMAL(38, 0)   NOT NULL,
    -- By refunds and reversals.
    returned_minor DECIMAL(38, 0)   NOT NULL,
    PRIMARY KEY (generation, livemode, day, partner_id, currency) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Customers whose account was debited or held on a day, each once. Rows of days that are over are deleted.
CREATE TABLE analytics_customers (
    generation  INT UNSIGNED NOT NULL,
    day         INT          NOT NULL,
    customer_id BINARY(16)   NOT NULL,
    PRIMARY KEY (generation, day, customer_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How many these are, so that nobody has to count them.
CREATE TABLE analytics_days (
    generation INT UNSIGNED    NOT NULL,
    day        INT             NOT NULL,
    customers  BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (generation, day) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Requests to both APIs by partner. They are kept for a while only, so they cannot be counted anew and belong to no
-- generation.
CREATE TABLE analytics_calls (
    -- 1 hour, 2 day.
    grain         TINYINT UNSIGNED NOT NULL,
    bucket        INT              NOT NULL,
    -- 1 the partners' API, 2 the bank's.
    service       TINYINT UNSIGNED NOT NULL,
    -- Zeros when no partner was recognised.
    partner_id    BINARY(16)       NOT NULL,
    calls         BIGINT UNSIGNED  NOT NULL,
    client_errors BIGINT UNSIGNED  NOT NULL,
    server_errors BIGINT UNSIGNED  NOT NULL,
    duration_us   BIGINT UNSIGNED  NOT NULL,
    PRIMARY KEY (grain, bucket, service, partner_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO analytics_positions (generation, source, kafka_partition, next_offset) VALUES (0, 3, 0, 0);

-- Attempts to deliver events, counted by the notifier in the transaction that records them: their tables have no order
-- in which they could be counted later, and an index for that would cost each attempt more than this does.
CREATE TABLE delivery_counts (
    -- The hour (of UTC) in which the attempt began.
    hour     INT               NOT NULL,
    -- 1 received, 2 failed and due again, 3 failed and given up.
    outcome  TINYINT UNSIGNED  NOT NULL,
    -- How long the attempt took, by the histogram of the domain crate.
    step     SMALLINT UNSIGNED NOT NULL,
    -- Rows of its own for each notifier, so that none waits for another one's.
    writer   TINYINT UNSIGNED  NOT NULL,
    attempts BIGINT UNSIGNED   NOT NULL,
    PRIMARY KEY (hour, outcome, step, writer) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO leases (name, holder, expires_at) VALUES ('analytics', REPEAT(0x00, 16), '2000-01-01');
