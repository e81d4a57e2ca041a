#!/bin/sh
# Uncordon this node, and give its rollout slot back, if install.sh or uninstall.sh was killed or lost power during a
# drain: when no other run has the lock and all units are ready. A cordon that somebody else set stays.
# kube-uncordon.path starts it when a drain begins, and after a boot; it ends with the drain.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=${DESTDIR:-}/opt/k8s/bundle
for part in core/environment core/common coordination/drain; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

main() {
    while is_drain_interrupted; do
        ! is_run_over || (end_drain)
        ! is_drain_interrupted || sleep "${INTERVAL:-15}"
    done
}

# While `switch` or `unfinished` exists, files of two bundles may be installed: the next run or boot corrects that.
is_run_over() { ! is_locked && [ ! -f "$store/switch" ] && [ ! -f "$store/unfinished" ]; }

# With the parts and units of the generation that is installed now.
end_drain() {
    read -r current <"$store/current" || exit 1
    here=$store/generations/$current
    for part in core/https core/etcd-alarms preflight/checks transaction/host-diff transaction/units \
        transaction/ready coordination/drain runtime; do
        # shellcheck disable=SC1090 # the files of the bundle
        . "$here/lib/$part.sh" || exit 1
    done
    make_work_dir
    load_node
    settle=10 wait_begun=$(now)
    are_units_ready || exit 0
    take_lock
    end_interrupted_drain
    exit 0
}

main "$@"
