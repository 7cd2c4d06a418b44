# shellcheck shell=bash
# The four services: migrations, users and topics first, then each process, each waited for until it says that it is ready.

BIN=${WIRED_BIN_DIR:-${CARGO_TARGET_DIR:-$ROOT/target}/release}

# Runs a command with exactly the WIRED_ variables of a file: none leaks in from the shell that called us.
with_environment() {
    local file=$1
    shift
    (
        local name
        for name in "${!WIRED_@}"; do unset "$name"; done
        set -a
        # shellcheck source=/dev/null
        . "$file"
        set +a
        "$@"
    )
}

require_binaries() {
    local name
    for name in migrate "${SERVICES[@]}"; do
        [[ -x $BIN/$name ]] || die "$(relative "$BIN/$name") is not built: run 'cargo build --release --workspace' (or 'make up', which does)"
    done
}

run_migrations() {
    local environment=$RUN/migrate.env step
    cat "$STATE/servers.env" "$STATE/services.env" | write_file "$environment"
    for step in apply users topics; do
        with_environment "$environment" timeout 120 "$BIN/migrate" "$step" >>"$LOGS/migrate.log" 2>&1 || {
            last_log_lines migrate
            die "'migrate $step' failed: the reason stands above; correct it and start again"
        }
    done
    rm -f "$environment"
}

# A running service is kept when it runs today's program with today's environment.
is_current() {
    local pid
    pid=$(running_pid "$1") || return 1
    [[ /proc/$pid/exe -ef $BIN/$1 ]] && cmp -s "$STATE/env/$1.env" "$RUN/$1.env"
}

start_service() {
    local listen variable
    is_current "$1" && return
    stop_process "$1"
    for variable in WIRED_LISTEN WIRED_PRIVATE_LISTEN; do
        listen=$(value_of "$1" "$variable")
        [[ -z $listen ]] || require_port_free "$1" "${listen##*:}"
    done
    cp "$STATE/env/$1.env" "$RUN/$1.env"
    with_environment "$STATE/env/$1.env" spawn "$1" "$BIN/$1"
}

service_is_ready() {
    is_running "$1" || return 0 # Died: stop waiting, the caller looks again.
    curl -fsS -o /dev/null --max-time 2 "http://$(value_of "$1" WIRED_PRIVATE_LISTEN)/health/ready" 2>/dev/null
}

wait_for_service() {
    wait_until 30 service_is_ready "$1" && is_running "$1" && return
    last_log_lines "$1" 20
    if is_running "$1"; then
        say "$1 says: $(curl -sS --max-time 2 "http://$(value_of "$1" WIRED_PRIVATE_LISTEN)/health/ready" 2>&1 | head -c 600)" >&2
        die "$1 runs but was not ready within 30 s: the reason stands above; 'wired-local logs $1' follows its log"
    fi
    die "$1 ended: the reason stands above; correct it and run 'wired-local start' again"
}

start_command() {
    local service
    require_binaries
    start_servers_command
    write_service_environments
    run_migrations
    for service in "${SERVICES[@]}"; do start_service "$service"; done
    for service in "${SERVICES[@]}"; do wait_for_service "$service"; done
    say "ready: partners http://$(value_of ingest WIRED_LISTEN), bank's API http://$(value_of admin-api WIRED_LISTEN), metrics and health: 'wired-local status'"
}

# The entrance first and the mouth last, so that what was accepted can still be applied and told.
stop_services() {
    local service
    for service in ingest admin-api processor notifier; do stop_process "$service" 20; done
}

stop_command() {
    stop_services
    stop_process kafka 30
    # MySQL flushes what the redo log holds; killing it would only move that work into the next start.
    stop_process mysql 60
}

clean_command() {
    [[ -d $STATE ]] || return 0
    with_lock servers stop_command
    # A folder that somebody named by hand is removed only when it is one of ours.
    [[ -f $STATE/ports.env || $STATE == "$ROOT/.local" ]] || die "$STATE is no folder of wired-local: nothing removed"
    local socket
    socket=$(mysql_socket)
    [[ $socket == "$STATE"/* ]] || rm -rf "$(dirname "$socket")"
    rm -rf "$STATE"
    say "removed $STATE"
}
