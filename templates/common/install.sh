#!/bin/sh
# Install this node's bundle on this host: check, put files in place, start what changed, wait.
#
# Usage: install.sh [OPTION...]             as root, in the unpacked bundle, on the host that it is for
#
#   --dry-run               say exactly what would change, a line each, and change nothing
#   --plan                  the same with what lies behind it: the lines of text files that differ, why a
#                           unit is restarted, what that interrupts and for how long
#   --plan --json           the same for machines
#   --packages-only         install the packages of the operating system that are missing, and no more
#   --wait TIME             how long to wait for this host's turn, as 90, 90s or 15m (default: not at all)
#   --no-drain              leave pods on this node while what runs them is replaced
#   --ready-within SECONDS  how long to wait until the units are ready (default 120; 90 where a healthy
#                           generation is there to go back to)
#   --settle SECONDS        how long each unit must have run without a restart (default 10)
#   --no-rollback           leave a generation in place that is not well, to look at it
#   --list                  list the generations on this host, then end
#   --rollback [N]          go to generation N; by default to the newest other one that was healthy;
#                           other options go behind it
#   --prune KEEP            remove old generations but for KEEP, the installed and one to go back to
#   --skip-preflight NAME   overrule one check, or do without its advice (may be given several times;
#                           see --list-preflight); what `swap` would turn off stays on
#   --trust FILE            refuse a bundle that this public key did not sign (several times: any of
#                           them); so do keys in /etc/bundler/trust.d/*.pub
#   --payload FILE          payload-DIGEST.tar, or a directory that it is in or was unpacked to; for
#                           bundles that were built with --layout split
#   --list-preflight        list the checks, then end
#   --version, --help
#
# It may be run again at any time: what is in place is left alone. Hosts may be installed in any
# order and side by side. A run that was cut short is finished by the next, and undone by a boot.
# Each bundle is kept as a generation of this host. Where a new one does not become well and the one
# before was, the host goes back by itself. In /opt/k8s/bundle it stands for the installed generation.
# Exit code: 0 done, nothing to do, or waiting for other hosts only; 1 failed after changes began
# (run it again); 2 wrong usage; 3 a check failed and nothing was changed; 4 a unit is not well;
# 5 the new bundle was not well, and the host is back where it was.
# DESTDIR, when set, is where files go; nothing is started, and no package is installed.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
umask 022
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2

# The installed copy of this script stands for the generation that is installed.
installed=${DESTDIR:-}/var/lib/bundler/generations
if [ "$here" = "$(cd "${DESTDIR:-}/opt/k8s/bundle" 2>/dev/null && pwd -P)" ]; then
    current=$(cat "${DESTDIR:-}/var/lib/bundler/current" 2>/dev/null)
    if [ ! -f "$installed/$current/install.sh" ]; then
        echo "install.sh: no installation of this host came to its end: unpack its bundle, and run install.sh there" >&2
        exit 3
    fi
    exec /bin/sh "$installed/$current/install.sh" "$@"
fi

# Before any other file of the bundle is so much as read: the keys that this host trusts. The
# signature is over MANIFEST, and MANIFEST holds the digests of the parts of this script. What was
# kept below /var/lib/bundler is root's own, and was judged when it came: only --trust asks again.
check_trust() {
    left=$#
    while [ "$left" -gt 0 ]; do
        option=$1 left=$((left - 1))
        shift
        case $option in
            --trust)
                [ "$left" -gt 0 ] || refuse_trust 2 "--trust needs the file of a public key" "--trust FILE.pub"
                [ -f "$1" ] || refuse_trust 2 "--trust needs the file of a public key, and $1 is none" "--trust FILE.pub"
                set -- "$@" "$1" # the keys gather behind the options
                shift
                left=$((left - 1)) ;;
            -*tru*) refuse_trust 2 "unknown option $option" "--trust FILE.pub" ;;
        esac
    done
    trusted=${DESTDIR:-}/etc/bundler/trust.d
    is_kept_generation || for place in "${trusted%/*}" "$trusted" "$trusted"/* "$trusted"/.[!.]* "$trusted"/..?*; do
        [ -e "$place" ] || [ -L "$place" ] || continue
        case $place in
            "${trusted%/*}" | "$trusted") is_readable_directory "$place" || refuse_trust 3 "$place is no directory that can be read" "mend it, or remove it" ;;
            *.pub) set -- "$@" "$place" ;;
            *) refuse_trust 3 "$place is not named .pub, and keys there are" "rename it, or remove it" ;;
        esac
    done
    [ $# -gt 0 ] || return 0
    command -v openssl >/dev/null 2>&1 || refuse_trust 3 "this host has no openssl to check signatures with" "install openssl"
    for key; do
        is_public_key "$key" || refuse_trust 3 "$key is no public key that openssl can read" "give the .pub that bundler keygen made, or remove it"
    done
    check_signature "$@"
}

is_kept_generation() { [ "${here%/*}" = "$(cd "$installed" 2>/dev/null && pwd -P)" ]; }

is_readable_directory() { [ -d "$1" ] && [ -r "$1" ] && [ -x "$1" ]; }
is_public_key() { [ -f "$1" ] && openssl pkey -pubin -in "$1" -noout >/dev/null 2>&1; }

# refuse_trust CODE WHAT FIX
refuse_trust() {
    printf 'install.sh: trust: %s\n    fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

# check_signature KEY...: one of them signed MANIFEST, and what lies here is what it names.
check_signature() {
    build="build with --sign KEY, or carry the signer's .pub here on another way than the bundle"
    unpack="copy the tarball again, and unpack it into an empty directory"
    faults=$(list_irregular_files || echo 'they cannot be listed')
    [ -z "$faults" ] || refuse_trust 3 "this bundle is refused: it holds what is no plain file:
$faults" "$unpack"
    [ -f "$here/MANIFEST" ] || refuse_trust 3 "this bundle is refused: it has no MANIFEST" "$unpack"
    [ -f "$here/MANIFEST.sig" ] || refuse_trust 3 "this bundle is refused: it is not signed" "$build"
    is_signed "$@" || refuse_trust 3 "this bundle is refused: no key that this host trusts signed it (keys: $*)" "$build"
    faults=$(list_manifest_differences || echo '    they cannot be compared')
    [ -z "$faults" ] || refuse_trust 3 "this bundle is refused: its files are not those that were signed:
$faults" "$unpack"
    are_scripts_signed || refuse_trust 3 "this bundle is refused: its scripts are not those that were signed" "$unpack"
}

is_signed() {
    for key; do
        ! openssl dgst -sha256 -verify "$key" -signature "$here/MANIFEST.sig" "$here/MANIFEST" >/dev/null 2>&1 || return 0
    done
    return 1
}

are_scripts_signed() (
    cd "$here" || exit 1
    awk '$4 ~ /^lib\// || $4 == "install.sh" || $4 == "node.env" { print $1 "  " $4 }' MANIFEST | sha256sum -c - >/dev/null 2>&1
)

# Links, pipes and such: no bundle has any, and none is opened.
list_irregular_files() (cd "$here" && find . ! -type f ! -type d)

# The lines of MANIFEST whose files lie here: no line above them says that it is elsewhere. A
# generation has them all, but no packages.
list_bundled_files() {
    if is_kept_generation; then awk '!/^#/ && $4 !~ /^packages\//' "$here/MANIFEST"; return; fi
    awk '/^# from-/ { absent[$3] = 1 } !/^#/ && !($4 in absent)' "$here/MANIFEST"
}

# Files that should be here and are not, and the other way round; folders at the top too.
list_manifest_differences() {
    own='./MANIFEST ./MANIFEST.sig'
    ! is_kept_generation || own="$own ./state ./state.new"
    { list_bundled_files; echo //; (cd "$here" && find . -type f && find . ! -name . -prune -type d | sed 's|$|/|'); } | awk -v own="$own" '
        BEGIN { n = split(own, name, " "); for (i = 1; i <= n; i++) known[name[i]] = 1 }
        !behind && $0 == "//" { behind = 1; next }
        !behind { split($4, part, "/"); wanted["./" $4] = 1; known["./" part[1] "/"] = 1; next }
        $0 in wanted { delete wanted[$0]; next }
        !($0 in known) { print "    " substr($0, 3) ": not in the manifest" }
        END { for (path in wanted) print "    " substr(path, 3) ": missing" }'
}

check_trust "$@"

for part in core/common core/https core/manifest transaction/payload preflight/checks preflight/kernel preflight/host preflight/firewall packages/packages packages/dpkg packages/rpm transaction/host-diff core/redact core/json transaction/dry-run coordination/rollout-order coordination/drain transaction/files transaction/generations transaction/images transaction/units transaction/ready; do
    # shellcheck disable=SC1090 # the files beside this one
    . "$here/lib/$part.sh" || exit 2
done

# How to talk to the container runtime, where the node has one.
# shellcheck disable=SC1091
[ ! -f "$here/lib/runtime.sh" ] || . "$here/lib/runtime.sh"

main() {
    parse_options "$@"
    make_work_dir
    begun=$(now)
    check_bundle
    inspect_host
    wait_limit=${wait_limit:-$(if is_healthy "$(current_generation)"; then echo 90; else echo 120; fi)}
    if [ "$dry_run" = yes ]; then print_advice; print_plan; [ ! -s "$work/failures" ] || refuse_host; exit 0; fi
    if has_nothing_to_do; then is_staged || update_current_state; say "$NODE: nothing to do"; exit 0; fi
    print_advice
    take_lock
    if [ "$(print_host_state)" != "$host_state" ]; then say "  another run changed this host meanwhile: it is looked at again"; check_bundle; inspect_host; fi
    if ! is_staged && [ -z "$returned_from" ]; then take_rollout_slot; take_drain_slot; fi
    install_packages
    if [ "$packages_only" = yes ]; then say "$NODE: $(count_lines <"$work/packages") packages installed"; exit 0; fi
    if is_staged; then install_files; say "$NODE: $(count_lines <"$work/changes") files staged in $prefix"; exit 0; fi
    save_generation
    if [ "$recovering" = yes ]; then recover; exit 0; fi
    check_current_generation
    prepare_etcd_upgrade
    check_rollback_target
    [ -n "$returned_from" ] || drain_node
    install_files
    label_files
    load_modules
    set_sysctls
    turn_swap_off
    reload_network_manager
    start_units
    wait_until_ready
    finish_switch
    [ "$outcome" != ready ] || uncordon_node
    print_summary
}

# Without a lock, so that one who only asks need not wait; and once more with it, where that is due.
inspect_host() {
    read_switch
    make_host_diff
    [ "$packages_only" = no ] || limit_to_packages
    check_external_files
    : >"$work/advice"
    : >"$work/failures"
    [ -n "$returned_from" ] || run_preflight
}

# read_time TIME: seconds.
read_time() {
    case ${1%[sm]} in '' | *[!0-9]*) return 1 ;; esac
    case $1 in *m) echo $((${1%m} * 60)) ;; *) echo "${1%s}" ;; esac
}

parse_options() {
    given=$#
    dry_run=no report=list packages_only=no wait_limit='' slot_wait=0 settle=10 skipped=' ' payload='' go_back=yes returned_from='' recovering=no well_before=no drain=yes
    while [ $# -gt 0 ]; do
        case $1 in
            --dry-run) dry_run=yes ;;
            --plan) dry_run=yes; [ "$report" = json ] || report=plan ;;
            --json) report=json ;;
            --packages-only) packages_only=yes ;;
            --wait)
                slot_wait=$(read_time "${2:-}") || usage_error "--wait needs a time, as 90, 90s or 15m"
                shift ;;
            --ready-within)
                case ${2:-} in '' | *[!0-9]*) usage_error "--ready-within needs a number of seconds" ;; esac
                wait_limit=$2; shift ;;
            --settle)
                case ${2:-} in '' | *[!0-9]*) usage_error "--settle needs a number of seconds" ;; esac
                settle=$2; shift ;;
            --no-rollback) go_back=no ;;
            --no-drain) drain=no ;;
            --list) list_generations; exit 0 ;;
            --rollback)
                [ $# = "$given" ] || usage_error "--rollback goes before all other options, which it hands on"
                shift
                case ${1:-} in '' | -*) rollback '' "$@" ;; *[!0-9]*) usage_error "--rollback takes the number of a generation" ;; *) rollback "$@" ;; esac ;;
            --prune)
                case ${2:-} in '' | *[!0-9]* | 0) usage_error "--prune needs how many generations to keep, at least 1" ;; esac
                make_work_dir
                take_lock
                prune_generations "$2"
                list_generations
                exit 0 ;;
            --returned-from) returned_from=$2; shift ;; # by return_to
            --recover) recovering=yes returned_from=boot ;; # by bundler-recover.service
            --skip-preflight)
                may_skip "${2:-}" || usage_error "--skip-preflight: '${2:-}' is no check that may be overruled (see --list-preflight)"
                skipped="$skipped$2 "; shift ;;
            --trust)
                [ -f "${2:-}" ] || usage_error "--trust needs the file of a public key"
                shift ;;
            --payload)
                [ -e "${2:-}" ] || usage_error "--payload needs the file payload-DIGEST.tar, or the directory that it was unpacked to"
                payload=$2
                shift ;;
            --list-preflight) list_preflight; exit 0 ;;
            --version) print_version; exit 0 ;;
            --help | -h) print_help "$here/install.sh"; exit 0 ;;
            *) usage_error "unknown option $1" ;;
        esac
        shift
    done
    [ "$report$dry_run" != jsonno ] || usage_error "--json goes with --plan"
}

# Until all of this holds nothing of the bundle is believed, node.env included.
check_bundle() {
    [ -f "$here/MANIFEST" ] || die 3 "$here/MANIFEST is missing: unpack the whole tarball, and run install.sh there"
    check_public
    check_manifest || exit 3
    load_node
    read_images
    check_base
}

print_version() {
    [ -f "$here/node.env" ] || usage_error "$here/node.env is missing"
    load_node
    say "bundler $TOOL_VERSION: $CLUSTER/$NODE, Kubernetes $KUBERNETES_VERSION"
}

print_summary() {
    say ''
    say "$NODE: $(count_lines <"$work/changes") files installed, $(count_lines <"$work/removed") removed, $restarted units started, $loaded images loaded, in $(($(now) - begun)) s"
    if [ -n "$returned_from" ] && [ "$outcome" != failed ]; then
        say "Back at generation $to; generation $returned_from was not well: see above, and install.sh --list."
        exit 5
    fi
    case $outcome in
        ready) say "All units are ready. When every host is installed: /opt/k8s/bundle/verify.sh on a control-plane node." ;;
        pending) say "Still waiting, probably for hosts that are not installed yet: $unready_units. Nothing to do here: they go on by themselves." ;;
        failed)
            say "Not well: $unready_units"
            exit 4
            ;;
    esac
}

main "$@"
