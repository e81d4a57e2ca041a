#!/bin/sh
# Install this node's bundle on this host: check the host, install files, restart what changed, wait until it is ready.
#
# Usage: install.sh [OPTION...]             as root, in the unpacked bundle, on the host that it is for
#
#   --dry-run               print what would change, a line each, and change nothing
#   --plan                  --dry-run with the reasons: the lines of text files that differ, why a unit is
#                           restarted, what that interrupts and for how long
#   --json                  print the outcome as JSON on stdout, and messages on stderr; with --plan, --dry-run and
#                           --list: the same as JSON
#   --exit-code             exit with 10 if something was changed (with --dry-run: would be), 11 if this host waits for
#                           others, 0 if there is nothing to do
#   --packages-only         install the missing packages of the operating system, and nothing else
#   --wait TIME             how long to wait for this host's rollout slot, as 90, 90s or 15m (default: not at all)
#   --no-drain              leave pods on this node while the kubelet or the container runtime is replaced
#   --ready-within SECONDS  how long to wait until the units are ready (default 120; 90 if the host can go
#                           back to a healthy generation)
#   --settle SECONDS        how long each unit must have run without a restart (default 10)
#   --new-state             install the bundle although it was made with another state directory than the installed
#                           one: this host leaves its cluster for another
#   --no-rollback           keep the new generation even if it is not healthy, to look into it
#   --list                  list the generations on this host
#   --rollback [N]          go to generation N; by default to the newest other one that was healthy;
#                           other options follow it
#   --prune KEEP            remove all generations but KEEP, the installed one and one to roll back to
#   --skip-preflight NAME   skip a check, or do not print its advice (may be given several times; see
#                           --list-preflight). With `swap` swap stays on
#   --trust FILE            refuse a bundle that is not signed with this public key (may be given several times: any
#                           of them). The keys in /etc/bundler/trust.d/*.pub count too
#   --unseal-file FILE      the unseal code of a sealed bundle, or the build's UNSEAL.tsv; - for stdin. Without it the
#                           code is asked for on the terminal
#   --unseal-key FILE       the RSA key of the certificate that the bundle is sealed to
#   --payload FILE          payload-DIGEST.tar, or the directory that contains it or its files; for
#                           bundles built with --layout split
#   --list-preflight        list the checks
#   --version, --help
#
# It may be run again at any time: a file that is installed already is not touched. Hosts may be installed in any
# order and at the same time. The next run completes an interrupted one; a reboot undoes it.
# Each bundle is kept as a generation of this host. If a new generation is not healthy and the previous one was, the
# host goes back to that by itself. /opt/k8s/bundle/install.sh is the installed generation's.
# Exit code: 0 done, nothing to do, or only waiting for other hosts; 1 failed after changes began
# (run it again); 2 wrong usage; 3 a check failed and nothing was changed; 4 a unit is not ready;
# 5 the new bundle was not healthy, and the host is back at the previous one; 6 the bundle is sealed, and the unseal
# code or key is missing or wrong: nothing was changed. --exit-code tells the three meanings of 0 apart.
# DESTDIR, when set, is the directory to install to; no unit is started, and no package is installed.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
umask 022
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
script=$0
case $script in */*) ;; *) script=./$script ;; esac
here=$(CDPATH='' cd "${script%/*}/" && pwd -P) || exit 2

# Only root may be able to change what runs as root: the directories above this script, and all that is next to it.
# find_shared PATH [-prune]: the first of these that others can change; -prune: without what is in PATH. A user who
# stages files with DESTDIR counts like root.
find_shared() {
    shared_path=$1 shared_depth=${2:-} shared_user=$(id -u)
    set -- "$1"
    while [ -n "${1%/*}" ]; do set -- "${1%/*}" "$@"; done
    # shellcheck disable=SC2086 # no word or one
    shared_lines=$(LC_ALL=C ls -ldn / "$@" && LC_ALL=C find "$shared_path" $shared_depth ! -type l \
        \( ! -user 0 ! -user "$shared_user" -o -perm -020 -o -perm -002 \) -exec ls -ldn {} +) ||
        shared_lines="- - unreadable - - - - - $shared_path"
    printf '%s\n' "$shared_lines" | awk -v user="$shared_user" '
        ($3 != 0 && $3 != user) || substr($1, 6, 1) == "w" || substr($1, 9, 1) == "w" {
            for (i = 1; i < 9; i++) sub(/^[^ ]+ +/, "")
            gsub(/[\001-\037\177]/, "?")
            print
            exit
        }'
}

check_place() {
    shared=$(find_shared "$1")
    [ -n "$shared" ] || return 0
    {
        echo "${0##*/}: others than root can change $shared, and so what this script runs"
        echo "    fix: unpack the tarball as root, with umask 022, in a directory that only root can change, as /root"
        echo "Nothing was changed."
    } >&2
    exit 3
}

check_place "$here"

# The installed copy of this script runs the one of the installed generation.
kept=${DESTDIR:-}/var/lib/bundler/generations
if [ "$here" = "$(cd "${DESTDIR:-}/opt/k8s/bundle" 2>/dev/null && pwd -P)" ]; then
    current=''
    [ ! -f "${kept%/*}/current" ] || read -r current <"${kept%/*}/current"
    if [ ! -f "$kept/$current/install.sh" ]; then
        echo "install.sh: no installation of this host is complete: unpack its bundle, and run install.sh there" >&2
        exit 3
    fi
    exec /bin/sh "$kept/$current/install.sh" "$@"
fi

# Check the signature before reading any other file of the bundle, with the keys that this host trusts. It is over
# MANIFEST, which has the digests of this script's parts. A generation was checked when it was installed, and only
# root can write it: it is checked again only with --trust.
check_trust() {
    left=$#
    while [ "$left" -gt 0 ]; do
        option=$1 left=$((left - 1))
        shift
        case $option in
            --trust)
                [ "$left" -gt 0 ] || refuse_trust 2 "--trust needs the file of a public key" "--trust FILE.pub"
                [ -f "$1" ] ||
                    refuse_trust 2 "--trust needs the file of a public key: $1 is not a file" "--trust FILE.pub"
                set -- "$@" "$1" # keys come after the options
                shift
                left=$((left - 1))
                ;;
            -*tru*) refuse_trust 2 "unknown option $option" "--trust FILE.pub" ;;
        esac
    done
    trusted=${DESTDIR:-}/etc/bundler/trust.d
    is_kept_generation ||
        for place in "${trusted%/*}" "$trusted" "$trusted"/* "$trusted"/.[!.]* "$trusted"/..?*; do
            [ -e "$place" ] || [ -L "$place" ] || continue
            case $place in
                "${trusted%/*}" | "$trusted")
                    is_readable_directory "$place" ||
                        refuse_trust 3 "$place is not a readable directory" "make it one, or remove it"
                    ;;
                *.pub) set -- "$@" "$place" ;;
                *) refuse_trust 3 "$place is not named .pub, like a public key" "rename it, or remove it" ;;
            esac
        done
    [ $# -gt 0 ] || return 0
    command -v openssl >/dev/null 2>&1 ||
        refuse_trust 3 "this host has no openssl, which checks signatures" "install openssl"
    for key; do
        is_public_key "$key" || refuse_trust 3 "$key is not a public key that openssl can read" \
            "give the .pub file of bundler keygen, or remove it"
        shared=$(find_shared "$(readlink -f "$key")")
        [ -z "$shared" ] || refuse_trust 3 "others than root can change $shared, and so the key $key" \
            "copy the key as root to a directory that only root can change, such as /root or /etc/bundler/trust.d"
    done
    check_signature "$@"
}

is_kept_generation() { [ "${here%/*}" = "$(cd "$kept" 2>/dev/null && pwd -P)" ]; }
is_readable_directory() { [ -d "$1" ] && [ -r "$1" ] && [ -x "$1" ]; }
is_public_key() { [ -f "$1" ] && openssl pkey -pubin -in "$1" -noout >/dev/null 2>&1; }

# refuse_trust CODE WHAT FIX
refuse_trust() {
    printf 'install.sh: trust: %s\n    fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

# check_signature KEY...: one of them signed MANIFEST, and the files here are the ones in MANIFEST.
check_signature() {
    build="build with --sign KEY, or copy the signer's .pub to this host separately from the bundle"
    unpack="copy the tarball again, and unpack it into an empty directory"
    faults=$(list_irregular_files || echo 'its files cannot be listed')
    [ -z "$faults" ] || refuse_trust 3 "this bundle is refused: these are not regular files:
$faults" "$unpack"
    [ -f "$here/MANIFEST" ] || refuse_trust 3 "this bundle is refused: it has no MANIFEST" "$unpack"
    [ -f "$here/MANIFEST.sig" ] || refuse_trust 3 "this bundle is refused: it is not signed" "$build"
    is_signed "$@" ||
        refuse_trust 3 "this bundle is refused: no key that this host trusts signed it (keys: $*)" "$build"
    faults=$(list_manifest_differences || echo '    they cannot be compared')
    [ -z "$faults" ] || refuse_trust 3 "this bundle is refused: its files are not those that were signed:
$faults" "$unpack"
    are_scripts_signed || refuse_trust 3 "this bundle is refused: its scripts are not those that were signed" "$unpack"
}

is_signed() {
    for key; do
        openssl dgst -sha256 -verify "$key" -signature "$here/MANIFEST.sig" "$here/MANIFEST" >/dev/null 2>&1 && return 0
    done
    return 1
}

are_scripts_signed() (
    cd "$here" || exit 1
    awk '$4 ~ /^lib\// || $4 == "install.sh" || $4 == "node.env" { print $1 "  " $4 }' MANIFEST |
        sha256sum -c - >/dev/null 2>&1
)

# Links, pipes and such: no bundle has any, and none is opened.
list_irregular_files() (cd "$here" && find . ! -type f ! -type d)

# The lines of MANIFEST whose files the bundle contains: no line above them says that they are elsewhere. A generation
# has all files but packages.
list_bundled_files() {
    if is_kept_generation; then
        awk '!/^#/ && $4 !~ /^packages\//' "$here/MANIFEST"
    else
        awk '/^# from-/ { elsewhere[$3] = 1 } !/^#/ && !($4 in elsewhere)' "$here/MANIFEST"
    fi
}

# Files that are missing, and files and top directories that MANIFEST does not name.
list_manifest_differences() {
    own='./MANIFEST ./MANIFEST.sig'
    ! is_kept_generation || own="$own ./state ./state.new ./MANIFEST.sealed"
    {
        list_bundled_files
        echo //
        (cd "$here" && find . -type f && echo // && find . ! -name . -prune -type d)
    } | awk -v own="$own" '
        BEGIN { n = split(own, name, " "); for (i = 1; i <= n; i++) known[name[i]] = 1 }
        $0 == "//" { list++; next }
        !list { split($4, part, "/"); wanted["./" $4] = 1; known["./" part[1] "/"] = 1; next }
        list == 2 { $0 = $0 "/" }
        $0 in wanted { delete wanted[$0]; next }
        !($0 in known) { print "    " substr($0, 3) ": not in the manifest" }
        END { for (path in wanted) print "    " substr(path, 3) ": missing" }'
}

check_trust "$@"

for part in core/environment core/common core/https core/etcd-alarms core/resolver core/manifest core/redact \
    core/json transaction/report transaction/payload transaction/seal preflight/checks preflight/kernel preflight/host \
    preflight/old-data preflight/firewall preflight/programs preflight/users overrides/overrides packages/packages \
    packages/dpkg packages/rpm transaction/host-diff transaction/dry-run coordination/rollout-order coordination/keys \
    coordination/key-stages coordination/drain transaction/files transaction/users transaction/generations \
    transaction/images transaction/units transaction/ready; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

# How to call the container runtime, on nodes that have one.
# shellcheck disable=SC1091
[ ! -f "$here/lib/runtime.sh" ] || . "$here/lib/runtime.sh"

main() {
    parse_options "$@"
    make_work_dir
    started_at=$(now)
    check_bundle
    inspect_host
    choose_wait_limit
    [ "$dry_run" = no ] || finish_dry_run
    ! has_nothing_to_do || finish_without_changes
    print_advice
    take_lock
    inspect_host_again
    take_slots
    install_packages
    [ "$packages_only" = no ] || finish_packages_only
    check_programs_again
    check_site_files_again
    ! is_staged || finish_staged
    save_generation
    keep_seal "$to"
    [ "$recovering" = no ] || finish_recovery
    check_current_generation
    prepare_etcd_upgrade
    check_rollback_target
    [ -n "$returned_from" ] || drain_node
    create_users
    install_files
    label_files
    load_modules
    set_sysctls
    turn_swap_off
    reload_network_manager
    start_units
    wait_until_ready
    judge_host_units
    finish_switch
    mark_data
    [ "$outcome" != ready ] || uncordon_node
    print_summary
}

parse_options() {
    given=$#
    dry_run=no report=list packages_only=no wait_limit='' slot_wait=0 settle=10 skipped=' ' payload=''
    unseal_file='' unseal_key='' action='' result='' exit_codes=no machine=no
    go_back=yes returned_from='' recovering=no well_before=no drain=yes new_state=no
    while [ $# -gt 0 ]; do
        case $1 in
            --dry-run) dry_run=yes ;;
            --plan)
                dry_run=yes
                [ "$report" = json ] || report=plan
                ;;
            --json) report=json ;;
            --exit-code) exit_codes=yes ;;
            --packages-only) packages_only=yes ;;
            --wait)
                slot_wait=$(read_time "${2:-}") || usage_error "--wait needs a time, as 90, 90s or 15m"
                shift
                ;;
            --ready-within)
                is_number "${2:-}" || usage_error "--ready-within needs a number of seconds"
                wait_limit=$2
                shift
                ;;
            --settle)
                is_number "${2:-}" || usage_error "--settle needs a number of seconds"
                settle=$2
                shift
                ;;
            --no-rollback) go_back=no ;;
            --no-drain) drain=no ;;
            --new-state) new_state=yes ;;
            --list) action=list ;;
            --rollback)
                [ $# = "$given" ] || usage_error "--rollback must come first; other options follow it"
                shift
                run_rollback "$@"
                ;;
            --prune)
                run_prune "${2:-}"
                ;;
            --returned-from) # by go_back_to_previous
                returned_from=$2 machine=${told_machine:-no}
                shift
                ;;
            --recover) recovering=yes returned_from=boot ;; # by bundler-recover.service
            --skip-preflight)
                may_skip "${2:-}" ||
                    usage_error "--skip-preflight: '${2:-}' is not a check that may be skipped (see --list-preflight)"
                skipped="$skipped$2 "
                shift
                ;;
            --trust)
                [ -f "${2:-}" ] || usage_error "--trust needs the file of a public key"
                shift
                ;;
            --payload)
                [ -e "${2:-}" ] ||
                    usage_error "--payload needs the file payload-DIGEST.tar, or the directory that it was unpacked to"
                payload=$2
                shift
                ;;
            --unseal-file)
                [ "${2:-}" = - ] || [ -r "${2:-}" ] || usage_error "--unseal-file needs a file that has the code, or -"
                unseal_file=$2
                shift
                ;;
            --unseal-key)
                [ -f "${2:-}" ] || usage_error "--unseal-key needs the file of a private key"
                unseal_key=$2
                shift
                ;;
            --list-preflight)
                list_preflight
                exit 0
                ;;
            --version)
                print_version
                exit 0
                ;;
            --help | -h)
                print_help "$here/install.sh"
                exit 0
                ;;
            *) usage_error "unknown option $1" ;;
        esac
        shift
    done
    [ -z "$action" ] || finish_list
    [ "$report$dry_run" != jsonno ] || report_to_machine
}

is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac }

# read_time TIME: seconds.
read_time() {
    is_number "${1%[sm]}" || return 1
    case $1 in *m) echo $((${1%m} * 60)) ;; *) echo "${1%s}" ;; esac
}

run_rollback() {
    case ${1:-} in
        '' | -*) rollback '' "$@" ;;
        *[!0-9]*) usage_error "--rollback takes the number of a generation" ;;
        *) rollback "$@" ;;
    esac
}

run_prune() {
    case $1 in '' | *[!0-9]* | 0) usage_error "--prune needs how many generations to keep, at least 1" ;; esac
    make_work_dir
    take_lock
    prune_generations "$1"
    list_generations
    exit 0
}

# Until all of this holds, no file of the bundle is trusted, node.env included.
check_bundle() {
    [ -f "$here/MANIFEST" ] || die 3 "$here/MANIFEST is missing: unpack the complete tarball, and run install.sh there"
    check_public
    check_sources
    check_manifest || exit 3
    load_node
    read_images
    check_base
    open_seal
}

# Without the lock first, so that a dry run does not wait for another run.
inspect_host() {
    read_switch
    make_host_diff
    [ "$packages_only" = no ] || limit_to_packages
    check_external_files
    : >"$work/advice"
    : >"$work/failures"
    [ -n "$returned_from" ] || run_preflight
}

choose_wait_limit() {
    [ -z "$wait_limit" ] || return 0
    wait_limit=120
    ! is_healthy "$(current_generation)" || wait_limit=90
}

# With the lock no other run can change the host any more.
inspect_host_again() {
    [ "$(print_host_state)" != "$host_state" ] || return 0
    say "  another run changed this host in the meantime: checking it again"
    check_bundle
    inspect_host
}

take_slots() {
    if is_staged || [ -n "$returned_from" ]; then return 0; fi
    take_rollout_slot
    take_drain_slot
}

finish_dry_run() {
    print_advice
    print_host_diff
    [ ! -s "$work/failures" ] || refuse_host
    if has_nothing_to_do; then result=nothing; else result='done'; fi
    exit 0
}

finish_without_changes() {
    is_staged || {
        update_current_state
        keep_seal "$current"
        mark_data
        uncordon_after_interruption
    }
    # the lock of a run that was killed at its end goes with this run
    ! is_stale_lock "$store/lock" || take_lock
    say "$NODE: nothing to do"
    result=nothing
    exit 0
}

uncordon_after_interruption() {
    is_drain_interrupted || return 0
    if are_units_ready; then
        take_lock
        end_interrupted_drain
    else
        warn "$NODE stays cordoned, or keeps its rollout slot, until its units are ready: $unready_units"
    fi
}

finish_packages_only() {
    say "$NODE: $(count_lines <"$work/packages") packages installed"
    result='done'
    exit 0
}

finish_staged() {
    install_files
    say "$NODE: $(count_lines <"$work/changes") files staged in $prefix"
    result='done'
    exit 0
}

finish_recovery() {
    recover
    result='done'
    exit 0
}

print_version() {
    [ -f "$here/node.env" ] || usage_error "$here/node.env is missing"
    load_node
    say "bundler $TOOL_VERSION: $CLUSTER/$NODE, Kubernetes $KUBERNETES_VERSION"
}

print_summary() {
    files="$(count_lines <"$work/changes") files installed, $(count_lines <"$work/removed") removed"
    say ''
    say "$NODE: $files, $restarted units started, $loaded images loaded, in $(($(now) - started_at)) s"
    say_addons
    if [ -n "$returned_from" ] && [ "$outcome" != failed ]; then
        say "Back at generation $to; generation $returned_from was not healthy: see above, and" \
            "$store/failures/$returned_from."
        exit 5
    fi
    case $outcome in
        ready)
            result='done'
            say "All units are ready. When every host is installed: /opt/k8s/bundle/verify.sh on a control-plane node."
            ;;
        pending)
            result=waiting
            say "Still waiting, probably for hosts that are not installed yet: $unready_units. \
Nothing to do here: they retry by themselves."
            ;;
        failed)
            say "Not ready: $unready_units"
            exit 4
            ;;
    esac
}

main "$@"
