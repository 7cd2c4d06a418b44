# shellcheck shell=bash
# What runs, where it listens, and its logs. Changes nothing.

status_line() {
    local name=$1 port=$2 health=${3:-} pid state
    if ! pid=$(running_pid "$name"); then
        state="stopped"
    elif [[ -n $health ]]; then
        state="running, $(curl -s -o /dev/null -w '%{http_code}' --max-time 2 "http://$health/health/ready" 2>/dev/null || true)"
        state=${state/%200/ready}
        state=${state/%503/not ready}
        state=${state/%000/not answering}
    elif port_answers "$port"; then
        state="running, ready"
    else
        state="running, not answering"
    fi
    printf '%-10s %-8s %-24s %s\n' "$name" "${pid:--}" "$state" "$port"
}

status_command() {
    [[ -f $STATE/ports.env ]] || die "nothing is set up here yet: run 'make demo' or 'make up'"
    local service
    load_ports
    printf '%-10s %-8s %-24s %s\n' NAME PID STATE LISTENS
    if [[ -f $STATE/servers.env ]]; then
        grep -qF "127.0.0.1:$PORT_MYSQL/" "$STATE/servers.env" || say "MySQL is an existing one: see $(relative "$STATE/servers.env")"
        grep -qF "'127.0.0.1:$PORT_KAFKA'" "$STATE/servers.env" || say "Kafka is an existing one: see $(relative "$STATE/servers.env")"
    fi
    status_line mysql "$PORT_MYSQL"
    status_line kafka "$PORT_KAFKA"
    for service in "${SERVICES[@]}"; do
        if [[ -f $STATE/env/$service.env ]]; then
            status_line "$service" "$(value_of "$service" WIRED_LISTEN) private $(value_of "$service" WIRED_PRIVATE_LISTEN)" "$(value_of "$service" WIRED_PRIVATE_LISTEN)"
        else
            status_line "$service" -
        fi
    done
}

logs_command() {
    [[ -d $LOGS ]] || die "no logs yet: run 'make up'"
    if [[ -z $1 ]]; then
        tail -n 20 -F "$LOGS"/*.log
    else
        [[ -f $LOGS/$1.log ]] || die "no log named '$1': there are $(cd "$LOGS" && printf '%s ' *.log | sed 's/\.log//g')"
        tail -n 50 -F "$LOGS/$1.log"
    fi
}
