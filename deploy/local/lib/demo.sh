# shellcheck shell=bash
# The sample partner and the demo: one payment through everything, in front of whoever watches.

PARTNER_ENV=$STATE/partner.env

# Seeding goes the way of every change of money: bank commands on Kafka. It acts as admin-api, with its grants and keys.
seed_command() {
    load_ports
    [[ -x $BIN/admin-api && -f $STATE/env/admin-api.env ]] || die "the services do not run yet: run 'make up'"
    # In a subshell, because with_environment takes away what the caller has.
    (
        seed() { WIRED_URL=http://127.0.0.1:$PORT_INGEST timeout 60 "$BIN/admin-api" seed --env-file "$PARTNER_ENV" --webhook-listen "127.0.0.1:$PORT_WEBHOOK"; }
        with_environment "$STATE/env/admin-api.env" seed
    ) || die "seeding failed: the reason stands above; 'wired-local status' tells whether all services are ready"
    chmod 600 "$PARTNER_ENV"
    mkdir -p "$STATE/bin"
    ln -sfn "$BIN/wired" "$STATE/bin/wired"
}

demo_command() {
    seed_command
    [[ -x $BIN/wired ]] || die "$(relative "$BIN/wired") is not built: run 'make build'"
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

  set -a; . $here/partner.env; . $here/env/verifier.env; set +a; PATH="\$PWD/$here/bin:\$PATH"
  wired listen                    # in a shell of its own: receives, verifies and prints webhooks
  wired pay --amount 12.50        # posts a signed payment
  wired curl GET /v1/balances     # signs any request
  wired verify-ledger             # proves that the ledger is whole

TEXT
}
