-- Partners as staff manage them: who stands behind one, who asked to become one and what was answered, and what an API
-- key is used for.

ALTER TABLE partners
    -- Beside 1 active and 2 suspended, `status` may be 3: registered and not active yet.
    -- Name, e-mail and web site of whom to reach, JSON, sealed under the key of the partners' API keys.
    ADD COLUMN contact_sealed VARBINARY(4096) NULL,
    -- Counts changes, for If-Match.
    ADD COLUMN version INT UNSIGNED NOT NULL DEFAULT 1,
    -- What a search by the beginning of the name compares with.
    ADD COLUMN name_search VARCHAR(100) GENERATED ALWAYS AS (LOWER(name)) VIRTUAL,
    -- GET /v1/partners by status, by livemode and by name, each newest first.
    ADD KEY partners_of_status (status, id),
    ADD KEY partners_of_livemode (livemode, id),
    ADD KEY partners_of_name (name_search, id);

ALTER TABLE api_keys
    -- Who asked for the key and may see its secret once; NULL for keys that were not issued by staff.
    ADD COLUMN issued_to BINARY(16) NULL,
    -- When the secret was shown, after which nobody sees it any more.
    ADD COLUMN shown_at DATETIME(6) NULL,
    -- Keys of a partner, newest first (GET /v1/partners/{id}/keys); how many are live.
    ADD KEY api_keys_of_partner (partner_id, id);

-- When a key last signed a request that was let in. A table of its own, because ingest may write this and not the
-- key. Written at most once a minute for each key, so it is late by that.
CREATE TABLE api_key_uses (
    key_id       BINARY(16)  NOT NULL,
    last_used_at DATETIME(6) NOT NULL,
    PRIMARY KEY (key_id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

ALTER TABLE partner_applications
    -- The live partner that an approval made.
    ADD COLUMN live_partner_id BINARY(16) NULL,
    -- All applications, newest first (GET /v1/partner-applications); a status alone has partner_applications_waiting.
    ADD KEY partner_applications_of_status (status, id);
