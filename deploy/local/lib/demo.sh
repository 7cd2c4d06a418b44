# shellcheck shell=bash
# The sample partner and the demo: one payment through everything, in front of whoever watches.

PARTNER_ENV=$STATE/partner.env
LOG_INS=$STATE/log-ins.json

# Seeding goes the way of everybody: through the public APIs. Only the bank's cash accounts and the first two admins are made by
# commands on the server, as in any new bank.
seed_command() {
    load_ports
    [[ -x $BIN/admin-api && -f $STATE/env/admin-api.env ]] || die "the services do not run yet: run 'make up'"
    [[ -x $BIN/wired ]] || die "$(relative "$BIN/wired") is not built: run 'make build'"
    with_environment "$STATE/env/admin-api.env" timeout 60 "$BIN/admin-api" open-cash-accounts >>"$LOGS/seed.log" ||
        die "the bank's cash accounts are not open: the reason stands above"
    (
        set -a
        # shellcheck source=/dev/null
        . "$STATE/services.env"
        set +a
        timeout 180 "$BIN/wired" seed --webhook-listen "127.0.0.1:$PORT_WEBHOOK" --mail-folder "$STATE/mails" \
            --create-admin "$LOCAL_SOURCE/wired-local create-admin" --log-ins "$LOG_INS" --partner-env "$PARTNER_ENV"
    ) || die "seeding failed: the reason stands above; 'wired-local status' tells whether all services are ready"
    mkdir -p "$STATE/bin"
    ln -sfn "$BIN/wired" "$STATE/bin/wired"
}

# Acts as admin-api, with its grants and keys.
create_admin_command() {
    [[ -x $BIN/admin-api && -f $STATE/env/admin-api.env ]] || die "the services do not run yet: run 'make up'"
    with_environment "$STATE/env/admin-api.env" timeout 30 "$BIN/admin-api" create-admin "$@"
}

demo_command() {
    seed_command
    with_environment "$PARTNER_ENV" timeout 120 "$BIN/wired" demo ||
        die "the demo did not finish: the reason stands above; 'make status' and 'make logs' tell more"
    demo_lines
}

# What to paste to do it oneself. The first line is needed once in each shell.
demo_lines() {
    local here
    here=$(relative "$STATE")
    cat <<TEXT

Everything keeps running until 'make down'. Do it yourself (first line once in each shell):

  set -a; . $here/services.env; . $here/partner.env; . $here/env/verifier.env; set +a; PATH="\$PWD/$here/bin:\$PATH"
  wired listen                    # in a shell of its own: receives, verifies and prints webhooks
  wired pay --amount 12.50        # posts a signed payment
  wired curl GET /v1/balances     # signs any request
  wired verify-ledger             # proves that the ledger is whole
  token=\$(wired log-in audrey)    # logs the auditor in; ada, bea, otto and anna are there, too
  curl -sS "\$WIRED_ADMIN_API_URL/v1/payments?limit=1" -H "authorization: Bearer \$token"

TEXT
}
