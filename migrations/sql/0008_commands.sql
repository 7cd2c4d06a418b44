-- What people ask the bank to do, until the ledger has decided it, and what needs a second person. Written by
-- admin-api alone.

-- A command of the bank from the moment it is asked for. The row commits before the command is published, so that
-- none is lost in between and none is carried out that nobody wrote down; a dispatcher in every process publishes what
-- is due until the ledger has the outcome. Rows are kept: the same id is the same command for ever.
CREATE TABLE commands (
    -- The payment's id for what moves money, the change's id for anything else. One space for both, so that no id is
    -- used for one of each.
    id           BINARY(16)       NOT NULL,
    actor_id     BINARY(16)       NOT NULL,
    -- The word of the bank command, as in its JSON.
    kind         VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- What was asked: another command under a used id is a conflict.
    fingerprint  BINARY(33)       NOT NULL,
    -- What it is about: what the record is keyed by.
    target_id    BINARY(16)       NOT NULL,
    -- What it moves at most; NULL when it moves no money.
    amount_minor BIGINT           NULL,
    currency     CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- 1: a second person agreed; the row of `approvals` has the same id.
    approved     TINYINT UNSIGNED NOT NULL,
    -- The record exactly as it is published, JSON.
    envelope     TEXT             NOT NULL,
    created_at   DATETIME(6)      NOT NULL,
    -- When the dispatcher looks at it (again); NULL once the ledger has the outcome.
    due_at       DATETIME(6)      NULL,
    -- How often the dispatcher published it.
    attempts     SMALLINT UNSIGNED NOT NULL DEFAULT 0,
    -- Whoever looks at it until due_at.
    claim        BINARY(16)       NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- What the dispatcher looks at next; how old what is undecided is.
    KEY commands_due (due_at, created_at),
    -- What somebody moved alone on a day, read from the index only.
    KEY commands_of_actor (actor_id, created_at, currency, approved, amount_minor)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What one person asked for and a second one has to agree to. A row waits for 24 hours; an older one has expired and
-- is never carried out. Rows are kept as the record of who decided what.
CREATE TABLE approvals (
    -- Derived from the requester's idempotency key, so that a repeated request finds it. A command that is carried
    -- out by it has the same id.
    id             BINARY(16)       NOT NULL,
    -- 1 waiting (expired once it is too old), 2 approved, 3 rejected, 4 cancelled by the requester.
    status         TINYINT UNSIGNED NOT NULL,
    -- The word of the action, such as deposit.
    kind           VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Exactly what will be carried out, JSON, and its SHA-256, which the approver repeats.
    action         TEXT             NOT NULL,
    action_hash    BINARY(32)       NOT NULL,
    requester_id   BINARY(16)       NOT NULL,
    reason         VARCHAR(500)     NOT NULL,
    -- The request, and the client's network address.
    request_id     BINARY(16)       NOT NULL,
    address        VARBINARY(16)    NULL,
    requested_at   DATETIME(6)      NOT NULL,
    decider_id     BINARY(16)       NULL,
    decider_reason VARCHAR(500)     NULL,
    decided_at     DATETIME(6)      NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- Those of a status, newest first (GET /v1/approvals), and how many.
    KEY approvals_of_status (status, requested_at, id),
    -- All, newest first.
    KEY approvals_requested (requested_at, id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
