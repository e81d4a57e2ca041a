#!/bin/sh
# Approve requests for kubelet serving certificates, but only those that fit the plan.
#
# Usage: approve-csrs.sh [--once]
#
# The plan is /etc/kubernetes/nodes.tsv: the name and the address of each worker, a tab between. A
# request is approved when system:node:NAME of the group system:nodes asks, in its own name, for a
# certificate of exactly that name and that address, and for nothing more. Any other is left
# pending for a person to look at. Each decision is a line on stdout, said once.
#
# DESTDIR    put before the paths of installed files
# INTERVAL   seconds between two looks (default 5)
set -u
LC_ALL=C
PATH=$PATH:/opt/k8s/bin
export LC_ALL PATH
plan=${DESTDIR:-}/etc/kubernetes/nodes.tsv
kubeconfig=${DESTDIR:-}/etc/kubernetes/csr-approver.kubeconfig
decided=' '
trouble=''

# One line a pending request, fields set apart by tabs: name signer user groups usages request.
# %q quotes what others chose freely, so that no value can pass for two fields or two lines.
# shellcheck disable=SC2016 # the dollars are the template's
template='{{range .items}}{{$pending := true}}{{with .status}}{{with .conditions}}{{$pending = false}}{{end}}{{end}}{{if $pending}}{{.metadata.name}}	{{with .spec.signerName}}{{printf "%q" .}}{{else}}-{{end}}	{{with .spec.username}}{{printf "%q" .}}{{else}}-{{end}}	[{{range .spec.groups}}{{printf "%q" .}}{{end}}]	[{{range .spec.usages}}{{printf "%q" .}}{{end}}]	{{.spec.request}}
{{end}}{{end}}'
tab=$(printf '\t')

main() {
    case "${1:-}" in
        '') ;;
        --once) look_once; exit ;;
        *) echo "usage: approve-csrs.sh [--once]" >&2; exit 2 ;;
    esac
    trap 'exit 0' INT TERM
    echo "approving serving certificates for the nodes in $plan"
    while :; do
        look_once
        # Waiting for a background sleep lets a signal end this at once.
        sleep "${INTERVAL:-5}" &
        wait $!
    done
}

kube() { kubectl --kubeconfig "$kubeconfig" --request-timeout=15s "$@"; }

look_once() {
    if ! pending=$(kube get certificatesigningrequests -o "go-template=$template" 2>&1); then
        pending=$(printf '%s' "$pending" | tail -n 1)
        [ "$pending" = "$trouble" ] || echo "cannot list the requests: $pending"
        trouble=$pending
        return 1
    fi
    trouble=''
    still_pending=' '
    while IFS=$tab read -r name signer user groups usages request; do
        is_for_serving "$signer" "$usages" || continue
        consider
    done <<LIST
$pending
LIST
    decided=$still_pending
}

# Requests of before Kubernetes 1.18 name no signer: their usages tell.
is_for_serving() {
    case $1 in
        '"kubernetes.io/kubelet-serving"') return 0 ;;
        -) case $2 in *'"server auth"'*) return 0 ;; esac ;;
    esac
    return 1
}

# Judges the request in the variables of look_once, acts, and says so unless it did before.
consider() {
    if reason=$(find_fault "$user" "$groups" "$usages" "$request"); then
        verdict=refused
    elif answer=$(kube certificate approve "$name" 2>&1); then
        echo "approved $name: node $(node_of "$user"), address $(planned_address "$(node_of "$user")")"
        return
    else
        verdict='could not approve' reason=$(printf '%s' "$answer" | tail -n 1)
    fi
    case $decided in *" $name "*) ;; *) echo "$verdict $name: $reason" ;; esac
    still_pending="$still_pending$name "
}

# find_fault USER GROUPS USAGES REQUEST (as in the template): prints why the request does not fit
# the plan and returns 0, or returns 1 when it fits.
find_fault() (
    node=$(node_of "$1")
    case $node in
        '' | *[!a-z0-9.-]*) echo "the requester $1 is no node"; exit 0 ;;
    esac
    address=$(planned_address "$node")
    [ -n "$address" ] || { echo "the node $node is not in the plan"; exit 0; }
    case $2 in *'"system:nodes"'*) ;; *) echo "$1 is not in the group system:nodes"; exit 0 ;; esac
    find_usage_fault "$3" && exit 0
    find_request_fault "$node" "$address" "$4" && exit 0
    exit 1
)

# "system:node:NAME", quoted → NAME; else nothing.
node_of() {
    quoted=$1
    case $quoted in '"system:node:'*'"') ;; *) return ;; esac
    quoted=${quoted#\"system:node:}
    printf '%s\n' "${quoted%\"}"
}

# The empty string makes awk compare text: as numbers, 10 and 1e1 would be the same node.
planned_address() { NODE_NAME=$1 awk -F'\t' '$1 "" == ENVIRON["NODE_NAME"] "" { print $2; exit }' "$plan"; }

# Key encipherment is asked for with RSA keys only, and not by newer kubelets.
find_usage_fault() {
    rest=$1
    for usage in 'server auth' 'digital signature' 'key encipherment'; do
        case $rest in
            *"\"$usage\""*) rest="${rest%%\""$usage"\"*}${rest#*\""$usage"\"}" ;;
            *) [ "$usage" = 'key encipherment' ] || { echo "the usage $usage is missing: $1"; return 0; } ;;
        esac
    done
    [ "$rest" = '[]' ] || { echo "usages beyond server auth, digital signature, key encipherment: $1"; return 0; }
    return 1
}

# find_request_fault NODE ADDRESS REQUEST: the same, of the PKCS#10 request itself.
find_request_fault() {
    pem=$(printf '%s' "$3" | base64 -d 2>/dev/null) || { echo "the request is not base64"; return 0; }
    has_one_block "$pem" || { echo "the request is not exactly one PEM block"; return 0; }
    # Silent since 1.1 when it holds; the exit status of older ones says nothing.
    printf '%s\n' "$pem" | openssl req -verify -noout 2>&1 | grep -qi 'verify ok' ||
        { echo "the request is not signed with its own key"; return 0; }
    subject=$(printf '%s\n' "$pem" | openssl req -noout -subject -nameopt RFC2253 2>/dev/null | sed 's/^subject= *//')
    case $subject in
        "CN=system:node:$1,O=system:nodes" | "O=system:nodes,CN=system:node:$1") ;;
        *) echo "its subject is $subject, expected CN=system:node:$1,O=system:nodes"; return 0 ;;
    esac
    attributes=$(print_attributes "$pem")
    for names in "$(der_dns "$1")" "$(der_address "$2")" "$(der_dns "$1")$(der_address "$2")" "$(der_address "$2")$(der_dns "$1")"; do
        [ "$attributes" != "$(der_attributes "$names")" ] || return 1
    done
    echo "it asks for $(describe_names "$pem"), may have only DNS:$1, IP Address:$2"
}

# Anything around the block could be read one way by openssl and another by the API server.
has_one_block() {
    printf '%s\n' "$1" | awk '
        NR == 1 { good = ($0 == "-----BEGIN CERTIFICATE REQUEST-----"); next }
        ended { good = 0 }
        $0 == "-----END CERTIFICATE REQUEST-----" { ended = 1; next }
        !/^[A-Za-z0-9+\/]+=*$/ { good = 0 }
        END { exit !(good && ended) }'
}

# The request's attributes as hexadecimal DER: what it asks for beyond subject and key. Their place
# is the first [0] at depth 2: behind subject and key, which can hold nothing that looks like it.
print_attributes() {
    place=$(printf '%s\n' "$1" | openssl asn1parse 2>/dev/null |
        sed -n 's/^ *\([0-9]*\):d=2 *hl=\([0-9]*\) *l= *\([0-9]*\) *cons: *cont \[ 0 \].*/\1 \2 \3/p' | sed -n 1p)
    [ -n "$place" ] || return 0
    # shellcheck disable=SC2086 # three numbers
    set -- "$1" $place
    printf '%s\n' "$1" | sed '1d;/^-----END/d' | base64 -d | tail -c +$(($2 + 1)) | head -c $(($3 + $4)) | to_hex
}

# What a kubelet sends: one attribute (extensionRequest) with one extension (subjectAltName).
der_attributes() {
    extension=$(der 30 "0603551d11$(der 04 "$(der 30 "$1")")")
    der a0 "$(der 30 "06092a864886f70d01090e$(der 31 "$(der 30 "$extension")")")"
}

der_dns() { der 82 "$(printf '%s' "$1" | to_hex)"; }

der_address() {
    old_ifs=$IFS
    IFS=.
    # shellcheck disable=SC2086 # four numbers
    set -- $1
    IFS=$old_ifs
    der 87 "$(printf '%02x' "$@")"
}

# der TAG HEX: tag, length, value.
der() {
    length=$((${#2} / 2))
    if [ "$length" -lt 128 ]; then
        printf '%s%02x%s' "$1" "$length" "$2"
    elif [ "$length" -lt 256 ]; then
        printf '%s81%02x%s' "$1" "$length" "$2"
    else
        printf '%s82%04x%s' "$1" "$length" "$2"
    fi
}

to_hex() { od -An -v -tx1 | tr -d ' \n'; }

# For the log only: a value may have been made to mislead here.
describe_names() {
    described=$(printf '%s\n' "$1" | openssl req -noout -text 2>/dev/null | tr -cd '\012\040-\176' |
        awk '/Requested Extensions:/ { on = 1; next } /Signature Algorithm:/ { on = 0 }
            on { sub(/^ +/, ""); line = line (line == "" ? "" : " ") $0 } END { print substr(line, 1, 300) }')
    printf '%s\n' "${described:-no name at all}"
}

main "$@"
