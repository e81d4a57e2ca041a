# What install.sh, uninstall.sh and others share: messages, state files on the host, the lock.
# needs: echo_off exit_codes here machine noted_at unsealed writing
# sets: die_text live prefix store work
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
    die_text=$*
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
    # report.sh
    [ "${exit_codes:-no}" = no ] || [ "$finish_code" -ne 0 ] || finish_code=$(print_outcome_code)
    [ "${machine:-no}" = no ] || print_run_json "$finish_code" >&3
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
    if is_staged; then return 0; fi
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

# A power cut loses what was not written to the disk, and may keep what was done later: a record goes to the disk before
# the change that it is about. Before coreutils 8.24 sync ignores paths and writes everything.
sync_record() { sync "$1" 2>/dev/null || die 1 "cannot write $1"; }

# replace_record FILE: FILE.new takes its place, complete.
replace_record() {
    sync_record "$1.new"
    mv -f "$1.new" "$1" || die 1 "cannot write $1"
}

ensure_store() {
    # units' users enter the directories above it
    [ -d "$store" ] || (umask 022 && mkdir -p "${store%/*}" && umask 077 && mkdir "$store") ||
        die 1 "cannot create $store"
    chmod 0700 "$store"
}

# The lock holds "process start-time", so that the lock of a killed process is recognized. It is a hard link to a file
# that was written before: it never exists without its content, except after a power cut.
#
# /var/lib/bundler:
#   lock                         the process that runs
#   lock.PROCESS.START           what a starter links to the lock
#   lock.after.PROCESS.START.N   the N-th heir of that dead process: who makes the link first replaces its lock. If the
#                                heir died before that, the next one replaces it
take_lock() {
    ensure_store
    if is_locked && is_own_lock; then # kept when another install.sh replaced this process
        lock_taken=yes
        return 0
    fi
    own_claim="$$ $(process_start $$)" lock_tries=0
    claim=$store/lock.$(lock_name "$own_claim")
    printf '%s\n' "$own_claim" >"$claim" || die 1 "cannot write $claim"
    until try_lock; do
        lock_tries=$((lock_tries + 1))
        [ -n "$holder" ] || [ "$lock_tries" -ge 100 ] || continue
        rm -f "$claim"
        [ -n "$holder" ] || die 1 "cannot link $claim to $store/lock"
        die 3 "another install.sh or uninstall.sh is running (process ${holder%% *})"
    done
    lock_taken=yes
    rm -rf "$claim" "$store/lock.clearing" "$store"/lock.after.*
    for each in "$store"/lock.[0-9]*; do is_lock_held "$each" || rm -f "$each"; done # of killed runs
}

# try_lock: take the lock; else set `holder` to who has it, or to nothing if it changed meanwhile.
try_lock() {
    if [ ! -d "$store/lock" ] && ln "$claim" "$store/lock" 2>/dev/null; then return 0; fi
    read_lock "$store/lock"
    [ -n "$holder" ] && ! is_alive "$holder" || return 1
    dead_lock=$holder heir_number=1
    set --
    until heir=$store/lock.after.$(lock_name "$dead_lock").$heir_number && ln "$claim" "$heir" 2>/dev/null; do
        read_lock "$heir"
        if [ -z "$holder" ] || is_alive "$holder"; then
            alive=$holder
            if is_lock_of "$dead_lock"; then holder=$alive; else holder=''; fi
            return 1
        fi
        set -- "$@" "$store/lock.$(lock_name "$holder")"
        heir_number=$((heir_number + 1))
    done
    [ $# -eq 0 ] || rm -f "$@" # a `mv` of a dead heir that still runs then finds nothing
    # No dead process takes the lock again: if it is still that one's, nobody else can replace it any more.
    is_lock_of "$dead_lock" && replace_lock && return 0
    rm -f "$heir"
    holder=''
    return 1
}

replace_lock() {
    if [ -d "$store/lock" ]; then mv -f "$claim" "$store/lock/owner"; else mv -f "$claim" "$store/lock"; fi
}

lock_name() { printf '%s\n' "${1%% *}.${1#* }"; }
is_lock_of() {
    read_lock "$store/lock"
    [ "$holder" = "$1" ]
}

# read_lock FILE: sets `holder`, "process start-time"; "0 0" if the file does not say it, and nothing if there is no
# file. Earlier versions made a directory.
read_lock() {
    holder=''
    if [ -d "$1" ]; then set -- "$1/owner"; fi
    { read -r holder || :; } 2>/dev/null <"$1" || return 0
    case $holder in *[!0-9\ ]* | '' | ' '* | *' ') holder='0 0' ;; *' '*) ;; *) holder='0 0' ;; esac
}

is_alive() { [ -n "$1" ] && [ "${1%% *} $(process_start "${1%% *}")" = "$1" ]; }

# is_lock_held FILE: whether its process is alive.
is_lock_held() {
    read_lock "$1"
    is_alive "$holder"
}

# is_stale_lock FILE: its process ended without removing it.
is_stale_lock() { ! is_lock_held "$1" && [ -n "$holder" ]; }

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
