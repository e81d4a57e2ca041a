#!/bin/sh
# Report when each certificate of this host ends, in the journal and for node-exporter. Restart the API
# server before the loopback certificate ends, which is only in its memory. Restart the kubelet if its
# certificates were signed by a CA that has been replaced. kube-certs.timer runs this daily.
#
# Usage: kube-certs.sh
#
# Lines begin with a priority for the journal (sd-daemon(3)): <4> below 60 days, <3> below 14 (later for
# short certificates; kubelets renew theirs with at least 30 days left).
# Metrics are written to TEXTFILE_DIR of node.env (monitoring.textfile_dir), if that directory exists.
# Exit code: 0 done, 1 the API server did not become ready, 3 another host has the rollout slot.
# DESTDIR, if set, is a prefix of the paths of installed files.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 022
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=${DESTDIR:-}/opt/k8s/bundle
for part in core/environment core/common core/https core/etcd-alarms transaction/host-diff transaction/units \
    transaction/ready coordination/rollout-order coordination/keys coordination/key-stages core/certificates; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

WARN=60 ALARM=14
# The SNI name for which an API server presents the certificate in its memory
# (k8s.io/apiserver, pkg/server/config_selfclient.go).
LOOPBACK=apiserver-loopback-client
DAYS_BETWEEN=3 # between the restarts of control planes that were started on the same day

main() {
    make_work_dir
    load_node
    list_certificates >"$work/certificates"
    list_loopback >>"$work/certificates"
    report
    write_metrics
    if is_locked; then
        say "<6>install.sh or uninstall.sh is running (process $(lock_owner)): no server is checked or restarted"
        return 0
    fi
    list_stale_servers | sed 's/^/<3>/; s/$/: restart it/'
    restart_kubelet_of_previous_ca
    ! runs_api_server || restart_api_server_in_time
}

# While controller managers are replaced one by one, one of them may still sign with the previous CA.
restart_kubelet_of_previous_ca() {
    program=${DESTDIR:-}/opt/k8s/libexec/kubelet-join.sh
    has_word "$UNITS" kubelet.service && [ -x "$program" ] && "$program" --is-due || return 0
    say "<5>the kubelet has certificates of a previous CA: restarting it, so that it requests new ones"
    systemctl restart kubelet.service
}

runs_api_server() { case " $UNITS " in *' kube-apiserver.service '*) ;; *) return 1 ;; esac }

list_loopback() {
    runs_api_server || return 0
    served_certificate "${API_LOCAL##*:}" "$LOOPBACK" | describe_pem "kube-apiserver's memory" |
        awk -F'\t' -v name="$LOOPBACK" 'index($4, name)'
}

report() {
    time=$(now)
    while IFS='	' read -r end start path subject; do
        left=$(((end - time) / DAY)) level=6
        [ "$left" -ge "$(days_wanted "$start" "$end" "$path" "$WARN")" ] || level=4
        [ "$left" -ge "$(days_wanted "$start" "$end" "$path" "$ALARM")" ] || level=3
        if [ "$end" -eq 0 ]; then
            say "<3>$path: holds no readable certificate"
        elif [ "$end" -le "$time" ]; then
            say "<3>ended: $path ($subject)"
        else
            say "<$level>$left days left: $path ($subject)"
        fi
    done <"$work/certificates"
}

# Written atomically, because it may be read at any moment.
write_metrics() {
    [ -n "$TEXTFILE_DIR" ] && [ -d "$prefix$TEXTFILE_DIR" ] || return 0
    metrics=$prefix$TEXTFILE_DIR/bundler-certificates.prom
    if ! sort -n "$work/certificates" | awk -f "$here/lib/core/certificate-metrics.awk" >"$metrics.part" ||
        ! chmod 0644 "$metrics.part" || ! mv -f "$metrics.part" "$metrics"; then
        warn "cannot write $metrics"
    fi
}

# One host at a time, only while all other API servers are ready, and each host on a different day.
restart_api_server_in_time() {
    age=$(api_server_age) || return 0
    limit=$((API_SERVER_DAYS + $(place_among_api_servers) * DAYS_BETWEEN))
    if [ "$age" -lt "$limit" ] && ! does_loopback_end; then
        say "<6>kube-apiserver has run for $age days; it will be restarted after $limit days"
        return 0
    fi
    silent=$(find_silent_api_server)
    if [ -n "$silent" ]; then
        say "<4>kube-apiserver has run for $age days and is due for a restart, but $silent: waiting for it"
        return 0
    fi
    echo kube-apiserver.service >"$work/restarts"
    dry_run=no slot_wait=0
    : >"$work/failures"
    take_rollout_slot
    say "<5>kube-apiserver has run for $age days: restarting it, because the certificate in its memory will end"
    note "restarted kube-apiserver.service after $age days"
    systemctl restart kube-apiserver.service || die 1 "systemctl restart kube-apiserver.service failed"
    await_api_server || die 1 "kube-apiserver is not ready after its restart: $reason"
    say "<5>kube-apiserver is ready again"
}

# Called by check_turn (lib/coordination/rollout-order.sh).
add_failure() { printf '%s: %s\n' "$1" "$2" >>"$work/failures"; }

# Full days since the process started.
api_server_age() {
    started=$(systemctl show -p ExecMainStartTimestampMonotonic kube-apiserver.service 2>/dev/null | sed 's/.*=//')
    [ "${started:-0}" -gt 0 ] || return 1
    awk -v started="$started" '{ print int(($1 - started / 1000000) / 86400) }' "$live/proc/uptime"
}

# 0 for the first control plane in NODES, 1 for the next.
place_among_api_servers() {
    place=0
    for planned in $NODES; do
        [ "${planned%%|*}" != "$NODE" ] || break
        case ${planned##*|} in *control-plane*) place=$((place + 1)) ;; esac
    done
    echo "$place"
}

# Whether the presented loopback certificate ends soon, whatever the age of the process.
does_loopback_end() {
    awk -F'\t' -v limit=$(($(now) + ALARM * DAY)) \
        '$3 ~ /memory$/ && $1 < limit { found = 1 } END { exit !found }' "$work/certificates"
}

find_silent_api_server() {
    for planned in $NODES; do
        case ${planned##*|} in *control-plane*) ;; *) continue ;; esac
        server=${planned#*|} server=${server%|*}
        [ "$server" != "$ADDRESS" ] || continue
        if ! silent_reason=$(api_server_answers "$server"); then
            echo "kube-apiserver of ${planned%%|*} is not ready ($silent_reason)"
            return 0
        fi
    done
}

await_api_server() {
    deadline=$(($(now) + ${READY_WITHIN:-120}))
    until reason=$(api_server_answers "$ADDRESS"); do
        [ "$(now)" -lt "$deadline" ] || return 1
        sleep 2
    done
}

main "$@"
