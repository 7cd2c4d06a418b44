# shellcheck shell=bash
# Chooses free ports once per state folder and remembers them in ports.env, so that two clones run side by side and a
# partner.env stays true over restarts.

PORT_NAMES=(MYSQL KAFKA KAFKA_CONTROLLER INGEST INGEST_PRIVATE PROCESSOR_PRIVATE NOTIFIER_PRIVATE ADMIN_API ADMIN_API_PRIVATE WEBHOOK)

block_is_free() {
    local port
    for ((port = $1; port < $1 + ${#PORT_NAMES[@]}; port++)); do
        ! port_answers "$port" || return 1
    done
}

# The first guess comes from the folder's path, so that stopped clones do not choose alike. 20000–31983 lies below the
# ports that Linux gives to outgoing connections (from 32768).
choose_ports() {
    local hash base attempt index
    hash=$(printf '%s' "$STATE" | cksum | cut -d' ' -f1)
    for ((attempt = 0; attempt < 50; attempt++)); do
        base=$((20000 + (hash + attempt * 37) % 749 * 16))
        block_is_free "$base" && break
    done
    ((attempt < 50)) || die "found no free block of ports between 20000 and 31999: stop what listens there ('ss -ltn')"
    for index in "${!PORT_NAMES[@]}"; do
        printf 'PORT_%s=%d\n' "${PORT_NAMES[index]}" "$((base + index))"
    done | write_file "$STATE/ports.env"
}

load_ports() {
    [[ -f $STATE/ports.env ]] || choose_ports
    # shellcheck source=/dev/null
    . "$STATE/ports.env"
}

# Called before something of ours starts listening on the port.
require_port_free() {
    ! port_answers "$2" || die "port $2, chosen for $1, is taken by another process: stop it ('ss -ltnp | grep $2'), or 'wired-local stop' and delete $(relative "$STATE/ports.env") to choose anew"
}
