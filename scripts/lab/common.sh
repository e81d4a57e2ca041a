# shellcheck shell=sh
# Functions that the lab's scripts share; this file is sourced.
#
# BUNDLER_LAB_CACHE   where artifacts, images and logs are kept (default ~/.cache/bundler-lab)

LAB_CACHE=${BUNDLER_LAB_CACHE:-${HOME:-/root}/.cache/bundler-lab}
LAB_STARTED=$(date +%s)

say() { printf 'lab [%4ss] %s\n' "$(($(date +%s) - LAB_STARTED))" "$*" >&2; }
fail() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}

is_debian12() { [ "$(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_ID:-}")" = debian-12 ]; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# need PROGRAM:PACKAGE...: as root on Debian, install the packages of missing programs; elsewhere fail
# and name the programs.
need() {
    missing='' packages=''
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair%%:*}" packages="$packages ${pair#*:}"
    done
    [ -z "$missing" ] || install_packages "$packages" "$missing"
}

# need_if_possible PROGRAM:PACKAGE...: the same, but if they cannot be installed, tests skip.
need_if_possible() {
    if is_root && [ -e /etc/debian_version ]; then (need "$@") || say "tests that need one of these are skipped: $*"; fi
}

# install_packages PACKAGES [WHAT-FOR]
install_packages() {
    if ! is_root || ! [ -e /etc/debian_version ]; then fail "missing programs: install${2:-$1}"; fi
    say "installing$1"
    mkdir -p "$LAB_CACHE"
    tries=40
    # shellcheck disable=SC2086 # one word a package
    until { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $1; } \
        >"$LAB_CACHE/apt.log" 2>&1; do
        # Another setup of this machine has the locks: it is waited for, up to ten minutes.
        tries=$((tries - 1))
        if [ $tries -le 0 ] || ! grep -Eq 'Could not get lock|Unable to (acquire|lock)' "$LAB_CACHE/apt.log"; then
            tail -5 "$LAB_CACHE/apt.log" >&2
            fail "apt-get install$1 failed (log: $LAB_CACHE/apt.log)"
        fi
        sleep 15
    done
}

# unpack_program PROGRAM PACKAGE: unpack a program of a Debian package into <lab cache>/programs, where
# tests look for it. The package is not installed, since it would start a service on this machine. If
# this fails, the tests that need the program are skipped.
unpack_program() {
    ! command -v "$1" >/dev/null 2>&1 && ! [ -x "$LAB_CACHE/programs/usr/bin/$1" ] || return 0
    new=$LAB_CACHE/programs.new
    rm -rf "$new" && mkdir -p "$new"
    if ! is_root || ! { apt-get update && (cd "$new" && apt-get download "$2" && dpkg -x "$2"_*.deb .); } >"$LAB_CACHE/apt.log" 2>&1; then
        say "cannot download $1 (Debian package $2): tests that need it are skipped"
        return 0
    fi
    mkdir -p "$LAB_CACHE/programs/usr/bin"
    mv "$new"/usr/*bin/"$1" "$LAB_CACHE/programs/usr/bin/"
    rm -rf "$new"
}

# has_sys_resource IMAGE: whether this machine can give a container every capability.
has_sys_resource() { docker run --rm --privileged --network none "$1" true >/dev/null 2>&1; }
