# shellcheck shell=bash
# Paths, messages, the lock, bounded waiting, and processes kept by pid files. Sourced by wired-local, which sets ROOT.

STATE=${WIRED_LOCAL_DIR:-$ROOT/.local}
[[ $STATE == /* ]] || STATE=$PWD/$STATE
SOFTWARE=$ROOT/.local/software
LOGS=$STATE/logs
RUN=$STATE/run

# Everything under .local may hold secrets; nobody else on this machine need read it.
umask 077

say() { printf '%s\n' "$*"; }

# One line that says what is wrong and what to do, and exit code 1.
die() {
    printf 'wired-local: %s\n' "$*" >&2
    exit 1
}

relative() { printf '%s' "${1#"$ROOT"/}"; }

# with_lock NAME FUNCTION…: runs a function while no other wired-local changes the same thing of this checkout: several people
# or targets may start it at once. Building a tool must not hold up whoever starts the servers, hence more than one lock.
with_lock() {
    local name=$1
    shift
    [[ $(uname -s) == Linux ]] || die "this needs Linux (it reads /proc); on another system use deploy/compose"
    mkdir -p "$STATE" "$LOGS" "$RUN" "$SOFTWARE" || die "cannot write $STATE: make the checkout writable"
    # The lock belongs to the checkout even when WIRED_LOCAL_DIR differs, because the software is shared.
    exec 9>"$ROOT/.local/$name.lock"
    flock -w 600 9 || die "another wired-local has been working for 10 minutes: look at it with 'ps', stop it, try again"
    "$@"
}

# wait_until SECONDS COMMAND…: true as soon as the command succeeds, false after the bound. Polls, because the conditions
# (a port answers, a process is gone) have no event to wait for.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

port_answers() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

require_free_mib() {
    local free
    free=$(df -Pm "$STATE" | awk 'NR == 2 { print $4 }')
    ((free >= $1)) || die "$2 needs $1 MiB, and $free MiB are free on the disk of $STATE: free some, or set WIRED_LOCAL_DIR to another disk"
}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# Replaces a file in one step, so that nobody reads half of it. Reads standard input.
write_file() {
    cat >"$1.new"
    mv "$1.new" "$1"
}

# --- processes -------------------------------------------------------------------------------------------------------
# A pid file holds the pid and the process's start time in ticks since boot. A pid alone may by now be somebody else's.

process_start_time() {
    # The second field, the program's name, may hold spaces and parentheses: cut behind the last parenthesis.
    sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

# Prints the pid of the named process if it is alive and is the one we started.
running_pid() {
    local pid start now
    [[ -f $RUN/$1.pid ]] || return 1
    read -r pid start <"$RUN/$1.pid" || return 1
    now=$(process_start_time "$pid")
    [[ -n $now && $now == "$start" ]] || return 1
    # A zombie (its parent has not asked for its end) does not run any more.
    [[ $(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f1) != Z ]] || return 1
    printf '%s' "$pid"
}

is_running() { running_pid "$1" >/dev/null; }
is_stopped() { ! is_running "$1"; }

# spawn NAME COMMAND…: starts a process of its own session, output to its log file, and remembers it.
spawn() {
    local name=$1 pid
    shift
    # Many tables, segments and connections: take as many open files as this user may have.
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    setsid "$@" </dev/null >>"$LOGS/$name.log" 2>&1 9>&- &
    pid=$!
    printf '%s %s\n' "$pid" "$(process_start_time "$pid")" | write_file "$RUN/$name.pid"
}

# stop_process NAME [SECONDS]: SIGTERM, a bounded wait, then SIGKILL.
stop_process() {
    local name=$1 bound=${2:-30} pid
    if pid=$(running_pid "$name"); then
        kill -TERM "$pid" 2>/dev/null || true
        # A stopped process (SIGSTOP) would not see the signal.
        kill -CONT "$pid" 2>/dev/null || true
        if ! wait_until "$bound" is_stopped "$name"; then
            say "$name did not stop within $bound s; killing it"
            kill -KILL "$pid" 2>/dev/null || true
            wait_until 10 is_stopped "$name" || die "$name (pid $pid) survives SIGKILL: the kernel holds it, look at 'dmesg'"
        fi
        say "stopped $name"
    fi
    rm -f "$RUN/$name.pid"
}

kill_process() {
    local pid
    pid=$(running_pid "$1") || die "$1 does not run"
    kill -KILL "$pid"
    wait_until 10 is_stopped "$1" || die "$1 (pid $pid) survives SIGKILL: the kernel holds it, look at 'dmesg'"
    rm -f "$RUN/$1.pid"
}

last_log_lines() {
    printf -- '--- the last lines of %s\n' "$(relative "$LOGS/$1.log")" >&2
    tail -n "${2:-15}" "$LOGS/$1.log" >&2 || true
}
