# The certificates of this host: where they are, when they end, and whether servers show them.
# needs: prefix work
# sets: DAY
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

DAY=86400

# Every file that holds a certificate of this host.
list_certificate_files() {
    find "$prefix/etc/kubernetes/pki" "$prefix/etc/etcd/pki" "$prefix/etc/flannel/pki" -name '*.crt' 2>/dev/null
    for file in "$prefix"/etc/kubernetes/*.kubeconfig "$prefix/etc/kubernetes/addons/metrics-server.yaml"; do [ ! -f "$file" ] || printf '%s\n' "$file"; done
    find "$prefix$KUBELET_ROOT/pki" -name '*-current.pem' 2>/dev/null
}

# print_pem FILE: its certificates; of a kubeconfig the client's, if it is embedded; of a manifest a Secret's.
print_pem() {
    case $1 in
        *.kubeconfig | *.yaml) sed -n -e 's/^ *client-certificate-data: *//p' -e 's/^ *tls\.crt: *//p' "$1" | while read -r data; do printf '%s' "$data" | openssl base64 -d -A; done ;;
        *) cat "$1" ;;
    esac
}

# Every certificate as "END START PATH SUBJECT", set apart by tabs, times in seconds since 1970. Where
# a file should hold one and none can be read, END and START are 0.
list_certificates() {
    list_certificate_files | while read -r file; do
        print_pem "$file" | describe_pem "${file#"$prefix"}" && continue
        case $file in *.kubeconfig | *.yaml) ;; *) printf '0\t0\t%s\tunreadable\n' "${file#"$prefix"}" ;; esac
    done
}

# describe_pem PATH: certificates on stdin → their lines; 1 where there is none.
describe_pem() {
    rm -f "$work"/pem.*
    awk -v name="$work/pem." '/-----BEGIN CERTIFICATE-----/ { on = 1; n++ } on { print >(name n) } /-----END CERTIFICATE-----/ { on = 0; close(name n) }'
    described=1
    for pem in "$work"/pem.*; do
        facts=$(openssl x509 -noout -subject -startdate -enddate -nameopt RFC2253 -in "$pem" 2>/dev/null) || continue
        described=0
        printf '%s\n' "$facts" | awk -v path="$1" '
            # days since 1970 of a date in the proleptic Gregorian calendar
            function days(y, m, d,    era, year) {
                if (m <= 2) y--
                era = int(y / 400)
                year = y - era * 400
                return era * 146097 + year * 365 + int(year / 4) - int(year / 100) + int((153 * (m + (m > 2 ? -3 : 9)) + 2) / 5) + d - 1 - 719468
            }
            # "Nov 24 01:40:00 2027 GMT"
            function seconds(text,    part, time) {
                split(text, part, " ")
                split(part[3], time, ":")
                return days(part[4], (index("JanFebMarAprMayJunJulAugSepOctNovDec", part[1]) + 2) / 3, part[2]) * 86400 + time[1] * 3600 + time[2] * 60 + time[3]
            }
            { value = $0; sub(/^[^=]*= */, "", value) }
            /^subject/ { subject = value }
            /^notBefore/ { start = seconds(value) }
            /^notAfter/ { end = seconds(value) }
            END { printf "%.0f\t%.0f\t%s\t%s\n", end, start, path, subject }'
    done
    return "$described"
}

# days_wanted START END PATH MOST: how many days should be left: MOST, or a third of what is meant to be
# short. Kubelets renew their own when at least a tenth is left (of a year: 36 days).
days_wanted() {
    wanted=$(((($2) - ($1)) / (3 * DAY)))
    [ "$wanted" -le "$4" ] || wanted=$4
    case $3 in "$KUBELET_ROOT"/*) [ "$wanted" -le 30 ] || wanted=30 ;; esac
    echo "$wanted"
}

# served_certificate PORT [NAME]: what the server on that port of this host shows to who asks for NAME.
served_certificate() {
    timeout 10 openssl s_client -connect "$ADDRESS:$1" ${2:+-servername "$2"} </dev/null 2>/dev/null | openssl x509 2>/dev/null
}

# Servers that show another certificate than that of their file. Programs that reread their files do
# so within a minute, so those that changed just now are left out.
list_stale_servers() {
    for serving in $SERVING; do
        file=$prefix${serving#*|}
        [ -n "$(find "$file" -mmin +2 2>/dev/null)" ] || continue
        shown=$(served_certificate "${serving%%|*}" | openssl x509 -noout -fingerprint -sha256 2>/dev/null)
        [ -n "$shown" ] || continue
        [ "$shown" = "$(openssl x509 -noout -fingerprint -sha256 -in "$file" 2>/dev/null)" ] ||
            printf 'port %s shows another certificate than that in %s\n' "${serving%%|*}" "${serving#*|}"
    done
}
