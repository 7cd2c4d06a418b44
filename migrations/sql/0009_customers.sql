-- What customers and staff look for, and the change of an e-mail address.

ALTER TABLE accounts
    -- Accounts of a status (GET /v1/accounts?status=frozen). Only a change of the status touches it, no posting.
    ADD KEY accounts_of_status (status, id);

-- Mails that do not go to the address that somebody has, but to one that is to be proven or that was given up.
-- Kinds: 7 prove the new address, 8 this address is in use already, 9 your address was changed.
ALTER TABLE mails
    -- Whose change it is; NULL for every other kind.
    ADD COLUMN user_id BINARY(16) NULL,
    -- Where to, sealed under that user's data key, like users.email_sealed.
    ADD COLUMN email_sealed VARBINARY(400) NULL;

-- Purpose 4: proves a new address, which the link carries until it is used.
ALTER TABLE link_tokens
    ADD COLUMN email_index BINARY(32) NULL,
    ADD COLUMN email_sealed VARBINARY(400) NULL;
