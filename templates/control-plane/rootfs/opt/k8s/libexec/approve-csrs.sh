#!/bin/sh
# Approve certificate requests of planned kubelets: their first client certificate, and certificates for serving.
#
# Usage: approve-csrs.sh [--once]
#
# Serving: /etc/kubernetes/nodes.tsv has the name and the address of each planned worker. A request is approved if
# system:node:NAME of the group system:nodes requests, with its own name, a certificate for exactly that name and
# address.
#
# Joining: /etc/kubernetes/tokens.tsv has the bootstrap token of each planned worker. A request is approved if a node's
# own token requests exactly a kubelet's client certificate for that node, and no token of this generation or a later
# one is spent (spent-tokens.sh). Once the node has joined, its token is deleted.
#
# Any other request stays pending, so that a person can check it. Each decision is printed once on stdout. Renewals of
# client certificates are approved by the controller manager.
#
# DESTDIR    prepended to the paths of installed files
# INTERVAL   seconds between two checks (default 5)
# shellcheck disable=SC2034 # the parts share the variables
set -u
LC_ALL=C
PATH=$PATH:/opt/k8s/bin
export LC_ALL PATH
# shellcheck source=/dev/null # of the installed bundle
. "${DESTDIR:-}/opt/k8s/bundle/lib/core/environment.sh" || exit 1
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
nodes=${DESTDIR:-}/etc/kubernetes/nodes.tsv
tokens=${DESTDIR:-}/etc/kubernetes/tokens.tsv
kubeconfig=${DESTDIR:-}/etc/kubernetes/csr-approver.kubeconfig
kept=${DESTDIR:-}/var/lib/kube-csr-approver # a copy of the record
reported=' '                                # names of pending requests whose decision was printed
last_problem=''                             # of listing the requests, and of reading the record
tab=$(printf '\t')
# shellcheck source=/dev/null
. "$here/spent-tokens.sh" || exit 1
# shellcheck source=/dev/null
. "$here/approve-csrs-join.sh" || exit 1

main() {
    case "${1:-}" in
        '') ;;
        --once)
            check_requests
            exit
            ;;
        *)
            say "usage: approve-csrs.sh [--once]" >&2
            exit 2
            ;;
    esac
    trap 'exit 0' INT TERM
    say "approving requests of the nodes in $nodes"
    while :; do
        check_requests
        # A signal ends `wait` at once, but not a sleep in the foreground.
        sleep "${INTERVAL:-5}" &
        wait $!
    done
}

# Requesters choose what is printed, and echo would interpret backslashes.
say() { printf '%s\n' "$*"; }

kube() { kubectl --kubeconfig "$kubeconfig" --request-timeout=15s "$@"; }

check_requests() {
    if ! pending=$(kube get certificatesigningrequests -o "go-template-file=$here/approve-csrs.gotemplate" 2>&1); then
        report_problem "cannot list the requests: $(last_line "$pending")"
        return 1
    fi
    still_pending=' ' joins=''
    while IFS=$tab read -r name signer user groups usages request; do
        if is_safe_name "$name"; then
            name=${name#\"} name=${name%\"}
            "decide_$(kind_of "$signer" "$usages")"
        fi
    done <<LIST
$pending
LIST
    approve_joins
    reported=$still_pending
    delete_spent_tokens
}

# report_problem TEXT: print it, unless it was the last one.
report_problem() {
    [ "$1" = "$last_problem" ] || say "$1"
    last_problem=$1
}

# Names with other characters are refused: kubelets' requests have none of them.
is_safe_name() {
    case $1 in '' | '""' | '"'[!A-Za-z0-9]* | '"'*[!A-Za-z0-9._-]*'"') ;; *) return 0 ;; esac
    [ -z "$1" ] || refuse "$(printf '%s' "$1" | tr -c 'A-Za-z0-9._-' _)" "its name has other characters than those"
    return 1
}

# kind_of SIGNER USAGES. Before Kubernetes 1.18 requests have no signer; the usages decide.
kind_of() {
    case $1 in
        '"kubernetes.io/kubelet-serving"') echo serving ;;
        '"kubernetes.io/kube-apiserver-client-kubelet"') echo client ;;
        -) case $2 in *'"server auth"'*) echo serving ;; *'"client auth"'*) echo client ;; *) echo other ;; esac ;;
        *) echo other ;;
    esac
}

decide_other() { :; }

# Approve or refuse the request in the variables of check_requests; print the decision if it is new.
decide_serving() {
    if reason=$(find_fault "$user" "$groups" "$usages" "$request"); then
        refuse "$name" "$reason"
    else
        approve "$name" "node $(node_of "$user"), address $(planned_address "$(node_of "$user")")"
    fi
}

# approve NAME DESCRIPTION
approve() {
    if answer=$(kube certificate approve "$1" 2>&1); then
        say "approved $1: $2"
    else
        refuse "$1" "$(last_line "$answer")" 'could not approve'
    fi
}

# refuse NAME REASON [DECISION]
refuse() {
    case $reported$still_pending in *" $1 "*) ;; *) say "${3:-refused} $1: $2" ;; esac
    still_pending="$still_pending$1 "
}

# find_fault USER GROUPS USAGES REQUEST (as the go-template prints them): print why the request must not be
# approved and return 0, or return 1 if it may be approved. All functions find_* work like this.
find_fault() (
    node=$(node_of "$1")
    case $node in '' | *[!a-z0-9.-]*)
        say "the requester $1 is not a node"
        exit 0
        ;;
    esac
    address=$(planned_address "$node")
    if [ -z "$address" ]; then
        say "the node $node is not in $nodes"
        exit 0
    fi
    case $2 in *'"system:nodes"'*) ;; *)
        say "$1 is not in the group system:nodes"
        exit 0
        ;;
    esac
    find_usage_fault "$3" 'server auth' && exit 0
    find_request_fault "$node" "$4" && exit 0
    find_names_fault "$node" "$address" "$4" && exit 0
    exit 1
)

# NAME of "system:node:NAME" (with the quotes); nothing for other users.
node_of() {
    quoted=$1
    case $quoted in '"system:node:'*'"') ;; *) return 0 ;; esac
    quoted=${quoted#\"system:node:}
    say "${quoted%\"}"
}

# With the empty string awk compares text: as numbers, 10 and 1e1 are the same node.
planned_address() {
    NODE_NAME=$1 awk -F'\t' '$1 "" == ENVIRON["NODE_NAME"] "" { print $2; exit }' "$nodes"
}

# find_usage_fault USAGES PURPOSE. Key encipherment is requested for RSA keys only, and not by newer kubelets.
find_usage_fault() {
    rest=$1
    for usage in "$2" 'digital signature' 'key encipherment'; do
        case $rest in
            *"\"$usage\""*) rest="${rest%%\""$usage"\"*}${rest#*\""$usage"\"}" ;;
            *)
                [ "$usage" = 'key encipherment' ] || {
                    say "the usage $usage is missing: $1"
                    return 0
                }
                ;;
        esac
    done
    [ "$rest" != '[]' ] || return 1
    say "usages other than $2, digital signature, key encipherment: $1"
}

# find_request_fault NODE REQUEST: the PKCS#10 request is one block, is signed with its own key, and has the subject of
# a kubelet.
find_request_fault() {
    pem=$(decode "$2") || {
        say "the request is not base64"
        return 0
    }
    if ! is_one_pem_block "$pem"; then
        say "the request is not exactly one PEM block"
        return 0
    fi
    # openssl before 1.1 exits with 0 for a wrong signature too, so its message decides.
    if ! say "$pem" | openssl req -verify -noout 2>&1 | grep -qi 'verify ok'; then
        say "the request is not signed with its own key"
        return 0
    fi
    subject=$(say "$pem" | openssl req -noout -subject -nameopt RFC2253 2>/dev/null | sed 's/^subject= *//')
    case $subject in
        "CN=system:node:$1,O=system:nodes" | "O=system:nodes,CN=system:node:$1") return 1 ;;
    esac
    say "its subject is $subject, expected CN=system:node:$1,O=system:nodes"
}

# find_names_fault NODE ADDRESS REQUEST
find_names_fault() {
    attributes=$(print_attributes "$3") dns=$(der_dns "$1") ip=$(der_address "$2")
    for names in "$dns$ip" "$ip$dns" "$dns" "$ip"; do
        [ "$attributes" != "$(der_attributes "$names")" ] || return 1
    done
    say "it requests $(describe_names "$3"), allowed are only DNS:$1, IP Address:$2"
}

decode() { printf '%s' "$1" | base64 -d 2>/dev/null; }

# openssl and the API server might read text around the block differently, so there must be none.
is_one_pem_block() {
    say "$1" | awk '
        NR == 1 { good = ($0 == "-----BEGIN CERTIFICATE REQUEST-----"); next }
        ended { good = 0 }
        $0 == "-----END CERTIFICATE REQUEST-----" { ended = 1; next }
        !/^[A-Za-z0-9+\/]+=*$/ { good = 0 }
        END { exit !(good && ended) }'
}

# print_attributes REQUEST: its attributes as hexadecimal DER: all that it requests in addition to subject and key. They
# are the first [0] at depth 2, after subject and key, which cannot contain a [0] at that depth.
print_attributes() {
    place=$(decode "$1" | openssl asn1parse 2>/dev/null |
        sed -n 's/^ *\([0-9]*\):d=2 *hl=\([0-9]*\) *l= *\([0-9]*\) *cons: *cont \[ 0 \].*/\1 \2 \3/p' | sed -n 1p)
    [ -n "$place" ] || return 0
    # shellcheck disable=SC2086 # three numbers
    set -- "$1" $place
    decode "$1" | sed '1d;/^-----END/d' | base64 -d | tail -c +$(($2 + 1)) | head -c $(($3 + $4)) | to_hex
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
    names=$(decode "$1" | openssl req -noout -text 2>/dev/null | tr -cd '\012\040-\176' | awk '
        /Requested Extensions:/ { on = 1; next }
        /Signature Algorithm:/ { on = 0 }
        on { sub(/^ +/, ""); line = line (line == "" ? "" : " ") $0 }
        END { print substr(line, 1, 300) }')
    say "${names:-no name}"
}

main "$@"
