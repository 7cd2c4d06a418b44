-- Webhooks as their owner manages them: notices, and what was asked to be sent again.

-- A message to an endpoint that is no event: a ping, a rehearsal, the news that the endpoint was disabled. Inserted
-- together with its delivery by whoever causes it. Its id is random, so it never meets the id of an event.
CREATE TABLE notices (
    endpoint_id BINARY(16)       NOT NULL,
    id          BINARY(16)       NOT NULL,
    -- The number of its type in the domain crate's closed set.
    type        TINYINT UNSIGNED NOT NULL,
    created_at  DATETIME(6)      NOT NULL,
    -- The bytes of `data` in the webhook.
    data        TEXT             NOT NULL,
    PRIMARY KEY (endpoint_id, id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
