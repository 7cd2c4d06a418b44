# shellcheck shell=bash
# Finds what the machine's toolchain lacks and installs it by name with apt-get. Nothing else of the system is touched.

package_exists() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

# A fresh container has no package lists; then nothing seems to exist.
ensure_package_lists() { package_exists make || (apt_get update) || true; }

# The newest Java runtime that this distribution has, since the default one may be older than Kafka wants.
java_package() {
    local version
    for version in 25 21 17; do
        if package_exists "openjdk-$version-jre-headless"; then
            printf 'openjdk-%s-jre-headless' "$version"
            return
        fi
    done
    printf 'default-jre-headless'
}

java_major() { java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.specification.version = \([0-9]*\).*/\1/p'; }

# apt_get ARGUMENTS…: as root, directly or through sudo.
apt_get() {
    local -a as_root=()
    command -v apt-get >/dev/null || die "no apt-get here: install by hand what is missing ($*), then run this again"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "not root and no sudo: ask an administrator to run 'apt-get $*'"
        as_root=(sudo)
        # Without a terminal sudo could only wait for a password that nobody types.
        [[ -t 0 ]] || as_root=(sudo -n)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@" >>"$LOGS/setup.log" 2>&1
}

install_packages() {
    say "installing packages: $*"
    # The lists may be absent (containers) or stale; only then is an update needed.
    apt_get install -y --no-install-recommends "$@" && return
    apt_get update || die "apt-get update failed (no network?): see $(relative "$LOGS/setup.log"), connect and run this again"
    apt_get install -y --no-install-recommends "$@" ||
        die "could not install $*: see $(relative "$LOGS/setup.log"), install by hand and run this again"
}

ensure_packages() {
    local -a missing=()
    local tool
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    command -v g++ >/dev/null || missing+=(g++)
    for tool in make pkg-config curl; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    # Cargo, Maven, pip and npm all fetch over TLS.
    [[ -f /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    command -v mvn >/dev/null || missing+=(maven)
    # Debian's python3 comes without ensurepip, which a virtual environment needs.
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    if ! command -v java >/dev/null || (($(java_major || echo 0) < 17)); then
        ensure_package_lists
        missing+=("$(java_package)")
    fi
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
    (($(java_major || echo 0) >= 17)) ||
        die "Kafka needs Java 17 or newer, and 'java' is $(java_major || echo none): select a newer one with 'update-alternatives --config java'"
}

# The workspace says which Rust it needs.
rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n1; }

cargo_is_recent() {
    local version
    version=$(cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
    [[ -n $version && $(printf '%s\n' "$(rust_wanted)" "$version" | sort -V | head -n1) == "$(rust_wanted)" ]]
}

ensure_rust() {
    # rustup's own installation may be there without being on the path of this shell.
    [[ ! -d $HOME/.cargo/bin ]] || PATH=$PATH:$HOME/.cargo/bin
    cargo_is_recent && return
    if ! command -v rustup >/dev/null; then
        ensure_package_lists
        ! package_exists rustup || install_packages rustup
    fi
    command -v rustup >/dev/null || die "Rust $(rust_wanted) or newer is needed and this distribution has no rustup package: install it from https://rustup.rs, then run this again"
    say "installing the stable Rust toolchain"
    rustup default stable >>"$LOGS/setup.log" 2>&1 || die "rustup could not fetch the toolchain: see $(relative "$LOGS/setup.log"), connect and run this again"
    cargo_is_recent || die "cargo is older than $(rust_wanted) and comes before rustup's on the PATH: remove the old one or correct PATH"
}
