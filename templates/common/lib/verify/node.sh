# Checks of one host: verify.sh --node.
# needs: DAY IMAGES here pki prefix timeout work
# sets: deadline
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# shellcheck disable=SC1091 # lib/runtime.sh exists where the node has a container runtime
verify_host() {
    [ ! -f "$here/lib/runtime.sh" ] || . "$here/lib/runtime.sh"
    read_images
    PATH=$PATH:/opt/k8s/bin
    start=$(now) deadline=$(($(now) + (timeout < 20 ? timeout : 20)))
    say "verifying the host $NODE of the cluster $CLUSTER"
    # shellcheck disable=SC2046 # lists of words
    start_checks $(chosen_checks nothing)
    await_children
    print_report $(($(now) - start))
    have_all_passed
    exit
}

check_host_units() {
    expect "active and enabled: $UNITS"
    # shellcheck disable=SC2086 # lists of units
    conclude "$(
        for unit in $UNITS; do
            state=$(systemctl is-active "$unit" 2>&1)
            [ "$state" = active ] || printf '%s is %s\n' "$unit" "$state"
            systemctl -q is-enabled "$unit" 2>/dev/null || printf '%s does not start at boot\n' "$unit"
        done
    )" "$(count_words $UNITS) units"
}

check_host_files() {
    expect "the files match their digests in $here/MANIFEST"
    if [ ! -f "$here/MANIFEST" ]; then
        saw "$here/MANIFEST is missing"
        return 2
    fi
    awk -v prefix="$prefix" '$4 ~ /^rootfs\// { print $1 "  " prefix substr($4, 7) }' "$here/MANIFEST" >"$work/digests"
    conclude "$(
        sha256sum -c "$work/digests" 2>/dev/null | sed '/: OK$/d; s/: .*/ is changed or missing/'
    )" "$(count_lines <"$work/digests") files"
}

# Certificates that are issued for less than 90 days may have less than 30 days left: see days_wanted.
check_host_certificates() {
    expect "no certificate that expires within 30 days"
    list_certificates >"$work/certificates"
    time=$(now)
    conclude "$(
        while IFS='	' read -r end start path subject; do
            left=$(((end - time) / DAY))
            [ "$left" -ge "$(days_wanted "$start" "$end" "$path" 30)" ] ||
                printf '%s: %s days left (%s)\n' "$path" "$left" "$subject"
        done <"$work/certificates"
    )" "$(count_lines <"$work/certificates") certificates"
}

check_host_serving() {
    expect "each server uses the certificate in its file: $SERVING"
    # shellcheck disable=SC2086 # a list of words
    conclude "$(list_stale_servers)" "$(count_words $SERVING) servers"
}

check_host_users() {
    expect "units run as $SERVICE_USERS; secrets belong to root (0600), copies to their unit's group (0440)"
    # shellcheck disable=SC2086 # a list of words
    conclude "$(
        list_wrong_processes
        list_open_secrets
        for unit_user in $UNIT_USERS; do
            unit=${unit_user%:*} id=$(id_of_user "${unit_user#*:}")
            list_wrong_copies
            list_foreign_files
        done
    )" "$(count_words $UNIT_USERS) units"
}

id_of_user() {
    for service_user in $SERVICE_USERS; do
        [ "${service_user%:*}" != "$1" ] || printf '%s\n' "${service_user#*:}"
    done
}

# One that has no process now, as kube-apply.service after its work, has none to judge.
list_wrong_processes() {
    for unit_user in $UNIT_USERS; do
        unit=${unit_user%:*} id=$(id_of_user "${unit_user#*:}")
        pid=$(systemctl show -p MainPID "$unit.service" 2>/dev/null | sed 's/.*=//')
        [ "${pid:-0}" != 0 ] || continue
        runs_as=$(awk '$1 == "Uid:" { print $2 }' "/proc/$pid/status" 2>/dev/null)
        [ -z "$runs_as" ] || [ "$runs_as" = "$id" ] ||
            printf '%s runs as UID %s, expected %s (%s)\n' "$unit" "$runs_as" "${unit_user#*:}" "$id"
    done
}

# Secrets of the bundle; files of cluster.yaml have owners of their own.
list_open_secrets() {
    awk 'FILENAME == ARGV[1] { own[$1]; next }
        $2 == "0600" && $4 ~ /^rootfs\// && !(substr($4, 7) in own) { print substr($4, 7) }' \
        "$([ -f "$here/lib/site-files.tsv" ] && echo "$here/lib/site-files.tsv" || echo /dev/null)" "$here/MANIFEST" |
        sed "s|^|$prefix|" | xargs -r stat -c '%a %u:%g %n' 2>/dev/null |
        awk '$1 " " $2 != "600 0:0" { print $3 " is " $1 " " $2 ", expected 600 0:0" }'
}

list_wrong_copies() {
    copies=$prefix/run/bundler/$unit
    [ -d "$copies" ] || return 0
    find "$copies" -type f \( ! -user 0 -o ! -group "$id" -o ! -perm 0440 \) -exec ls -ln {} + |
        awk '{ print $NF " is " $1 " " $3 ":" $4 ", expected 0440 0:'"$id"'" }'
    find "$copies" -type f | while read -r copy; do
        cmp -s "$copy" "$prefix${copy#"$copies"}" ||
            printf '%s differs from %s\n' "$copy" "$prefix${copy#"$copies"}"
    done
}

list_foreign_files() {
    awk -F '\t' -v unit="$unit" '$1 == unit && $3 == "own" { print $4 }' "$here/lib/unit-files.tsv" |
        while read -r directory; do
            [ ! -d "$prefix$directory" ] ||
                find "$prefix$directory/." ! -path '*/./.bundler-state' ! -user "$id" -exec ls -dln {} + 2>/dev/null |
                awk '{ print $NF " belongs to UID " $3 ", expected '"$id"'" }'
        done | head -n 3
}

check_host_kernel() {
    expect "$SYSCTLS; modules: ${MODULES:-none}"
    conclude "$(
        for setting in $SYSCTLS; do
            file=/proc/sys/$(printf '%s' "${setting%%=*}" | tr . /)
            [ ! -f "$file" ] || [ "$(printf '%s' "$(cat "$file")" | tr -s ' \t' +)" = "${setting#*=}" ] ||
                printf '%s is %s, expected %s\n' "${setting%%=*}" "$(cat "$file")" "${setting#*=}"
        done
        [ -z "$SWAP_OFF" ] || awk 'NR > 1 { print "swap is on: " $1 }' /proc/swaps
    )" "kernel settings as required"
}

check_host_overrides() {
    expect "no later sysctl file, drop-in, CNI file or modprobe.d line that wins over the bundle's files"
    list_overrides "$prefix" >"$work/overrides"
    saw "$(awk -F '\t' '{ printf "%s%s%s; fix: %s", (NR > 1 ? ". " : ""), ($1 == "must" ? "" : "note: "), $2, $3 }
        END { if (NR == 0) print "none" }' "$work/overrides")"
    ! grep -q '^must' "$work/overrides" || return 2
}

# "ADDRESS PORT" in hexadecimal of every local port that listens: "0100007F 1F90".
print_listening() {
    awk '$4 == "0A" { split($2, part, ":"); print part[1], part[2] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

check_host_ports() {
    expect "listening: $PORTS; not open to other hosts: $CLOSED_PORTS"
    print_listening >"$work/listening"
    # shellcheck disable=SC2086 # a list of words
    conclude "$(
        for port in $PORTS; do
            grep -q " $(printf '%04X' "${port%%:*}")\$" "$work/listening" ||
                printf 'port %s is not open: %s does not listen\n' "${port%%:*}" "${port#*:}"
        done
        for port in $CLOSED_PORTS; do
            awk -v port="$(printf '%04X' "$port")" -v name="$port" '
                $2 == port && $1 !~ /7F$/ && $1 !~ /^0+01000000$/ { print "port " name " is open to other hosts"; exit }
                ' "$work/listening"
        done
    )" "$(count_words $PORTS) ports"
}

# check_https PORT PATH CA [CERT KEY]: sets status.
check_https() {
    expect "status 200 from https://$ADDRESS:$1$2"
    status=$(https_status "$ADDRESS" "$@")
    saw "$status"
    [ "$status" = 200 ]
}

# /health says 503 with an alarm.
check_host_etcd() {
    etcd_pki=$prefix/etc/etcd/pki
    check_https 2379 /health "$etcd_pki/ca.crt" "$etcd_pki/healthcheck-client.crt" "$etcd_pki/healthcheck-client.key" &&
        return $?
    alarms=$(list_etcd_alarms "https://$ADDRESS:2379") || return 1
    [ -z "$alarms" ] || saw "$status: alarms are on: $(printf '%s' "$alarms" | tr '\n' ' ')"
    return 1
}

# Before Kubernetes 1.16 there is no /readyz, and RBAC allows /healthz only.
check_host_apiserver() {
    client=$pki/apiserver-kubelet-client
    for path in /readyz /healthz; do
        check_https "${API_LOCAL##*:}" "$path" "$pki/ca.crt" "$client.crt" "$client.key" && return 0
        case $status in 403 | 404) ;; *) return 1 ;; esac
    done
    return 1
}

# Without a client certificate the kubelet answers 401, which shows that it serves. Before it has joined, it waits.
check_host_kubelet() {
    expect "status 401 from https://$ADDRESS:10250/healthz, with a certificate that verifies"
    if [ -s "$prefix/run/kubelet-join/reason" ]; then
        saw "it waits: $(cat "$prefix/run/kubelet-join/reason")"
        return 1
    fi
    status=$(https_status "$ADDRESS" 10250 /healthz "$pki/ca.crt")
    saw "$status"
    [ "$status" = 401 ]
}

check_host_runtime() {
    expect "a container of $PAUSE_IMAGE runs"
    if ! reason=$(ready_containers); then
        saw "$reason"
        return 1
    fi
    [ -f "$work/container-ran" ] || {
        saw "this image is not loaded"
        return 1
    }
    saw "it ran, and is removed"
}

check_host_images() {
    expect "every image of the bundle, with its image ID"
    # shellcheck disable=SC2086 # a list of words
    conclude "$(
        list_missing_images | sed 's/^[^|]*|//; s/|.*/ is missing, or another image has this name/'
    )" "$(count_words $IMAGES) images"
}
