#!/bin/sh
# Install this node's bundle on this host: check, put files in place, start what changed, wait.
#
# Usage: install.sh [OPTION...]             as root, in the unpacked bundle, on the host that it is for
#
#   --dry-run               say exactly what would change, and change nothing
#   --packages-only         install the packages of the operating system that are missing, and no more
#   --wait SECONDS          how long to wait until the units are ready (default 120)
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
# order and side by side. A run that was cut short is finished by the next.
# Exit code: 0 done, nothing to do, or waiting for other hosts only; 1 failed after changes began
# (run it again); 2 wrong usage; 3 a check failed and nothing was changed; 4 a unit is not well.
# DESTDIR, when set, is where files go; nothing is started, and no package is installed.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
umask 022
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2

# Before any other file of the bundle is so much as read: the keys that this host trusts. The
# signature is over MANIFEST, and MANIFEST holds the digests of the parts of this script.
check_trust() {
    keys='' refused=''
    while [ $# -gt 0 ]; do
        if [ "$1" = --trust ]; then keys="$keys ${2:-}"; fi
        shift
    done
    for key in "${DESTDIR:-}"/etc/bundler/trust.d/*.pub; do [ ! -f "$key" ] || keys="$keys $key"; done
    [ -n "$keys" ] || return 0
    for key in $keys; do
        if openssl dgst -sha256 -verify "$key" -signature "$here/MANIFEST.sig" "$here/MANIFEST" >/dev/null 2>&1; then
            are_scripts_listed && return 0
            refused="its scripts are not those that were signed"
        fi
    done
    [ -f "$here/MANIFEST.sig" ] || refused="it is not signed"
    echo "install.sh: trust: this bundle is refused: ${refused:-no key that this host trusts signed it} (keys:$keys)" >&2
    echo "    fix: build with --sign KEY, or carry the signer's .pub here on another way than the bundle" >&2
    exit 3
}

# Each part is what MANIFEST says, and none is there that it does not name.
are_scripts_listed() (
    cd "$here" || exit 1
    scripts=$(awk '$4 ~ /^lib\// || $4 == "install.sh" || $4 == "node.env" { print $1 "  " $4 }' MANIFEST)
    printf '%s\n' "$scripts" | sha256sum -c - >/dev/null 2>&1 &&
        [ "$(find lib ! -type d | sort)" = "$(printf '%s\n' "$scripts" | sed -n 's/^[^ ]*  \(lib\/.*\)/\1/p' | sort)" ]
)

check_trust "$@"

for part in common https manifest absent preflight kernel host firewall packages plan files images units ready; do
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
    make_plan
    [ "$packages_only" = no ] || narrow_to_packages
    check_absent
    run_preflight
    if [ "$dry_run" = yes ]; then print_advice; print_plan; exit 0; fi
    if is_nothing_to_do; then say "$NODE: nothing to do"; exit 0; fi
    print_advice
    take_lock
    install_packages
    if [ "$packages_only" = yes ]; then say "$NODE: $(count_lines <"$work/packages") packages installed"; exit 0; fi
    install_files
    if is_staged; then say "$NODE: $(count_lines <"$work/changes") files staged in $prefix"; exit 0; fi
    label_files
    load_modules
    set_sysctls
    turn_swap_off
    reload_network_manager
    start_units
    wait_until_ready
    print_summary
}

parse_options() {
    dry_run=no packages_only=no wait_limit=120 skipped=' ' payload=''
    while [ $# -gt 0 ]; do
        case $1 in
            --dry-run) dry_run=yes ;;
            --packages-only) packages_only=yes ;;
            --wait)
                case ${2:-} in '' | *[!0-9]*) usage_error "--wait needs a number of seconds" ;; esac
                wait_limit=$2; shift ;;
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
