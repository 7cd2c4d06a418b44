-- Customers and the bank's staff. Personal data is sealed; nothing here is readable without the keys.

CREATE TABLE users (
    id         BINARY(16)  NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
