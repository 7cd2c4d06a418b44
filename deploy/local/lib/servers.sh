# shellcheck shell=bash
# MySQL and Kafka together: set up, start, and tell everybody where they are in servers.env.

OWN_MYSQL=yes
OWN_KAFKA=yes
MYSQL_URL=
KAFKA_BROKERS=

# Decides between own servers and those named in the environment. A shell that sourced one of our own environment files
# names our own, whatever user it names.
choose_servers() {
    load_ports
    mkdir -p "$MYSQL_DIR"
    [[ -s $MYSQL_DIR/root-password ]] || random_hex 24 | write_file "$MYSQL_DIR/root-password"
    MYSQL_URL="mysql://root:$(<"$MYSQL_DIR/root-password")@127.0.0.1:$PORT_MYSQL/wired"
    KAFKA_BROKERS=127.0.0.1:$PORT_KAFKA
    if [[ -n ${WIRED_MYSQL_URL:-} && $(host_of_url "$WIRED_MYSQL_URL") != "127.0.0.1:$PORT_MYSQL" ]]; then
        [[ $WIRED_MYSQL_URL =~ ^mysql://[^@/]+@[^/]+/[^?/]+ ]] ||
            die "WIRED_MYSQL_URL must read mysql://USER:PASSWORD@HOST:PORT/DATABASE (its password is not shown here): correct or unset it"
        OWN_MYSQL=no
        MYSQL_URL=$WIRED_MYSQL_URL
    fi
    if [[ -n ${WIRED_KAFKA_BROKERS:-} && $WIRED_KAFKA_BROKERS != "$KAFKA_BROKERS" ]]; then
        OWN_KAFKA=no
        KAFKA_BROKERS=$WIRED_KAFKA_BROKERS
    fi
}

host_of_url() { sed -E 's|^[a-z]+://([^@/]*@)?([^/?]+).*|\2|' <<<"$1"; }

setup_servers() {
    [[ $OWN_KAFKA == no ]] || kafka_provision
    [[ $OWN_MYSQL == no ]] || mysql_provision
}

setup_all() {
    ensure_packages
    ensure_rust
    choose_servers
    setup_servers
    say "set up in $(relative "$STATE")"
}

start_servers_command() {
    ensure_packages
    choose_servers
    setup_servers
    # Both at once: each spends most of its start waiting.
    [[ $OWN_MYSQL == no ]] || mysql_start
    [[ $OWN_KAFKA == no ]] || kafka_start
    [[ $OWN_MYSQL == no ]] || mysql_wait
    [[ $OWN_KAFKA == no ]] || kafka_wait
    write_servers_env
    say "MySQL $(host_of_url "$MYSQL_URL"), Kafka $KAFKA_BROKERS; addresses and password in $(relative "$STATE/servers.env")"
}

write_servers_env() {
    write_file "$STATE/servers.env" <<TEXT
# Where MySQL (as administrator) and Kafka are; written by wired-local, read by tests, migrations and benchmarks.
WIRED_MYSQL_URL='$MYSQL_URL'
WIRED_KAFKA_BROKERS='$KAFKA_BROKERS'
TEXT
}
