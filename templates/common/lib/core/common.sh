# What install.sh and uninstall.sh share: words, the store on the host, the lock.
# needs: here noted_at writing
# sets: live prefix store work
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
print_file_digests() {
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
    if [ "$finish_code $switching" = '1 yes' ]; then go_back_to_previous; fi # died amid a change: generations.sh
    [ "${writing:-no}" = no ] || [ "$finish_code" -eq 0 ] || remove_partial_copies # files.sh
    [ ! -f "$store/ticket" ] || [ "$lock_taken" = no ] || release_drain_slot "$finish_code" # drain.sh
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

print_time() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# On a full disk the journal lacks lines, and nothing else goes wrong for it. Of many files at once the
# time is taken once.
note() { printf '%s %s\n' "${noted_at:-$(print_time)}" "$*" 2>/dev/null >>"$store/journal" || :; }

ensure_store() {
    [ -d "$store" ] || (umask 077 && mkdir -p "$store") || die 1 "cannot make $store"
    chmod 0700 "$store"
}

# The lock names its owner's process and when that began, so that one left by a kill is known. It is
# a link to a file that was written before: there is no moment at which it has no owner.
take_lock() {
    ensure_store
    if is_locked && is_own_lock; then lock_taken=yes; return; fi # taken over with exec
    printf '%s %s\n' $$ "$(process_start $$)" >"$store/lock.$$" || die 1 "cannot write $store/lock.$$"
    ! is_stale_lock "$store/lock" || clear_stale_lock
    try_lock "$store/lock" && lock_taken=yes
    rm -f "$store/lock.$$"
    for each in "$store"/lock.[0-9]*; do ! is_stale_lock "$each" || rm -f "$each"; done # of who was killed at the door
    [ "$lock_taken" = yes ] || die 3 "another install.sh or uninstall.sh is running (process $(lock_owner))"
}

# Two that find a lock dead must not both clear it, since one of them may have made a new one: who does
# so holds another lock meanwhile, and looks again.
clear_stale_lock() {
    ! is_stale_lock "$store/lock.clearing" || rm -f "$store/lock.clearing"
    try_lock "$store/lock.clearing" || return 0
    ! is_stale_lock "$store/lock" || rm -rf "$store/lock"
    rm -f "$store/lock.clearing"
}

try_lock() { [ ! -d "$1" ] && ln "$store/lock.$$" "$1" 2>/dev/null; }

# is_lock_held FILE: does the process live that it names? Earlier versions made a directory.
is_lock_held() {
    holder=$(cat "$1/owner" "$1" 2>/dev/null)
    [ -n "$holder" ] && [ "${holder%% *} $(process_start "${holder%% *}")" = "$holder" ]
}

# is_stale_lock FILE: it names a process that is gone, which did not take it along.
is_stale_lock() {
    ! is_lock_held "$1" && { [ -d "$1" ] || { [ -n "$holder" ] && [ "$(cat "$1" 2>/dev/null)" = "$holder" ]; }; }
}

is_locked() { is_lock_held "$store/lock"; }
is_own_lock() { [ "$(lock_owner)" = $$ ]; }
lock_owner() { cat "$store/lock/owner" "$store/lock" 2>/dev/null | sed 's/ .*//'; }

# Clock ticks between boot and the start of a process; nothing when it is gone, or dead and yet to be
# buried by its parent.
process_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" && $1 != "X" { print $20 }'; }

# The installed files as the last run recorded them: "sha256 path", a line each.
list_recorded_files() { cat "$store/files" 2>/dev/null; }
