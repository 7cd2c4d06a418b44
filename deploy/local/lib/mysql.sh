# shellcheck shell=bash
# MySQL: fetches the distribution's own server packages into a folder (no system package is installed), and runs them there
# with their own C library, so that the machine's version of it does not matter.

MYSQL_ROOT=$SOFTWARE/mysql/root
MYSQL_DIR=$STATE/mysql

# --- provisioning ----------------------------------------------------------------------------------------------------

# Prints "address suite components" of each entry of the system's own apt sources, in both of apt's formats.
apt_sources() {
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
        sed -n 's/^deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?//p'
    local -a files
    mapfile -t files < <(find /etc/apt/sources.list.d -name '*.sources' 2>/dev/null | sort)
    # A paragraph is a record; its fields may continue over lines, which awk's newline-as-space splitting joins.
    ((${#files[@]} == 0)) || awk -v RS= '
        function field(name,   text) {
            if (!match("\n" $0, "\n" name ":[^\n]*(\n[ \t][^\n]*)*")) return ""
            text = substr("\n" $0, RSTART + length(name) + 2, RLENGTH - length(name) - 2)
            gsub(/\n/, " ", text)
            return text
        }
        field("Types") ~ /(^| )deb( |$)/ && field("Enabled") !~ /no/ {
            addresses = split(field("URIs"), address, " ")
            suites = split(field("Suites"), suite, " ")
            for (a = 1; a <= addresses; a++)
                for (s = 1; s <= suites; s++)
                    print address[a], suite[s], field("Components")
        }' "${files[@]}"
}

# apt_mirrors FAMILY CODENAME: prints the addresses that this system may take its distribution from. Other archives may use
# the same suite and component names, so those that name the distribution, or a mirror list, come first.
apt_mirrors() {
    local candidates
    candidates=$(apt_sources | awk -v codename="$2" '$2 ~ "^(" codename "|stable|testing|unstable|sid)$" && / main( |$)/ { print $1 }')
    {
        grep -E "$1|^mirror" <<<"$candidates" || true
        grep -vE "$1|^mirror" <<<"$candidates" || true
    } | awk 'NF && !seen[$0]++'
}

os_release() { sed -n "s/^$1=\"\?\([^\"]*\)\"\?\$/\1/p" /etc/os-release; }

# Prints "family suite codename" of this distribution; the suite is the one that has MySQL. Debian's stable releases have had
# no MySQL server since 2019, but sid has one, and its packages run anywhere with their own C library. Ubuntu has it in each
# release.
mysql_source() {
    local id like codename
    id=$(os_release ID)
    like=$(os_release ID_LIKE)
    codename=$(os_release UBUNTU_CODENAME)
    codename=${codename:-$(os_release VERSION_CODENAME)}
    case " $id $like " in
    *" ubuntu "*) printf 'ubuntu %s %s' "$codename" "$codename" ;;
    *" debian "*) printf 'debian sid %s' "$codename" ;;
    *) return 1 ;;
    esac
}

# apt-get with a configuration of its own: own lists, own cache, and an empty status, so that it believes nothing is
# installed and fetches every dependency.
own_apt_get() {
    local apt=$SOFTWARE/mysql/apt
    apt-get -q \
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::State::lists="$apt/lists" \
        -o Dir::Cache="$apt/cache" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/none" \
        -o Dir::Etc::preferences="$apt/none" -o Dir::Etc::preferencesparts="$apt/none" \
        -o APT::Sandbox::User="" -o APT::Install-Recommends=false -o APT::Update::Error-Mode=any -o Debug::NoLocking=true "$@" >>"$LOGS/setup.log" 2>&1
}

mysql_fetch() {
    local family suite codename keyring mirror tried=
    read -r family suite codename <<<"$(mysql_source)" || true
    [[ -n ${suite:-} ]] || die "no MySQL packages are known for this distribution: start a MySQL 8.4 or 9 yourself and set WIRED_MYSQL_URL"
    keyring=/usr/share/keyrings/$family-archive-keyring.gpg
    [[ -f $keyring ]] || die "$keyring is missing: install debian-archive-keyring or ubuntu-keyring, then run this again"
    while read -r mirror; do
        mysql_fetch_from "$mirror" && return
        tried+=" $mirror"
    done < <(apt_mirrors "$family" "$codename")
    [[ -n $tried ]] || die "found no $family archive in /etc/apt/sources.list*: add one, or set WIRED_MYSQL_URL to an existing MySQL"
    die "could not fetch mysql-server-core from$tried: see $(relative "$LOGS/setup.log"), check the network, or set WIRED_MYSQL_URL"
}

# Uses family, suite and keyring of mysql_fetch. The signature of the archive is checked against the distribution's own key.
mysql_fetch_from() {
    local apt=$SOFTWARE/mysql/apt package
    rm -rf "$apt"
    mkdir -p "$apt"/{state,lists/partial,cache/archives/partial,none}
    : >"$apt/status"
    if [[ $family == ubuntu ]]; then
        printf 'deb [signed-by=%s] %s %s main universe\n' "$keyring" "$1" "$suite" "$keyring" "$1" "$suite-updates"
    else
        printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$1" "$suite"
    fi >"$apt/sources.list"
    own_apt_get update || return 1
    # Debian and newer Ubuntus have an unversioned name; Ubuntu 22.04 and 24.04 have 8.0. The first that exists.
    for package in "" -8.4 -8.0; do
        own_apt_get install -y --download-only "mysql-server-core$package" "mysql-client-core$package" && return
    done
    return 1
}

mysql_provision() {
    [[ -f $SOFTWARE/mysql/complete ]] && return
    require_free_mib 1500 "fetching MySQL"
    say "fetching MySQL"
    rm -rf "$SOFTWARE/mysql"
    mkdir -p "$MYSQL_ROOT"
    mysql_fetch
    local package
    for package in "$SOFTWARE"/mysql/apt/cache/archives/*.deb; do
        dpkg -x "$package" "$MYSQL_ROOT" || die "could not unpack $package: check the free space"
    done
    rm -rf "$SOFTWARE/mysql/apt"
    # Proves that it runs here, before the marker says so.
    mysql_run mysqld --no-defaults --version >>"$LOGS/setup.log" 2>&1 ||
        die "the fetched MySQL does not run here: see $(relative "$LOGS/setup.log"), or set WIRED_MYSQL_URL to an existing MySQL"
    : >"$SOFTWARE/mysql/complete"
}

# --- running ---------------------------------------------------------------------------------------------------------

# Sets MYSQL_COMMAND to the words that start one of the fetched programs through the fetched C library.
mysql_command() {
    local loader binary triplet
    triplet=$(uname -m)-linux-gnu
    # Not every distribution has all of these folders; find then fails although it found what is needed.
    loader=$(find "$MYSQL_ROOT/usr/lib" "$MYSQL_ROOT/lib" -name 'ld-linux*.so.*' 2>/dev/null | head -n1 || true)
    binary=$(find "$MYSQL_ROOT/usr/sbin" "$MYSQL_ROOT/usr/bin" -name "$1" 2>/dev/null | head -n1 || true)
    [[ -n $loader && -n $binary ]] || die "$(relative "$SOFTWARE/mysql") is incomplete: delete it and run 'wired-local setup'"
    MYSQL_COMMAND=("$loader" --library-path "$MYSQL_ROOT/usr/lib/$triplet:$MYSQL_ROOT/lib/$triplet:$MYSQL_ROOT/usr/lib/mysql/private" "$binary")
}

mysql_run() {
    local -a MYSQL_COMMAND
    mysql_command "$1"
    shift
    "${MYSQL_COMMAND[@]}" "$@"
}

mysql_buffer_pool() {
    local mib
    mib=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
    # A fault test with servers of its own needs no big pool.
    [[ $STATE == "$ROOT/.local" ]] || mib=0
    # A machine sold as 8 GiB shows a little less.
    if ((mib >= 7600)); then printf '2G'; else printf '512M'; fi
}

# The kernel allows 107 bytes for the path of a unix socket; a deep checkout has more, so its socket stands elsewhere.
mysql_socket() {
    local path=$MYSQL_DIR/mysqld.sock folder
    if ((${#path} > 100)); then
        folder=${XDG_RUNTIME_DIR:-/tmp}/wired-$EUID-$(printf '%s' "$STATE" | cksum | cut -d' ' -f1)
        mkdir -p "$folder"
        [[ -O $folder ]] || die "$folder belongs to somebody else: remove it, or set XDG_RUNTIME_DIR to a folder of yours"
        path=$folder/mysqld.sock
    fi
    printf '%s' "$path"
}

mysql_configure() {
    local share=$MYSQL_ROOT/usr/share/mysql
    mkdir -p "$MYSQL_DIR/tmp"
    sed -e "s|@BASE_DIR@|$MYSQL_ROOT/usr|" -e "s|@SHARE_DIR@|$share|" -e "s|@PLUGIN_DIR@|$MYSQL_ROOT/usr/lib/mysql/plugin|" \
        -e "s|@DATA_DIR@|$MYSQL_DIR/data|" -e "s|@TMP_DIR@|$MYSQL_DIR/tmp|" -e "s|@STATE_DIR@|$MYSQL_DIR|" \
        -e "s|@SOCKET@|$(mysql_socket)|" -e "s|@PORT@|$PORT_MYSQL|" -e "s|@LOG_FILE@|$LOGS/mysql.log|" \
        -e "s|@BUFFER_POOL@|$(mysql_buffer_pool)|" \
        "$LOCAL_SOURCE/mysql/my.cnf.in" | write_file "$MYSQL_DIR/my.cnf"
    grep -v -q '@[A-Z_]*@' "$MYSQL_DIR/my.cnf" || die "unfilled place in $(relative "$MYSQL_DIR/my.cnf")"
    [[ -s $MYSQL_DIR/root-password ]] || random_hex 24 | write_file "$MYSQL_DIR/root-password"
    printf '[client]\nuser=root\npassword=%s\nhost=127.0.0.1\nport=%s\nprotocol=tcp\n' "$(<"$MYSQL_DIR/root-password")" "$PORT_MYSQL" |
        write_file "$MYSQL_DIR/client.cnf"
}

# First start: an empty data folder, and a file of statements that the server runs before it answers anybody, so that there
# is no moment at which root has no password. The marker is written by mysql_wait once the password works.
mysql_initialise() {
    [[ ! -f $MYSQL_DIR/initialised ]] || return 0
    say "initialising MySQL"
    rm -rf "$MYSQL_DIR/data"
    local -a user=()
    ((EUID != 0)) || user=(--user=root)
    mysql_run mysqld --defaults-file="$MYSQL_DIR/my.cnf" "${user[@]}" --initialize-insecure >>"$LOGS/mysql.log" 2>&1 || {
        last_log_lines mysql
        die "MySQL could not initialise its folder: see the reason above"
    }
    local password
    password=$(<"$MYSQL_DIR/root-password")
    write_file "$MYSQL_DIR/init.sql" <<SQL
ALTER USER 'root'@'localhost' IDENTIFIED BY '$password';
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
CREATE DATABASE IF NOT EXISTS wired CHARACTER SET utf8mb4;
SQL
}

mysql_answers() {
    is_running mysql || return 0 # Died: stop waiting, the caller looks again.
    port_answers "$PORT_MYSQL" && mysql_query 'SELECT 1' >/dev/null 2>&1
}

mysql_query() { mysql_run mysql --defaults-file="$MYSQL_DIR/client.cnf" --connect-timeout=5 -N -e "$1"; }

mysql_start() {
    is_running mysql && return
    require_port_free MySQL "$PORT_MYSQL"
    require_free_mib 500 MySQL
    mysql_configure
    mysql_initialise
    # After a kill the socket's lock names a pid that may by now be anybody's, and MySQL would refuse to start. Ours does not
    # run, and the data folder has a lock of its own.
    rm -f "$(mysql_socket)" "$(mysql_socket).lock"
    local -a MYSQL_COMMAND options=(--defaults-file="$MYSQL_DIR/my.cnf")
    mysql_command mysqld
    # MySQL refuses to run as root unless told so; in a container root is all there is.
    ((EUID != 0)) || options+=(--user=root)
    [[ -f $MYSQL_DIR/initialised ]] || options+=(--init-file="$MYSQL_DIR/init.sql")
    spawn mysql "${MYSQL_COMMAND[@]}" "${options[@]}"
}

mysql_wait() {
    # Replaying a redo log of 2 GiB after a kill takes its time; a clean start takes two seconds.
    if wait_until 180 mysql_answers && is_running mysql; then
        : >"$MYSQL_DIR/initialised"
        rm -f "$MYSQL_DIR/init.sql"
        return
    fi
    last_log_lines mysql
    die "MySQL did not start: see $(relative "$LOGS/mysql.log") above for the reason"
}

mysql_client_command() {
    load_ports
    [[ -f $MYSQL_DIR/client.cnf ]] || die "no MySQL of this checkout: run 'wired-local start-servers'"
    mysql_run mysql --defaults-file="$MYSQL_DIR/client.cnf" "$@"
}
