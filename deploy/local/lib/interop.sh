# shellcheck shell=bash
# Independent implementations of what we sign and verify, in Python and in Node, for tests to compare with. They are no part
# of the product; versions are pinned.

interop_setup() {
    python_environment venv requirements.txt
    # In an environment of its own: it brings many libraries, each pinned with its digests.
    python_environment schemathesis schemathesis.txt --require-hashes
    interop_node
    receiver_go
    receiver_java
}

# python_environment NAME FILE [PIP-OPTION…]: the libraries of one list in .local/NAME.
python_environment() {
    local requirements=$LOCAL_SOURCE/interop/$2 venv=$ROOT/.local/$1
    shift 2
    cmp -s "$requirements" "$venv/requirements.txt" && return
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3 python3-venv
    say "fetching Python libraries: $(basename "$requirements")"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 cannot make a virtual environment: install python3-venv and run this again"
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" -r "$requirements" >>"$LOGS/setup.log" 2>&1 ||
        die "pip could not fetch the interop libraries: see $(relative "$LOGS/setup.log"), check the network and run this again"
    cp "$requirements" "$venv/requirements.txt"
}

interop_node() {
    local source=$LOCAL_SOURCE/interop target=$ROOT/.local/interop
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        # In a subshell: a machine that cannot have Node still runs all other tests.
        (install_packages nodejs npm) || true
        hash -r
    fi
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        say "Node is missing and could not be installed: tests against Node libraries are skipped"
        return
    fi
    cmp -s "$source/package-lock.json" "$target/installed-lock.json" && return
    say "fetching the Node interop libraries"
    rm -rf "$target"
    mkdir -p "$target"
    cp "$source/package.json" "$source/package-lock.json" "$target/"
    npm ci --prefix "$target" --no-audit --no-fund --ignore-scripts --omit=dev >>"$LOGS/setup.log" 2>&1 ||
        die "npm could not fetch the interop libraries: see $(relative "$LOGS/setup.log"), check the network and run this again"
    cp "$source/package-lock.json" "$target/installed-lock.json"
}

# The receivers of docs/receivers in the languages that must be compiled. Neither language is installed for them: where it is
# missing, its test says that it is skipped.

receiver_go() {
    local source=$ROOT/docs/receivers/go target=$ROOT/.local/receivers/go
    if ! command -v go >/dev/null; then
        say "Go is missing: the test of the receiver in Go is skipped"
        return
    fi
    cat "$source/receiver.go" "$source/go.sum" | cmp -s - "$target/built-from" && return
    say "building the receiver in Go"
    mkdir -p "$target"
    # Its own toolchain: Go would fetch the one that a module asks for.
    (cd "$source" && GOTOOLCHAIN=local go build -o "$target/receiver" .) >>"$LOGS/setup.log" 2>&1 ||
        die "the receiver in Go could not be built: see $(relative "$LOGS/setup.log"), check the network and run this again"
    cat "$source/receiver.go" "$source/go.sum" >"$target/built-from"
}

receiver_java() {
    local source=$ROOT/docs/receivers/java target=$ROOT/.local/receivers/java
    if ! command -v javac >/dev/null; then
        say "Java's compiler is missing: the test of the receiver in Java is skipped"
        return
    fi
    cat "$source/Receiver.java" "$source/pom.xml" | cmp -s - "$target/built-from" && return
    say "building the receiver in Java"
    rm -rf "$target"
    mkdir -p "$target/lib"
    mvn -q -B -f "$source/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$target/lib" \
        >>"$LOGS/setup.log" 2>&1 ||
        die "Maven could not fetch the libraries of the receiver in Java: see $(relative "$LOGS/setup.log"), check the network and run this again"
    javac -d "$target" -cp "$target/lib/*" "$source/Receiver.java" >>"$LOGS/setup.log" 2>&1 ||
        die "the receiver in Java could not be compiled: see $(relative "$LOGS/setup.log")"
    cat "$source/Receiver.java" "$source/pom.xml" >"$target/built-from"
}
