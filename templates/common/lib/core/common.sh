# What install.sh, uninstall.sh and others share: messages, state files on the host, the lock.
# needs: echo_off here noted_at unsealed writing
# sets: live prefix store work
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

prefix=${DESTDIR:-}
case $prefix in '' | /*) ;; *) prefix=$PWD/$prefix ;; esac
store=$prefix/var/lib/bundler
live='' # the root of the running system's /proc, /sys and /run; tests set it to a directory

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

# Paths on stdin → "sha256 *path", a line each; missing files are left out. openssl uses the processor's
# SHA instructions; coreutils often does not.
print_file_digests() {
    if command -v openssl >/dev/null 2>&1; then
        xargs -r openssl dgst -sha256 -r 2>/dev/null
    else
        xargs -r sha256sum 2>/dev/null | sed 's/ [ *]/ */'
    fi
}

# The digest of stdin.
print_digest() {
    digest_line=$(if command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r; else sha256sum; fi)
    printf '%s\n' "${digest_line%% *}"
}

is_staged() { [ -n "$prefix" ]; }

# A directory for temporary files. It is removed when the script ends.
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
    # generations.sh: the run failed during a change
    if [ "$finish_code $switching" = '1 yes' ]; then go_back_to_previous; fi
    # files.sh
    [ "${writing:-no}" = no ] || [ "$finish_code" -eq 0 ] || remove_partial_copies
    # drain.sh
    [ ! -f "$store/ticket" ] || [ "$lock_taken" = no ] || release_drain_slot "$finish_code"
    # seal.sh
    [ "${echo_off:-no}" = no ] || show_typing
    [ -z "${unsealed:-}" ] || rm -rf "$unsealed"
    rm -rf "$work"
    [ "$lock_taken" = no ] || rm -rf "$store/lock"
    exit "$finish_code"
}

# Secrets of a sealed bundle that a killed run left in memory (seal.sh). The name has the id and the start time of its
# process.
remove_stale_secrets() {
    if is_staged; then return; fi
    for each in "$live"/run/bundler-unsealed.*; do
        [ -d "$each" ] || continue
        stale_process=${each%.*}
        [ "$(process_start "${stale_process##*.}")" = "${each##*.}" ] || rm -rf "$each"
    done
}

# node.env is the only data that is read as shell. Its digest is in MANIFEST.
# shellcheck disable=SC1091 # rendered for each node
load_node() { . "$here/node.env"; }

# text_field FILE NAME: the value of NAME='VALUE' in the file, which is read as text and never run. A quote inside
# of VALUE is written as '"'"'.
text_field() {
    while IFS= read -r field_line; do
        case $field_line in "$2='"*"'") ;; *) continue ;; esac
        field_rest=${field_line#*"='"} field_value=''
        field_rest=${field_rest%"'"}
        while :; do
            case $field_rest in *"'\"'\"'"*) ;; *) break ;; esac
            field_value=$field_value${field_rest%%"'\"'\"'"*}\'
            field_rest=${field_rest#*"'\"'\"'"}
        done
        printf '%s\n' "$field_value$field_rest"
    done 2>/dev/null <"$1"
}

# has_line FILE LINE: whether the file has exactly this line.
has_line() {
    while IFS= read -r each_line; do
        [ "$each_line" != "$2" ] || return 0
    done 2>/dev/null <"$1"
    return 1
}
has_word() { case " $1 " in *" $2 "*) ;; *) return 1 ;; esac }
print_time() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# note TEXT: a line in the journal. On a full disk the line is lost, and the run continues. For many lines
# at once `noted_at` holds the time.
note() { printf '%s %s\n' "${noted_at:-$(print_time)}" "$*" 2>/dev/null >>"$store/journal" || :; }

ensure_store() {
    [ -d "$store" ] || (umask 077 && mkdir -p "$store") || die 1 "cannot create $store"
    chmod 0700 "$store"
}

# The lock holds the id and the start time of its process, so that the lock of a killed process is
# recognized. It is a hard link to a file that was written before: it never exists without its content.
take_lock() {
    ensure_store
    if is_locked && is_own_lock; then # kept when another install.sh replaced this process
        lock_taken=yes
        return
    fi
    printf '%s %s\n' $$ "$(process_start $$)" >"$store/lock.$$" || die 1 "cannot write $store/lock.$$"
    ! is_stale_lock "$store/lock" || clear_stale_lock
    try_lock "$store/lock" && lock_taken=yes
    rm -f "$store/lock.$$"
    for each in "$store"/lock.[0-9]*; do ! is_stale_lock "$each" || rm -f "$each"; done # of killed runs
    [ "$lock_taken" = yes ] || die 3 "another install.sh or uninstall.sh is running (process $(lock_owner))"
}

# Two runs that find the same stale lock must not both remove it, because one of them may have a new
# lock by then: who removes it holds a second lock and checks again.
clear_stale_lock() {
    ! is_stale_lock "$store/lock.clearing" || rm -f "$store/lock.clearing"
    try_lock "$store/lock.clearing" || return 0
    ! is_stale_lock "$store/lock" || rm -rf "$store/lock"
    rm -f "$store/lock.clearing"
}

try_lock() { [ ! -d "$1" ] && ln "$store/lock.$$" "$1" 2>/dev/null; }

# read_lock FILE: sets `holder`, "process start-time". Earlier versions made a directory.
read_lock() {
    holder=''
    if [ -d "$1" ]; then set -- "$1/owner"; fi
    [ ! -f "$1" ] || read -r holder 2>/dev/null <"$1"
}

# is_lock_held FILE: whether its process is alive.
is_lock_held() {
    read_lock "$1"
    [ -n "$holder" ] && [ "${holder%% *} $(process_start "${holder%% *}")" = "$holder" ]
}

# is_stale_lock FILE: its process ended without removing it.
is_stale_lock() {
    ! is_lock_held "$1" || return 1
    [ ! -d "$1" ] || return 0
    stale_holder=$holder
    read_lock "$1"
    [ -n "$holder" ] && [ "$holder" = "$stale_holder" ]
}

is_locked() { is_lock_held "$store/lock"; }
is_own_lock() { [ "$(lock_owner)" = $$ ]; }
lock_owner() {
    read_lock "$store/lock"
    printf '%s\n' "${holder%% *}"
}

# Clock ticks from boot to the start of a process; nothing when it ended, or is a zombie.
process_start() {
    read -r process_stat 2>/dev/null <"/proc/$1/stat" || return 0
    # shellcheck disable=SC2086 # words: state, parent, …; the 20th is the start time
    set -- ${process_stat##*) }
    case $1 in Z | X) ;; *) printf '%s\n' "${20}" ;; esac
}

# The installed files as the last run recorded them: "sha256 path", a line each.
list_recorded_files() { cat "$store/files" 2>/dev/null; }
