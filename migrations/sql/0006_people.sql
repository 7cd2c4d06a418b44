-- Customers and the bank's staff, their sessions, and what was done by whom. Written by admin-api alone.
--
-- Personal data is sealed with AES-256-GCM under a data key of the user's own, which is sealed under a
-- key-encryption key outside the database. Without the data key nothing of a person can be read any more, in
-- backups neither: erasing a person is deleting the key and the look-up of the address.

CREATE TABLE users (
    id              BINARY(16)       NOT NULL,
    -- 1 customer, 2 operator, 3 auditor, 4 admin.
    role            TINYINT UNSIGNED NOT NULL,
    -- 1 registered (the address is not proven yet, there is no password), 2 active, 3 disabled, 4 erased.
    status          TINYINT UNSIGNED NOT NULL,
    -- NULL once the user is erased, like everything sealed under it.
    data_key_sealed VARBINARY(100)   NULL,
    -- HMAC of the e-mail address under a key of its own: finds a user by address and tells nothing of it.
    email_index     BINARY(32)       NULL,
    email_sealed    VARBINARY(400)   NULL,
    name_sealed     VARBINARY(600)   NULL,
    phone_sealed    VARBINARY(200)   NULL,
    address_sealed  VARBINARY(1300)  NULL,
    -- Argon2id as a PHC string.
    password_hash   VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- The secret of the second factor, sealed. It counts from totp_confirmed_at on.
    totp_sealed     VARBINARY(100)   NULL,
    totp_confirmed_at DATETIME(6)    NULL,
    -- The time step of the last code that was taken: no code counts twice.
    totp_step       BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    created_at      DATETIME(6)      NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- Who logs in; a second registration of the same address.
    UNIQUE KEY users_email (email_index),
    -- Users of a role, newest first (GET /v1/users); how many active admins there are.
    KEY users_of_role (role, id),
    -- Registrations that nobody completed.
    KEY users_registered (status, role, created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One log-in of one user, until it ends, is revoked or its refresh token is seen twice. It is the family of its
-- refresh tokens. Kept for a while after its end: it tells from which addresses a user has logged in before.
CREATE TABLE sessions (
    id            BINARY(16)       NOT NULL,
    user_id       BINARY(16)       NOT NULL,
    -- HMAC of the client's network address.
    address_index BINARY(32)       NOT NULL,
    created_at    DATETIME(6)      NOT NULL,
    expires_at    DATETIME(6)      NOT NULL,
    revoked_at    DATETIME(6)      NULL,
    -- When the second factor (of customers: the password) was last given in this session.
    proven_at     DATETIME(6)      NOT NULL,
    -- Whether a second factor was given in this session.
    second_factor TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- All sessions of a user; whether an address is known.
    KEY sessions_of_user (user_id, address_index),
    -- Sessions to forget.
    KEY sessions_expired (expires_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- SHA-256 of each refresh token that a session had. A used one is kept as long as its session: seeing it again
-- means that somebody has a copy.
CREATE TABLE refresh_tokens (
    token_hash BINARY(32)  NOT NULL,
    session_id BINARY(16)  NOT NULL,
    used_at    DATETIME(6) NULL,
    PRIMARY KEY (token_hash) /*T![clustered_index] CLUSTERED */,
    KEY refresh_tokens_of_session (session_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- SHA-256 of the tokens in mails and in the link that create-admin prints. A row is deleted when it is used.
CREATE TABLE link_tokens (
    token_hash BINARY(32)       NOT NULL,
    user_id    BINARY(16)       NOT NULL,
    -- 1 completes a registration, 2 sets a forgotten password, 3 completes the making of an admin.
    purpose    TINYINT UNSIGNED NOT NULL,
    expires_at DATETIME(6)      NOT NULL,
    PRIMARY KEY (token_hash) /*T![clustered_index] CLUSTERED */,
    KEY link_tokens_of_user (user_id),
    KEY link_tokens_expired (expires_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- SHA-256 of the codes that stand in for a lost second factor. A row is deleted when it is used.
CREATE TABLE recovery_codes (
    user_id   BINARY(16) NOT NULL,
    code_hash BINARY(32) NOT NULL,
    PRIMARY KEY (user_id, code_hash) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Mails to send, written in the transaction of what they tell. A row holds no address and no token: the sender
-- finds the user, draws the token, and deletes the row once the mail is handed over. A row whose address nobody has
-- is written like every other, so that the answer to a request tells nobody who is a customer.
CREATE TABLE mails (
    id          BINARY(16)       NOT NULL,
    email_index BINARY(32)       NOT NULL,
    -- 1 complete the registration, 2 you are registered already, 3 set a new password, 4 your password was changed,
    -- 5 your second factor was changed, 6 a session was ended because its token was seen twice.
    kind        TINYINT UNSIGNED NOT NULL,
    created_at  DATETIME(6)      NOT NULL,
    -- When to try next; moved ahead by whoever tries.
    due_at      DATETIME(6)      NOT NULL,
    attempts    TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    KEY mails_due (due_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What people did, beside commands (those are audited by payments and changes). Each row is written in the
-- transaction of what it tells, and never altered. Its id is a UUIDv7: rows come in the order of time but for
-- clocks and late commits. Whoever seals them into a chain numbers them in a table of its own.
CREATE TABLE audit_log (
    id         BINARY(16)       NOT NULL,
    at         DATETIME(6)      NOT NULL,
    -- Who; NULL before anybody is known (a failed log-in, a command on the server).
    actor_id   BINARY(16)       NULL,
    -- A word of a closed set, such as user.log_in.
    action     VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The id of what it was done to, with its prefix.
    target     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- 1 done, 2 refused.
    outcome    TINYINT UNSIGNED NOT NULL,
    -- What changed, as JSON; of personal data only the names of the fields.
    detail     VARCHAR(2000)    NOT NULL,
    request_id BINARY(16)       NOT NULL,
    -- The client's network address, 4 or 16 bytes; NULL for a command on the server.
    address    VARBINARY(16)    NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */,
    -- What a user did, for the export of a person's data.
    KEY audit_log_of_actor (actor_id, id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
