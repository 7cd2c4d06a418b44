# shellcheck shell=bash
# Keys and passwords made once per state folder, and the environment file of each service, all mode 0600.

SERVICES=(ingest processor notifier admin-api)
# Everybody who has a MySQL user of his own.
MYSQL_USERS=(ingest processor notifier admin-api verifier)

# admin-api → ADMIN_API, as environment variables are written.
variable_name() { printf '%s' "${1^^}" | tr - _; }

make_keys() {
    local key
    mkdir -p "$STATE/keys" "$STATE/env"
    for key in partner-keys.kek webhook-secrets.kek status-token.key personal-data.kek personal-index.key access-token.key checkpoint.key; do
        [[ -s $STATE/keys/$key ]] || head -c 32 /dev/urandom | base64 | write_file "$STATE/keys/$key"
    done
}

# The password of one MySQL user, made when first asked for.
mysql_password() {
    local file=$STATE/keys/mysql-$1.password
    [[ -s $file ]] || random_hex 24 | write_file "$file"
    printf '%s' "$(<"$file")"
}

# The administrator's URL with another user: same host, same database, same parameters.
mysql_url_of() {
    local rest=${MYSQL_URL#*://}
    local authority=${rest%%/*} path=/${rest#*/}
    printf 'mysql://wired_%s:%s@%s%s' "${1//-/_}" "$(mysql_password "$1")" "${authority##*@}" "$path"
}

common_lines() {
    cat <<TEXT
WIRED_MYSQL_URL='$(mysql_url_of "$1")'
WIRED_KAFKA_BROKERS='$KAFKA_BROKERS'
TEXT
}

# The files are written anew at each start: they say nothing that is not in ports.env, keys/ or servers.env, and a later
# version of this script may add a line.
write_service_environments() {
    make_keys
    write_file "$STATE/env/ingest.env" <<TEXT
$(common_lines ingest)
WIRED_LISTEN='127.0.0.1:$PORT_INGEST'
WIRED_PRIVATE_LISTEN='127.0.0.1:$PORT_INGEST_PRIVATE'
# The hosts that a signature may be made for.
WIRED_AUTHORITIES='127.0.0.1:$PORT_INGEST,localhost:$PORT_INGEST'
# Loopback only, so no TLS.
WIRED_INSECURE_HTTP='true'
WIRED_PARTNER_KEYS_KEK_FILE='$STATE/keys/partner-keys.kek'
WIRED_WEBHOOK_SECRETS_KEK_FILE='$STATE/keys/webhook-secrets.kek'
WIRED_STATUS_TOKEN_KEY_FILE='$STATE/keys/status-token.key'
# As the notifier's.
WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP='true'
TEXT
    write_file "$STATE/env/processor.env" <<TEXT
$(common_lines processor)
WIRED_PRIVATE_LISTEN='127.0.0.1:$PORT_PROCESSOR_PRIVATE'
TEXT
    write_file "$STATE/env/notifier.env" <<TEXT
$(common_lines notifier)
WIRED_PRIVATE_LISTEN='127.0.0.1:$PORT_NOTIFIER_PRIVATE'
WIRED_WEBHOOK_SECRETS_KEK_FILE='$STATE/keys/webhook-secrets.kek'
# The demo's receiver listens on this machine; without this line no webhook ever goes to loopback.
WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP='true'
TEXT
    write_file "$STATE/env/admin-api.env" <<TEXT
$(common_lines admin-api)
WIRED_LISTEN='127.0.0.1:$PORT_ADMIN_API'
WIRED_PRIVATE_LISTEN='127.0.0.1:$PORT_ADMIN_API_PRIVATE'
WIRED_INSECURE_HTTP='true'
WIRED_PUBLIC_URL='http://127.0.0.1:$PORT_ADMIN_API'
WIRED_PERSONAL_DATA_KEK_FILE='$STATE/keys/personal-data.kek'
WIRED_PERSONAL_INDEX_KEY_FILE='$STATE/keys/personal-index.key'
WIRED_TOKEN_KEY_FILE='$STATE/keys/access-token.key'
# No mail server here: mails are files.
WIRED_MAIL_FOLDER='$STATE/mails'
WIRED_PARTNER_KEYS_KEK_FILE='$STATE/keys/partner-keys.kek'
WIRED_WEBHOOK_SECRETS_KEK_FILE='$STATE/keys/webhook-secrets.kek'
WIRED_CHECKPOINT_KEY_FILE='$STATE/keys/checkpoint.key'
WIRED_CHECKPOINT_DIR='$STATE/checkpoints'
WIRED_SERVICES='ingest=http://127.0.0.1:$PORT_INGEST_PRIVATE/health/ready,processor=http://127.0.0.1:$PORT_PROCESSOR_PRIVATE/health/ready,notifier=http://127.0.0.1:$PORT_NOTIFIER_PRIVATE/health/ready,admin-api=http://127.0.0.1:$PORT_ADMIN_API_PRIVATE/health/ready'
TEXT
    common_lines verifier | write_file "$STATE/env/verifier.env"
    write_services_env
}

# What somebody outside the services needs: their addresses, and the five users' URLs for `migrate users`.
write_services_env() {
    local user service name
    {
        printf '# Where the services listen and who they are in MySQL; written by wired-local.\n'
        for user in "${MYSQL_USERS[@]}"; do
            printf "WIRED_%s_MYSQL_URL='%s'\n" "$(variable_name "$user")" "$(mysql_url_of "$user")"
        done
        for service in ingest admin-api; do
            name=$(variable_name "$service")
            printf "WIRED_%s_URL='http://%s'\n" "$name" "$(value_of "$service" WIRED_LISTEN)"
        done
        for service in "${SERVICES[@]}"; do
            name=$(variable_name "$service")
            printf "WIRED_%s_PRIVATE_URL='http://%s'\n" "$name" "$(value_of "$service" WIRED_PRIVATE_LISTEN)"
        done
    } | write_file "$STATE/services.env"
}

# value_of SERVICE VARIABLE: one value of a service's environment file.
value_of() { sed -n "s/^$2='\(.*\)'\$/\1/p" "$STATE/env/$1.env"; }
