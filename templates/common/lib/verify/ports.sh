# Checks of TCP ports, as seen from this node.
# needs: api_port
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_ports_open() {
    expect "every node listens on the ports of its roles"
    etcd_ports='2379 2380'
    case " $FEATURES " in *' flannel-etcd '*) etcd_ports="$etcd_ports 2382" ;; esac
    manager_ports=' 10257 10259'
    [ -z "${MANAGERS_AT:-}" ] || manager_ports=''
    # shellcheck disable=SC2086 # a word a port
    conclude "$(
        list_closed_ports etcd $etcd_ports
        list_closed_ports control-plane "$api_port" $manager_ports
        list_closed_ports worker 10250
    )" "etcd $etcd_ports, control planes $api_port$manager_ports, workers 10250"
}

# list_closed_ports ROLE PORT...: a line for each of these ports that a node with the role does not listen on.
list_closed_ports() {
    role=$1
    shift
    for pair in $(node_pairs "$role"); do
        for port; do
            is_open "${pair#*|}" "$port"
            case $? in
                1) printf '%s does not listen on %s\n' "${pair%|*}" "$port" ;;
                2) printf '%s: port %s cannot be checked: %s\n' "${pair%|*}" "$port" "$handshake" ;;
            esac
        done
    done
}

check_ports_closed() {
    expect "no node listens on any of $CLOSED_PORTS, as seen from $NODE"
    # shellcheck disable=SC2046,SC2086 # lists of words
    conclude "$(for_each 8 list_open_ports $NODES)" "$(count_words $NODES) nodes"
}

# list_open_ports NAME|ADDRESS|ROLES: a line for each port that must be closed and is open on that node.
list_open_ports() {
    address=${1#*|} address=${address%%|*}
    for port in $CLOSED_PORTS; do
        is_open "$address" "$port"
        case $? in
            0) printf '%s listens on %s\n' "${1%%|*}" "$port" ;;
            2) printf '%s: port %s cannot be checked: %s\n' "${1%%|*}" "$port" "$handshake" ;;
        esac
    done
}

# is_open HOST PORT: 0 if a TCP connection succeeds, 1 if it is refused or no packet comes back (a firewall that drops
# it counts as closed), 2 if the question itself failed; then `handshake` says why.
is_open() {
    handshake=$(printf '' | timeout 4 openssl s_client -connect "$1:$2" 2>&1)
    handshake_code=$?
    case $handshake in
        *CONNECTED*) return 0 ;;
        *refused* | *'No route to host'* | *unreachable* | *'timed out'*) return 1 ;;
    esac
    case $handshake_code in 124 | 143) return 1 ;; esac
    handshake=$(printf '%s\n' "$handshake" | tail -n 1)
    return 2
}
