# The certificates of this host: where they are, when they expire, and whether servers present them.
# needs: here prefix work
# sets: DAY
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

DAY=86400

# Every file that holds a certificate of this host.
list_certificate_files() {
    find "$prefix/etc/kubernetes/pki" "$prefix/etc/etcd/pki" "$prefix/etc/flannel/pki" -name '*.crt' 2>/dev/null
    for file in "$prefix"/etc/kubernetes/*.kubeconfig "$prefix/etc/kubernetes/addons/metrics-server.yaml"; do
        [ ! -f "$file" ] || printf '%s\n' "$file"
    done
    find "$prefix$KUBELET_ROOT/pki" -name '*-current.pem' 2>/dev/null
}

# print_pem FILE: its certificates; in a kubeconfig the embedded client certificate, in a manifest that of a Secret.
print_pem() {
    case $1 in
        *.kubeconfig | *.yaml)
            sed -n -e 's/^ *client-certificate-data: *//p' -e 's/^ *tls\.crt: *//p' "$1" |
                while read -r data; do printf '%s' "$data" | openssl base64 -d -A; done
            ;;
        *) cat "$1" ;;
    esac
}

# Every certificate as "END START PATH SUBJECT", separated by tabs, times in seconds since 1970. If a file should
# contain a certificate and none can be read, END and START are 0.
list_certificates() {
    list_certificate_files | while read -r file; do
        print_pem "$file" | describe_pem "${file#"$prefix"}" && continue
        case $file in *.kubeconfig | *.yaml) ;; *) printf '0\t0\t%s\tunreadable\n' "${file#"$prefix"}" ;; esac
    done
}

# describe_pem PATH: certificates on stdin → their lines; 1 if there is no certificate.
describe_pem() {
    rm -f "$work"/pem.*
    awk -v name="$work/pem." '/-----BEGIN CERTIFICATE-----/ { on = 1; n++ }
        on { print >(name n) }
        /-----END CERTIFICATE-----/ { on = 0; close(name n) }'
    described=1
    for pem in "$work"/pem.*; do
        facts=$(openssl x509 -noout -subject -startdate -enddate -nameopt RFC2253 -in "$pem" 2>/dev/null) || continue
        described=0
        printf '%s\n' "$facts" | awk -v path="$1" -f "$here/lib/core/certificate-dates.awk"
    done
    return "$described"
}

# days_wanted START END PATH MOST: how many days should be left: MOST, or a third of a short validity. Kubelets renew
# their own when at least a tenth is left (of a year: 36 days).
days_wanted() {
    wanted=$(((($2) - ($1)) / (3 * DAY)))
    [ "$wanted" -le "$4" ] || wanted=$4
    case $3 in "$KUBELET_ROOT"/*) [ "$wanted" -le 30 ] || wanted=30 ;; esac
    echo "$wanted"
}

# served_certificate PORT [NAME]: the certificate that this host's server on that port presents for NAME.
served_certificate() {
    served_at=$ADDRESS
    case $1 in 10257 | 10259) served_at=${MANAGERS_AT:-$ADDRESS} ;; esac
    timeout 10 openssl s_client -connect "$served_at:$1" ${2:+-servername "$2"} </dev/null 2>/dev/null |
        openssl x509 2>/dev/null
}

# Servers that present another certificate than that of their file. Programs that reload their files do so within a
# minute, so recently changed files are not checked.
list_stale_servers() {
    for serving in $SERVING; do
        file=$prefix${serving#*|}
        [ -n "$(find "$file" -mmin +2 2>/dev/null)" ] || continue
        shown=$(served_certificate "${serving%%|*}" | openssl x509 -noout -fingerprint -sha256 2>/dev/null)
        [ -n "$shown" ] || continue
        [ "$shown" = "$(openssl x509 -noout -fingerprint -sha256 -in "$file" 2>/dev/null)" ] ||
            printf 'port %s presents another certificate than that in %s\n' "${serving%%|*}" "${serving#*|}"
    done
}
