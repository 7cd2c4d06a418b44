-- Proof that the ledger was not altered: signed checkpoints, and what the reconciler found. Written by admin-api.

-- Work that one process does at a time. Whoever moves `expires_at` ahead by a conditional UPDATE has it until then; rows
-- are made with the schema.
CREATE TABLE leases (
    name       VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    holder     BINARY(16)  NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    PRIMARY KEY (name) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO leases (name, holder, expires_at) VALUES
    ('checkpoints', REPEAT(0x00, 16), '2000-01-01'), ('reconciler', REPEAT(0x00, 16), '2000-01-01');

-- Signed statements of how far accounts had come. Copies of what is published outside the database, which is what
-- counts: a row here proves nothing. Nobody may UPDATE or DELETE here.
CREATE TABLE checkpoints (
    -- Counts from 1 without gaps. Two that are taken at once have the same number, so one of them fails.
    number      BIGINT UNSIGNED NOT NULL,
    taken_at    DATETIME(6)     NOT NULL,
    leaves      BIGINT UNSIGNED NOT NULL,
    root        BINARY(32)      NOT NULL,
    previous    BINARY(32)      NOT NULL,
    audit_head  BINARY(32)      NOT NULL,
    signature   BINARY(64)      NOT NULL,
    -- How far each partition was applied, JSON: where the next one begins to look for accounts that changed.
    positions   TEXT            NOT NULL,
    PRIMARY KEY (number) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The last entry of each account that had changed.
CREATE TABLE checkpoint_leaves (
    number     BIGINT UNSIGNED NOT NULL,
    account_id BINARY(16)      NOT NULL,
    version    BIGINT UNSIGNED NOT NULL,
    hash       BINARY(32)      NOT NULL,
    PRIMARY KEY (number, account_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Checkpoints that are known to stand in the folder and on the topic. One without a row here is published (again).
CREATE TABLE checkpoint_publications (
    number       BIGINT UNSIGNED NOT NULL,
    published_at DATETIME(6)     NOT NULL,
    PRIMARY KEY (number) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What the reconciler found, one row for each round; kept for 30 days.
CREATE TABLE reconciliations (
    -- A UUIDv7: rows come in the order of time.
    id          BINARY(16)       NOT NULL,
    -- 1 what is new, and what can be compared at once; 2 everything, slowly.
    kind        TINYINT UNSIGNED NOT NULL,
    started_at  DATETIME(6)      NOT NULL,
    finished_at DATETIME(6)      NOT NULL,
    -- 1 the ledger is whole, 2 it is broken.
    status      TINYINT UNSIGNED NOT NULL,
    -- The report as JSON: checks by invariant, rows by table, the first bad rows.
    report      TEXT             NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- The last round of a kind; rounds too old to be kept.
    KEY reconciliations_kind (kind, finished_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How far the ledger is verified, in pieces: where the reconciler goes on after a restart.
CREATE TABLE reconciliation_states (
    -- The round that left it.
    id    BINARY(16)   NOT NULL,
    piece INT UNSIGNED NOT NULL,
    bytes MEDIUMBLOB   NOT NULL,
    PRIMARY KEY (id, piece) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
