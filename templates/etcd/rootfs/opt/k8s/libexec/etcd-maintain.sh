#!/bin/sh
# Check and defragment etcd. The timers etcd-health and etcd-defrag run it.
#
# Usage: etcd-maintain.sh health|defrag|disarm
#
#   health   check that every member answers and that no alarm is on; else print why, and fail
#   defrag   defragment this member's database if every member answers and no alarm but NOSPACE is on: the member
#            does not answer during that time. With NOSPACE, old revisions are compacted first
#   disarm   turn the alarm NOSPACE off if every member's database is below 95 % of its quota; health and defrag do
#            it too
#
# NOSPACE: a member's database has reached --quota-backend-bytes, and etcd accepts no write.
#
# DESTDIR    prepended to the paths of installed files
set -u
LC_ALL=C
prefix=${DESTDIR:-}
# shellcheck source=/dev/null # a part of the installed bundle
. "$prefix/opt/k8s/bundle/lib/core/environment.sh" || exit 1
PATH=${PATH:-}:$prefix/opt/k8s/bin:/usr/sbin:/usr/bin:/sbin:/bin
ETCDCTL_API=3
export LC_ALL PATH ETCDCTL_API
pki=$prefix/etc/etcd/pki
bundle=$prefix/opt/k8s/bundle
# shellcheck source=/dev/null # rendered for each node
. "$bundle/node.env" || exit 1
# shellcheck source=/dev/null # parts of the installed bundle
. "$bundle/lib/core/https.sh" && . "$bundle/lib/core/etcd-alarms.sh" || exit 1

main() {
    case ${1:-} in
        health) check_members && disarm && echo "every member is healthy: $ETCD_ENDPOINTS" ;;
        defrag) check_members && refuse_other_alarms && defragment && disarm ;;
        disarm) disarm ;;
        *)
            echo "usage: etcd-maintain.sh health|defrag|disarm" >&2
            exit 2
            ;;
    esac
}

fail() {
    echo "etcd-maintain.sh: $*" >&2
    return 1
}

# own_etcdctl WORD...: at this member, with the time that a large database needs.
own_etcdctl() {
    timeout 120 etcdctl --endpoints "https://$ADDRESS:2379" --cacert "$pki/ca.crt" --command-timeout 90s \
        --cert "$pki/healthcheck-client.crt" --key "$pki/healthcheck-client.key" "$@"
}

check_members() {
    unhealthy=0 etcd_reason=''
    for endpoint in $ETCD_ENDPOINTS; do
        is_etcd_serving "$endpoint" "$pki/ca.crt" "$pki/healthcheck-client.crt" "$pki/healthcheck-client.key" ||
            fail "$etcd_reason. Fix: systemctl status etcd, on that host" || unhealthy=1
    done
    return "$unhealthy"
}

# Sets alarms.
read_alarms() { alarms=$(list_etcd_alarms "$ETCD_ENDPOINTS") || fail "the alarms cannot be read: $alarms"; }

refuse_other_alarms() {
    read_alarms || return 1
    case $alarms in
        '' | NOSPACE) ;;
        *) fail "alarms are on that defragmenting does not end: $(echo "$alarms" | tr '\n' ' ')" ;;
    esac
}

# With NOSPACE nothing was written since: no client needs an old revision, and the API server cannot compact.
defragment() {
    [ "$alarms" != NOSPACE ] || compact || return 1
    before=$(database_size)
    own_etcdctl defrag || return 1
    echo "size of the database: $before before, $(database_size) after"
}

compact() {
    revision=$(own_etcdctl endpoint status -w json | sed -n 's/.*"revision":\([0-9]*\).*/\1/p')
    [ -n "$revision" ] || fail "the revision cannot be read" || return 1
    compacted=$(own_etcdctl compact "$revision" 2>&1) || case $compacted in
        *'has been compacted'*) ;; # by another member's run
        *) fail "etcdctl compact $revision: $(printf '%s\n' "$compacted" | sed -n '$p')" || return 1 ;;
    esac
}

database_size() { own_etcdctl endpoint status -w simple | awk -F', ' '{ print $4 }'; }

# 0 if no alarm is on, or none any more.
disarm() {
    read_alarms || return 1
    [ -n "$alarms" ] || return 0
    if [ "$alarms" = NOSPACE ]; then
        full=$(list_full_members)
        [ -z "$full" ] ||
            fail "the alarm NOSPACE is on, and etcd accepts no write: $full. Fix: docs/guides/etcd-space.md" || return 1
        own_etcdctl alarm disarm || return 1
        echo "the alarm NOSPACE is off: every member's database is below 95 % of its quota"
        return 0
    fi
    fail "alarms are on: $(echo "$alarms" | tr '\n' ' '). Fix: docs/guides/etcd-space.md"
}

# The members whose database is too large, or that do not say. Just below the quota, the next write turns the alarm on
# again.
list_full_members() {
    for endpoint in $ETCD_ENDPOINTS; do
        size=$(read_etcd_size "$endpoint" "$pki/ca.crt" "$pki/healthcheck-client.crt" "$pki/healthcheck-client.key")
        if [ -z "$size" ]; then
            echo "$endpoint does not say the size of its database and its quota"
        elif [ "${size% *}" -ge $((${size#* } * 95 / 100)) ]; then
            echo "the database of $endpoint has ${size% *} bytes, its quota is ${size#* }"
        fi
    done | awk '{ printf "%s%s", (NR > 1 ? "; " : ""), $0 }'
}

main "$@"
