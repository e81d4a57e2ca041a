# etcd's alarms. With the alarm NOSPACE a member serves reads and accepts no write, and its /health says 503.
# needs: prefix
# sets: etcd_reason
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# ask_etcd ENDPOINTS WORD...: etcdctl with the client certificate of this host, of a control plane or of a member.
ask_etcd() {
    asked=$(printf '%s' "$1" | tr ' ' ',') asked_pki=$prefix/etc/kubernetes/pki
    shift
    if [ -f "$asked_pki/etcd-ca.crt" ]; then
        set -- "$asked_pki/etcd-ca.crt" "$asked_pki/apiserver-etcd-client" "$@"
    else
        asked_pki=$prefix/etc/etcd/pki
        set -- "$asked_pki/ca.crt" "$asked_pki/healthcheck-client" "$@"
    fi
    asked_ca=$1 asked_client=$2
    shift 2
    ETCDCTL_API=3 PATH=$PATH:$prefix/opt/k8s/bin timeout 15 etcdctl --endpoints="$asked" --cacert="$asked_ca" \
        --cert="$asked_client.crt" --key="$asked_client.key" --dial-timeout=3s --command-timeout=8s "$@" 2>&1
}

# list_etcd_alarms ENDPOINTS: the names of the alarms that are on; 1 and the reason if no member says.
list_etcd_alarms() {
    alarm_lines=$(ask_etcd "$1" alarm list) || {
        printf '%s\n' "$alarm_lines" | sed -n '$s/^Error: //;$p'
        return 1
    }
    printf '%s\n' "$alarm_lines" | sed -n 's/^memberID:[0-9]* alarm:\([A-Z]*\).*/\1/p' | sort -u
}

# has_only_nospace ENDPOINTS: NOSPACE is on, and no other alarm. False if no member says.
has_only_nospace() { [ "$(list_etcd_alarms "$1")" = NOSPACE ]; }

# is_etcd_serving ENDPOINT CA CERT KEY: whether the member answers reads with a quorum, NOSPACE or not. Sets
# etcd_reason. exclude= came with 3.4.16, leaves one member's alarm out only, and without an alarm etcd logs a warning:
# so it is asked second, and then etcdctl, where this host has it.
is_etcd_serving() {
    etcd_member=${1#https://}
    for etcd_path in /health '/health?exclude=NOSPACE'; do
        etcd_reason=$(HTTPS_TIMEOUT=4 https_status "${etcd_member%:*}" "${etcd_member##*:}" "$etcd_path" "$2" "$3" "$4")
        case $etcd_reason in 200) return 0 ;; 000*) break ;; esac
    done
    case $etcd_reason in 000*) ;; *) ! is_read_with_nospace "$1" || return 0 ;; esac
    etcd_reason="$1/health gives ${etcd_reason#000 }"
    return 1
}

is_read_with_nospace() { has_only_nospace "$1" && ask_etcd "$1" get bundler/quorum --keys-only >/dev/null; }

# read_etcd_size ENDPOINT CA CERT KEY: "SIZE QUOTA" of the member's database in bytes; nothing if it does not say.
read_etcd_size() {
    etcd_member=${1#https://}
    HTTPS_TIMEOUT=8 https_get "${etcd_member%:*}" "${etcd_member##*:}" /metrics "$2" "$3" "$4" | awk '
        $1 == "etcd_mvcc_db_total_size_in_bytes" { size = $2 }
        $1 == "etcd_server_quota_backend_bytes" { quota = $2 }
        END { if (size != "" && quota != "") printf "%.0f %.0f\n", size, quota }'
}
