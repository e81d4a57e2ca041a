# Checks of one host by itself: verify.sh --node.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# shellcheck disable=SC1091 # the bundle's own, where the node has a container runtime
check_node() {
    . "$here/lib/transaction/images.sh"
    [ ! -f "$here/lib/runtime.sh" ] || . "$here/lib/runtime.sh"
    read_images
    PATH=$PATH:/opt/k8s/bin
    begun=$(now) deadline=$(($(now) + (timeout < 20 ? timeout : 20)))
    say "verifying the host $NODE of the cluster $CLUSTER"
    # shellcheck disable=SC2046 # lists of words
    start_checks $(chosen_checks nothing)
    await_started
    "report_$format" $(($(now) - begun))
    have_all_held
    exit
}

# all_well WHAT-WAS-SEEN: problems on stdin → the verdict.
all_well() {
    problems=$(cat)
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "$1"
}

check_host_units() {
    expect "active and enabled: $UNITS"
    # shellcheck disable=SC2086 # a list of units
    for unit in $UNITS; do
        state=$(systemctl is-active "$unit" 2>&1)
        [ "$state" = active ] || printf '%s is %s\n' "$unit" "$state"
        systemctl -q is-enabled "$unit" 2>/dev/null || printf '%s does not start at boot\n' "$unit"
    done | all_well "$(printf '%s\n' $UNITS | count_lines) units"
}

check_host_files() {
    expect "the digests of MANIFEST"
    [ -f "$here/MANIFEST" ] || { saw "$here/MANIFEST is missing"; return 2; }
    awk '$4 ~ /^rootfs\// { print $1 "  '"$prefix"'" substr($4, 7) }' "$here/MANIFEST" >"$work/digests"
    sha256sum -c "$work/digests" 2>/dev/null | grep -v ': OK$' | sed 's/: .*/ is changed or missing/' |
        all_well "$(count_lines <"$work/digests") files"
}

# What is meant to be short may end sooner: after two thirds of its time it counts.
check_host_certificates() {
    expect "none that ends within 30 days"
    list_certificates >"$work/certificates"
    time=$(now)
    while IFS='	' read -r end start path subject; do
        left=$(((end - time) / DAY))
        [ "$left" -ge "$(days_wanted "$start" "$end" "$path" 30)" ] || printf '%s: %s days left (%s)\n' "$path" "$left" "$subject"
    done <"$work/certificates" | all_well "$(count_lines <"$work/certificates") certificates"
}

check_host_serving() {
    expect "no other certificate on these ports than in these files: $SERVING"
    list_stale_servers | all_well "$(printf '%s\n' "$SERVING" | wc -w | tr -d ' ') servers"
}

check_host_kernel() {
    expect "$SYSCTLS; modules: ${MODULES:-none}"
    {
        for setting in $SYSCTLS; do
            file=/proc/sys/$(printf '%s' "${setting%%=*}" | tr . /)
            [ ! -f "$file" ] || [ "$(cat "$file")" -ge "${setting#*=}" ] 2>/dev/null ||
                printf '%s is %s, not %s\n' "${setting%%=*}" "$(cat "$file")" "${setting#*=}"
        done
        [ -z "$SWAP_OFF" ] || awk 'NR > 1 { print "swap is on: " $1 }' /proc/swaps
    } | all_well "as the bundle wants them"
}

# Local ports that listen, in hexadecimal, with the address before each: "0100007F 1F90".
print_listening() { awk '$4 == "0A" { split($2, part, ":"); print part[1], part[2] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }

check_host_ports() {
    expect "$PORTS listening, and none of $CLOSED_PORTS open to others"
    print_listening >"$work/listening"
    {
        for port in $PORTS; do
            grep -q " $(printf '%04X' "${port%%:*}")\$" "$work/listening" || printf 'nothing listens on %s (%s)\n' "${port%%:*}" "${port#*:}"
        done
        for port in $CLOSED_PORTS; do
            awk -v port="$(printf '%04X' "$port")" -v name="$port" \
                '$2 == port && $1 !~ /7F$/ && $1 !~ /^0+01000000$/ { print name " is open to others"; exit }' "$work/listening"
        done
    } | all_well "$(printf '%s\n' "$PORTS" | wc -w | tr -d ' ') ports"
}

# answers_here PORT PATH CA [CERT KEY]
answers_here() {
    expect "200 from https://$ADDRESS:$1$2"
    status=$(https_status "$ADDRESS" "$@")
    saw "$status"
    [ "$status" = 200 ]
}

check_host_etcd() {
    answers_here 2379 /health "$prefix/etc/etcd/pki/ca.crt" "$prefix/etc/etcd/pki/healthcheck-client.crt" "$prefix/etc/etcd/pki/healthcheck-client.key"
}

# /readyz came with Kubernetes 1.16; before, RBAC knows of /healthz only.
check_host_apiserver() {
    for path in /readyz /healthz; do
        answers_here "${API_LOCAL##*:}" "$path" "$pki/ca.crt" "$pki/apiserver-kubelet-client.crt" "$pki/apiserver-kubelet-client.key" && return
        case $status in 403 | 404) ;; *) return 1 ;; esac
    done
    return 1
}

# Without a certificate it answers nobody; that it does so shows that it serves.
check_host_kubelet() {
    expect "401 from https://$ADDRESS:10250/healthz, with a certificate that verifies"
    status=$(https_status "$ADDRESS" 10250 /healthz "$pki/ca.crt")
    saw "$status"
    [ "$status" = 401 ]
}

check_host_images() {
    expect "every image of the bundle, by its id"
    # shellcheck disable=SC2086 # a list of words
    list_missing_images | sed 's/^[^|]*|//; s/|.*/ is not there, or another image/' |
        all_well "$(printf '%s\n' $IMAGES | count_lines) images"
}
