# What install.sh and uninstall.sh share: words, the store on the host, the lock.
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

prefix=${DESTDIR:-}
store=$prefix/var/lib/bundler
live='' # where the running system's /proc, /sys and /run are; tests put a folder in its place

now() { date +%s; }
say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    die_code=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$die_code"
}
usage_error() { die 2 "$1 (see --help)"; }
print_help() { sed -n '2,/^# DESTDIR/s/^# \{0,1\}//p' "$1"; }
count_lines() { awk 'NF { n++ } END { print n + 0 }'; }
# Paths on stdin → "sha256  path". openssl uses the processor's SHA instructions where coreutils
# often does not; missing files are left out.
print_digests() {
    if command -v openssl >/dev/null 2>&1; then
        xargs -r openssl dgst -sha256 -r 2>/dev/null | sed 's/ \*/  /'
    else
        xargs -r sha256sum 2>/dev/null
    fi
}
# The digest of stdin.
print_digest() {
    if command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r; else sha256sum; fi | cut -d' ' -f1
}
is_staged() { [ -n "$prefix" ]; }

# Temporary files; gone when the script ends, however it does.
make_work_dir() {
    work=$(mktemp -d) || exit 1
    lock_taken=no switching=no
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

finish() {
    finish_code=$?
    trap - EXIT
    if [ "$finish_code $switching" = '1 yes' ]; then return_back; fi # died amid a change: generations.sh
    [ ! -f "$store/ticket" ] || [ "$lock_taken" = no ] || release_drain_turn "$finish_code" # drain.sh
    rm -rf "$work"
    [ "$lock_taken" = no ] || rm -rf "$store/lock"
    exit "$finish_code"
}

# node.env is the only data that is read as shell; its digest is in the manifest.
# shellcheck disable=SC1091 # rendered for each node
load_node() { . "$here/node.env"; }

# text_field FILE NAME: what NAME='…' says there, which is read and never run.
text_field() { sed -n "s/^$2='\([^']*\)'\$/\1/p" "$1" 2>/dev/null; }
has_word() { case " $1 " in *" $2 "*) ;; *) return 1 ;; esac; }

note() { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$store/journal"; }

make_store() {
    [ -d "$store" ] || (umask 077 && mkdir -p "$store") || die 1 "cannot make $store"
    chmod 0700 "$store"
}

# The lock names its owner's process and when that began, so that one left by a kill is known.
take_lock() {
    make_store
    if is_locked && [ "$(lock_owner)" = $$ ]; then lock_taken=yes; return; fi # taken over with exec
    if ! mkdir "$store/lock" 2>/dev/null; then
        is_locked && die 3 "another install.sh or uninstall.sh is running (process $(lock_owner))"
        rm -rf "$store/lock"
        mkdir "$store/lock" || die 1 "cannot make $store/lock"
    fi
    lock_taken=yes
    printf '%s %s\n' $$ "$(start_time $$)" >"$store/lock/owner"
}

lock_owner() { sed -n 's/ .*//p' "$store/lock/owner" 2>/dev/null; }

is_locked() {
    [ -d "$store/lock" ] || return 1
    owner=$(lock_owner)
    [ -n "$owner" ] && [ "$owner $(start_time "$owner")" = "$(cat "$store/lock/owner" 2>/dev/null)" ]
}

# Clock ticks between boot and the start of a process; nothing when it is gone.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '{ print $20 }'; }

# The installed files as the last run recorded them: "sha256 path", a line each.
recorded_files() { cat "$store/files" 2>/dev/null; }
