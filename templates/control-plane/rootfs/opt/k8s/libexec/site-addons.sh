#!/bin/sh
# Apply the add-ons of cluster.yaml in /etc/kubernetes/site-addons, wait until their workloads are ready, and delete
# what has left them.
#
# Usage: site-addons.sh [--once]
#
# addons.tsv there has the add-ons in order. Every control plane runs this script, and one at a time works: it holds the
# Lease kube-system/bundler-addons, renews it, and another one takes over when it has not changed for a minute. During a
# rollout control planes have different add-ons: those that were installed last count, as the Lease's annotation says.
#
# The ConfigMap kube-system/bundler-addon-NAME is the inventory of an add-on: its objects, its state, and the digest of
# what was applied. An add-on that is ready and unchanged is not applied again. An object is written into the inventory
# before it is applied, so that a kill leaves nothing behind. /run/kube-addons/state has NAME STATE REASON of each
# add-on: applying, waiting (for other hosts or add-ons), ready, failed. The script ends when all are ready, unless an
# add-on has reconcile: then it looks again after a while, and applies what somebody changed or deleted.
#
# NAME/hooks has the hooks of an add-on, which run before and after its other objects are applied: those of an
# installation until the add-on was complete once, then those of an upgrade, once for each change of its files.
#
# API_LOCAL   the API server to use (default: the one in the kubeconfig)
# DESTDIR     prepended to the paths of installed files
# INTERVAL    seconds between two looks (default 5)
# RECONCILE_EVERY  seconds between two looks for what somebody changed (default 600)
# PAUSE       seconds after which a hook that failed runs again (default 60)
# PATIENCE    seconds after which a Lease that does not change is taken over (default 60)
# shellcheck disable=SC2034,SC2154 # the parts share the variables
set -u
LC_ALL=C
PATH=$PATH:/opt/k8s/bin
export LC_ALL PATH
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
bundle=${DESTDIR:-}/opt/k8s/bundle
# shellcheck source=/dev/null # of the installed bundle
. "$bundle/lib/core/environment.sh" || exit 1
# shellcheck source=/dev/null
. "$bundle/lib/core/json.sh" || exit 1
# shellcheck source=/dev/null
. "$bundle/lib/core/redact.sh" || exit 1
for part in manifest-objects site-addons-lease site-addons-inventory site-addons-workloads site-addons-hooks \
    site-addons-reconcile; do
    # shellcheck source=/dev/null # parts of this script
    . "$here/$part.sh" || exit 1
done
manifests=${DESTDIR:-}/etc/kubernetes/addons # kube-apply.service applies them
addons=${DESTDIR:-}/etc/kubernetes/site-addons
kubeconfig=${DESTDIR:-}/etc/kubernetes/admin.kubeconfig
claimed=${DESTDIR:-}/var/lib/kube-addons/plan # the digest of the add-ons that this host has announced
work=${DESTDIR:-}/run/kube-addons
tab=$(printf '\t')
last_problem='' renewer=''

main() {
    mkdir -p "$work" "${claimed%/*}" || exit 1
    rm -f "$work/state" "$work/lost"
    node=$(sed -n "s/^NODE='\(.*\)'\$/\1/p" "$bundle/node.env")
    flags=$(sed -n "s/^APPLY_FLAGS='\(.*\)'\$/\1/p" "$bundle/node.env")
    diff_flags=$(sed -n "s/^DIFF_FLAGS='\(.*\)'\$/\1/p" "$bundle/node.env")
    network_addon=$(sed -n "s/^NETWORK_ADDON='\(.*\)'\$/\1/p" "$bundle/node.env")
    plan=$(digest_of "$addons")
    trap release_lease EXIT
    trap 'exit 1' INT TERM
    begin_round
    while :; do
        pause=${INTERVAL:-5}
        if look; then
            [ "${1:-}" != --once ] && is_reconciling || exit 0
            pause=${RECONCILE_EVERY:-600}
            begin_round
        fi
        [ "${1:-}" != --once ] || exit 3
        sleep "$pause" >/dev/null 2>&1 &
        wait $!
    done
}

# look: 0 if nothing is left to do on this host.
look() {
    read_lease || return 1
    claim_plan
    case $? in
        1) return 1 ;;
        2) # other add-ons were announced since
            : >"$work/state"
            return 0
            ;;
    esac
    if take_lease; then
        apply_all
    else
        show_states
        [ -s "$work/state" ] || return 1 # without add-ons there are perhaps former ones to delete
    fi
    [ ! -f "$work/lost" ] || {
        release_lease
        return 1
    }
    are_all_ready && release_lease
}

kube() {
    kubectl --kubeconfig "$kubeconfig" ${API_LOCAL:+--server "$API_LOCAL"} --request-timeout=30s "$@"
}

last_line() { printf '%s\n' "$1" | tail -n 1 | cut -c1-400; }

# report PROBLEM: print it if it is another one than before; returns 1.
report() {
    [ "$1" = "$last_problem" ] || printf '%s\n' "$1"
    last_problem=$1
    return 1
}

# digest_of DIRECTORY: of the names and contents of all files below it.
digest_of() {
    (cd "$1" 2>/dev/null && find . -type f | sort | xargs -r sha256sum) | sha256sum | cut -c1-64
}

list_addons() { awk -F "$tab" '!/^#/ && NF' "$addons/addons.tsv" 2>/dev/null; }

# Each add-on in its turn, then those that left cluster.yaml. A lost Lease ends it.
apply_all() {
    : >"$work/states"
    list_addons >"$work/table"
    while IFS=$tab read -r name needs timeout prune reconcile; do
        [ ! -f "$work/lost" ] || return 0
        state='' reason=''
        apply_addon </dev/null
        set_state "$name" "$state" "$reason"
    done <"$work/table"
    [ ! -f "$work/lost" ] || return 0
    delete_former_addons </dev/null
    mv -f "$work/states" "$work/state"
}

# On hosts that wait for the Lease: what the inventories say.
show_states() {
    : >"$work/states"
    list_addons >"$work/table"
    while IFS=$tab read -r name needs timeout prune reconcile; do
        state=applying reason="$holder applies the add-ons"
        if read_inventory </dev/null && [ "$found_digest" = "$(digest_of "$addons/$name")" ]; then
            state=${found_state:-applying} reason=$found_reason
        fi
        set_state "$name" "$state" "$reason"
    done <"$work/table"
    mv -f "$work/states" "$work/state"
}

set_state() {
    printf '%s %s %s\n' "$1" "$2" "$3" >>"$work/states"
    told=$(sed -n "s/^$1 //p" "$work/told" 2>/dev/null)
    [ "$told" != "$2 $3" ] || return 0
    printf 'add-on %s: %s%s\n' "$1" "$2" "${3:+: $3}"
    {
        sed "/^$1 /d" "$work/told" 2>/dev/null && :
        printf '%s %s %s\n' "$1" "$2" "$3"
    } >"$work/told.new"
    mv -f "$work/told.new" "$work/told"
}

are_all_ready() { ! awk '$2 != "ready" { found = 1 } END { exit !found }' "$work/state"; }

# Sets state and reason.
apply_addon() {
    directory=$addons/$name digest=$(digest_of "$addons/$name")
    read_inventory || {
        state=applying reason=$problem
        return 0
    }
    if [ "$found_digest" = "$digest" ] && [ "$found_state" = ready ]; then
        state=ready
        [ "$reconcile" = yes ] && is_reconcile_due || return 0
        reconcile_objects && judge_workloads
        [ "$state" = ready ] || write_inventory "$state" "$reason" || reason=$problem
        return 0
    fi
    missing=$(list_missing_needs)
    if [ -n "$missing" ]; then
        state=waiting reason="it needs $missing"
    elif [ "$found_digest" = "$digest" ] || apply_objects; then
        judge_workloads
    elif [ -z "$state" ]; then
        state=applying
        ! is_late || state=failed
    fi
    [ "$state $reason" = "$found_state $found_reason" ] || write_inventory "$state" "$reason" ||
        { state=applying reason=$problem; }
}

list_missing_needs() {
    printf '%s\n' "$needs" | tr ',' '\n' | awk -v states="$work/states" '
        BEGIN {
            while ((getline line < states) > 0) {
                split(line, field, " ")
                if (field[2] == "ready") ready[field[1]]
            }
        }
        $0 != "-" && !($0 in ready) { printf "%s%s", (n++ ? ", " : ""), $0 }'
}

# The time counts from the first try with these files.
is_late() { [ "$(($(date +%s) - found_since))" -ge "$timeout" ]; }

# apply_objects: 0 if the API has accepted everything, what left is deleted, and the hooks are done. Else sets reason,
# and state unless it is applying. Namespaces and definitions come before the hooks, as with Helm.
apply_objects() {
    sed '/^#/d' "$directory/objects.txt" >"$work/wanted"
    if [ "$found_trying" != "$digest" ]; then
        found_trying=$digest found_since=$(date +%s)
    fi
    case $found_hooks in
        "$digest post-"*) ;; # they are applied
        *) apply_before_hooks || return 1 ;;
    esac
    run_hooks post || return 1
    cp "$work/wanted" "$work/objects"
    found_digest=$digest found_hooks=''
    write_inventory applying '' || {
        reason=$problem
        return 1
    }
}

apply_before_hooks() {
    awk '!seen[$0]++' "$work/wanted" "$work/objects" >"$work/union"
    mv -f "$work/union" "$work/objects"
    write_inventory applying '' || {
        reason=$problem
        return 1
    }
    apply_files '[12]-*.yaml' && run_hooks pre && apply_files '[3-9]-*.yaml' && delete_unwanted "$prune" || return 1
    [ -d "$directory/hooks" ] || return 0
    event=post-install file=-
    [ -z "$found_digest" ] || event=post-upgrade
    note_hook 'done'
}

# apply_files PATTERN: of their names.
apply_files() {
    for part in "$directory"/$1; do
        [ -f "$part" ] || continue
        apply_file "$part" || return 1
    done
}

# Unchanged objects are not printed. Custom resources need definitions that the API serves. A Job cannot change: one
# that has another template now is deleted and made again.
apply_file() {
    try_file "$1" || {
        changed_jobs=$(printf '%s\n' "$output" |
            sed -n '/field is immutable/s/.*Job[.a-z]* "\([^"]*\)" is invalid.*/\1/p' | tr '\n' ' ')
        [ -n "$changed_jobs" ] && delete_jobs && try_file "$1"
    } || {
        reason=$(last_line "$output")
        return 1
    }
    case $1 in *-crds.yaml) ;; *) return 0 ;; esac
    output=$(kube wait --for=condition=Established --timeout=30s -f "$1" 2>&1) || {
        reason=$(last_line "$output")
        return 1
    }
}

try_file() {
    # shellcheck disable=SC2086 # a list of options
    output=$(kube apply $flags -f "$1" 2>&1)
    code=$?
    output=$(printf '%s\n' "$output" | (here=$bundle && redact) )
    printf '%s\n' "$output" | grep -v -e ' unchanged$' -e '^Warning: ' -e ' serverside-applied$' -e '^$'
    return "$code"
}

delete_jobs() {
    awk -v jobs="$changed_jobs" 'BEGIN { n = split(jobs, job, " "); for (i = 1; i <= n; i++) changed[job[i]] }
        $1 == "Job.batch" && $3 in changed' "$work/wanted" >"$work/changed-jobs"
    while read -r kind namespace object _; do
        kube -n "$namespace" delete "$kind" "$object" --ignore-not-found 2>&1 </dev/null || return 1
    done <"$work/changed-jobs"
}

main "$@"
