#!/bin/sh
# Approve requests for kubelet serving certificates, if they are from a planned worker.
#
# Usage: approve-csrs.sh [--once]
#
# /etc/kubernetes/nodes.tsv has the name and the address of each planned worker, separated by a tab. A
# request is approved if system:node:NAME of the group system:nodes requests, with its own name, a
# certificate for exactly that name and address. Any other request stays pending, so that a person can
# check it. Each decision is printed once on stdout.
#
# DESTDIR    prepended to the paths of installed files
# INTERVAL   seconds between two checks (default 5)
set -u
LC_ALL=C
PATH=$PATH:/opt/k8s/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 1
nodes=${DESTDIR:-}/etc/kubernetes/nodes.tsv
kubeconfig=${DESTDIR:-}/etc/kubernetes/csr-approver.kubeconfig
reported=' '    # names of pending requests whose decision was printed
last_problem='' # of listing the requests
tab=$(printf '\t')

main() {
    case "${1:-}" in
        '') ;;
        --once)
            check_requests
            exit
            ;;
        *)
            echo "usage: approve-csrs.sh [--once]" >&2
            exit 2
            ;;
    esac
    trap 'exit 0' INT TERM
    echo "approving requests for serving certificates of the nodes in $nodes"
    while :; do
        check_requests
        # A signal ends `wait` at once, but not a sleep in the foreground.
        sleep "${INTERVAL:-5}" &
        wait $!
    done
}

kube() { kubectl --kubeconfig "$kubeconfig" --request-timeout=15s "$@"; }

check_requests() {
    if ! pending=$(kube get certificatesigningrequests -o "go-template-file=$here/approve-csrs.gotemplate" 2>&1); then
        pending=$(printf '%s' "$pending" | tail -n 1)
        [ "$pending" = "$last_problem" ] || echo "cannot list the requests: $pending"
        last_problem=$pending
        return 1
    fi
    last_problem=''
    still_pending=' '
    while IFS=$tab read -r name signer user groups usages request; do
        ! is_for_serving "$signer" "$usages" || decide
    done <<LIST
$pending
LIST
    reported=$still_pending
}

# is_for_serving SIGNER USAGES. Before Kubernetes 1.18 requests have no signer; the usages decide.
is_for_serving() {
    case $1 in
        '"kubernetes.io/kubelet-serving"') return 0 ;;
        -) case $2 in *'"server auth"'*) return 0 ;; esac ;;
    esac
    return 1
}

# Approve or refuse the request in the variables of check_requests; print the decision if it is new.
decide() {
    if reason=$(find_fault "$user" "$groups" "$usages" "$request"); then
        decision=refused
    elif answer=$(kube certificate approve "$name" 2>&1); then
        echo "approved $name: node $(node_of "$user"), address $(planned_address "$(node_of "$user")")"
        return
    else
        decision='could not approve' reason=$(printf '%s' "$answer" | tail -n 1)
    fi
    case $reported in *" $name "*) ;; *) echo "$decision $name: $reason" ;; esac
    still_pending="$still_pending$name "
}

# find_fault USER GROUPS USAGES REQUEST (as the go-template prints them): print why the request must not be
# approved and return 0, or return 1 if it may be approved. All functions find_* work like this.
find_fault() (
    node=$(node_of "$1")
    case $node in '' | *[!a-z0-9.-]*)
        echo "the requester $1 is not a node"
        exit 0
        ;;
    esac
    address=$(planned_address "$node")
    if [ -z "$address" ]; then
        echo "the node $node is not in $nodes"
        exit 0
    fi
    case $2 in *'"system:nodes"'*) ;; *)
        echo "$1 is not in the group system:nodes"
        exit 0
        ;;
    esac
    find_usage_fault "$3" && exit 0
    find_request_fault "$node" "$address" "$4" && exit 0
    exit 1
)

# NAME of "system:node:NAME" (with the quotes); nothing for other users.
node_of() {
    quoted=$1
    case $quoted in '"system:node:'*'"') ;; *) return ;; esac
    quoted=${quoted#\"system:node:}
    printf '%s\n' "${quoted%\"}"
}

# With the empty string awk compares text: as numbers, 10 and 1e1 are the same node.
planned_address() {
    NODE_NAME=$1 awk -F'\t' '$1 "" == ENVIRON["NODE_NAME"] "" { print $2; exit }' "$nodes"
}

# Key encipherment is requested for RSA keys only, and not by newer kubelets.
find_usage_fault() {
    rest=$1
    for usage in 'server auth' 'digital signature' 'key encipherment'; do
        case $rest in
            *"\"$usage\""*) rest="${rest%%\""$usage"\"*}${rest#*\""$usage"\"}" ;;
            *)
                [ "$usage" = 'key encipherment' ] || {
                    echo "the usage $usage is missing: $1"
                    return 0
                }
                ;;
        esac
    done
    [ "$rest" != '[]' ] || return 1
    echo "usages other than server auth, digital signature, key encipherment: $1"
}

# find_request_fault NODE ADDRESS REQUEST: the same for the PKCS#10 request.
find_request_fault() {
    pem=$(printf '%s' "$3" | base64 -d 2>/dev/null) || {
        echo "the request is not base64"
        return
    }
    if ! is_one_pem_block "$pem"; then
        echo "the request is not exactly one PEM block"
        return
    fi
    # openssl before 1.1 exits with 0 for a wrong signature too, so its message decides.
    if ! printf '%s\n' "$pem" | openssl req -verify -noout 2>&1 | grep -qi 'verify ok'; then
        echo "the request is not signed with its own key"
        return
    fi
    subject=$(printf '%s\n' "$pem" | openssl req -noout -subject -nameopt RFC2253 2>/dev/null | sed 's/^subject= *//')
    case $subject in
        "CN=system:node:$1,O=system:nodes" | "O=system:nodes,CN=system:node:$1") ;;
        *)
            echo "its subject is $subject, expected CN=system:node:$1,O=system:nodes"
            return
            ;;
    esac
    attributes=$(print_attributes "$pem") dns=$(der_dns "$1") ip=$(der_address "$2")
    for names in "$dns$ip" "$ip$dns" "$dns" "$ip"; do
        [ "$attributes" != "$(der_attributes "$names")" ] || return 1
    done
    echo "it requests $(describe_names "$pem"), allowed are only DNS:$1, IP Address:$2"
}

# openssl and the API server might read text around the block differently, so there must be none.
is_one_pem_block() {
    printf '%s\n' "$1" | awk '
        NR == 1 { good = ($0 == "-----BEGIN CERTIFICATE REQUEST-----"); next }
        ended { good = 0 }
        $0 == "-----END CERTIFICATE REQUEST-----" { ended = 1; next }
        !/^[A-Za-z0-9+\/]+=*$/ { good = 0 }
        END { exit !(good && ended) }'
}

# The request's attributes as hexadecimal DER: all that it requests in addition to subject and key. They are
# the first [0] at depth 2, after subject and key, which cannot contain a [0] at that depth.
print_attributes() {
    place=$(printf '%s\n' "$1" | openssl asn1parse 2>/dev/null |
        sed -n 's/^ *\([0-9]*\):d=2 *hl=\([0-9]*\) *l= *\([0-9]*\) *cons: *cont \[ 0 \].*/\1 \2 \3/p' | sed -n 1p)
    [ -n "$place" ] || return 0
    # shellcheck disable=SC2086 # three numbers
    set -- "$1" $place
    printf '%s\n' "$1" | sed '1d;/^-----END/d' | base64 -d | tail -c +$(($2 + 1)) | head -c $(($3 + $4)) | to_hex
}

# The DER that a kubelet sends: one attribute (extensionRequest) with one extension (subjectAltName).
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

# For the message only: the text may be made to mislead, so no decision uses it.
describe_names() {
    names=$(printf '%s\n' "$1" | openssl req -noout -text 2>/dev/null | tr -cd '\012\040-\176' | awk '
        /Requested Extensions:/ { on = 1; next }
        /Signature Algorithm:/ { on = 0 }
        on { sub(/^ +/, ""); line = line (line == "" ? "" : " ") $0 }
        END { print substr(line, 1, 300) }')
    printf '%s\n' "${names:-no name}"
}

main "$@"
