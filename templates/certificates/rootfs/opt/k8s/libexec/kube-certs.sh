#!/bin/sh
# Say when each certificate of this host ends, in the journal and for node-exporter, and restart the
# API server in good time before one ends that is nowhere but in its memory; and the kubelet, if it had
# its certificates of an authority that was replaced since. kube-certs.timer calls it.
#
# Usage: kube-certs.sh
#
# Lines begin with a priority for the journal (sd-daemon(3)): <4> under 60 days, <3> under 14 (sooner of
# what is meant to be short; kubelets renew their own with 30 days left at least).
# Metrics are written to TEXTFILE_DIR of node.env (monitoring.textfile_dir), if that directory is there.
# Exit code: 0 done, 1 the API server did not come back, 3 it was not this host's turn to restart it.
# DESTDIR, when set, is put before the paths of installed files.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 022
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=${DESTDIR:-}/opt/k8s/bundle
for part in core/common core/https transaction/host-diff transaction/units transaction/ready \
    coordination/rollout-order core/certificates; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

WARN=60 ALARM=14
# The name by which an API server's own requests ask for the certificate in its memory
# (k8s.io/apiserver, pkg/server/config_selfclient.go). Whoever asks by it is shown that.
LOOPBACK=apiserver-loopback-client
DAYS_BETWEEN=3 # between the restarts of two control planes that began on one day

main() {
    make_work_dir
    load_node
    { list_certificates; list_loopback; } >"$work/certificates"
    report
    write_metrics
    if is_locked; then say "<6>install.sh or uninstall.sh is running (process $(lock_owner)): all else is left to it"; return; fi
    list_stale_servers | sed 's/^/<3>/; s/$/: restart it/'
    restart_kubelet_of_former_authority
    ! runs_api_server || restart_api_server_in_time
}

# Where controller managers were replaced one after another, one may have signed that was still to go.
restart_kubelet_of_former_authority() {
    program=${DESTDIR:-}/opt/k8s/libexec/kubelet-authorities.sh
    has_word "$UNITS" kubelet.service && [ -x "$program" ] && "$program" --is-due || return 0
    say "<5>the kubelet has certificates of an authority that signs no more: restarting it, so that it asks for new ones"
    systemctl restart kubelet.service
}

runs_api_server() { case " $UNITS " in *' kube-apiserver.service '*) ;; *) return 1 ;; esac }

list_loopback() {
    ! runs_api_server || served_certificate "${API_LOCAL##*:}" "$LOOPBACK" | describe_pem "kube-apiserver's memory" |
        awk -F'\t' -v name="$LOOPBACK" 'index($4, name)'
}

report() {
    time=$(now)
    while IFS='	' read -r end start path subject; do
        left=$(((end - time) / DAY)) level=6
        [ "$left" -ge "$(days_wanted "$start" "$end" "$path" "$WARN")" ] || level=4
        [ "$left" -ge "$(days_wanted "$start" "$end" "$path" "$ALARM")" ] || level=3
        if [ "$end" -eq 0 ]; then
            say "<3>no certificate can be read in $path"
        elif [ "$end" -le "$time" ]; then
            say "<3>ended: $path ($subject)"
        else
            say "<$level>$left days left: $path ($subject)"
        fi
    done <"$work/certificates"
}

# Whole or not at all, since it may be read at any moment. Of certificates with one name in one file
# the one that ends first counts.
write_metrics() {
    [ -n "$TEXTFILE_DIR" ] && [ -d "$prefix$TEXTFILE_DIR" ] || return 0
    metrics=$prefix$TEXTFILE_DIR/bundler-certificates.prom
    if ! sort -n "$work/certificates" | awk -F'\t' '
        function quoted(text,    i, c, out) {
            for (i = 1; i <= length(text); i++) { c = substr(text, i, 1); out = out (c == "\\" || c == "\"" ? "\\" : "") c }
            return out
        }
        BEGIN {
            print "# HELP bundler_certificate_expiry_seconds When a certificate of this host ends, in seconds since 1970."
            print "# TYPE bundler_certificate_expiry_seconds gauge"
        }
        !seen[$3, $4]++ { printf "bundler_certificate_expiry_seconds{path=\"%s\",subject=\"%s\"} %s\n", quoted($3), quoted($4), $1 }' >"$metrics.part" ||
        ! chmod 0644 "$metrics.part" || ! mv -f "$metrics.part" "$metrics"; then
        warn "cannot write $metrics"
    fi
}

# One after another, and only while all the others serve; they never begin on the same day.
restart_api_server_in_time() {
    age=$(api_server_age) || return 0
    limit=$((API_SERVER_DAYS + $(place_among_api_servers) * DAYS_BETWEEN))
    if [ "$age" -lt "$limit" ] && ! does_loopback_end; then
        say "<6>kube-apiserver has run for $age days; it is restarted after $limit"
        return
    fi
    silent=$(find_silent_api_server)
    if [ -n "$silent" ]; then
        say "<4>kube-apiserver has run for $age days and is to be restarted, but $silent: it stays until that answers"
        return
    fi
    echo kube-apiserver.service >"$work/restarts"
    dry_run=no slot_wait=0
    : >"$work/failures"
    take_rollout_slot
    say "<5>kube-apiserver has run for $age days: restarting it, before the certificate in its memory ends"
    note "restarted kube-apiserver.service after $age days"
    systemctl restart kube-apiserver.service || die 1 "systemctl restart kube-apiserver.service failed"
    await_api_server || die 1 "kube-apiserver is not ready after its restart: $reason"
    say "<5>kube-apiserver is ready again"
}

# What check_turn (lib/rollout-order.sh) found.
add_failure() { printf '%s: %s\n' "$1" "$2" >>"$work/failures"; }

# Whole days since the process began.
api_server_age() {
    began=$(systemctl show -p ExecMainStartTimestampMonotonic kube-apiserver.service 2>/dev/null | sed 's/.*=//')
    [ "${began:-0}" -gt 0 ] || return 1
    awk -v began="$began" '{ print int(($1 - began / 1000000) / 86400) }' "$live/proc/uptime"
}

# 0 for the first control plane of the plan, 1 for the next.
place_among_api_servers() {
    place=0
    for planned in $NODES; do
        [ "${planned%%|*}" != "$NODE" ] || break
        case ${planned##*|} in *control-plane*) place=$((place + 1)) ;; esac
    done
    echo "$place"
}

# Whatever the process' age: what it shows has the last word.
does_loopback_end() {
    awk -F'\t' -v limit=$(($(now) + ALARM * DAY)) '$3 ~ /memory$/ && $1 < limit { found = 1 } END { exit !found }' "$work/certificates"
}

find_silent_api_server() {
    for planned in $NODES; do
        case ${planned##*|} in *control-plane*) ;; *) continue ;; esac
        server=${planned#*|} server=${server%|*}
        [ "$server" != "$ADDRESS" ] || continue
        silent_reason=$(api_server_answers "$server") || { echo "that of ${planned%%|*} is not ready ($silent_reason)"; return; }
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
