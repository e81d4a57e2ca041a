# Checks of TCP ports, as seen from this node.
# needs: api_port
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_ports_open() {
    expect "every node listens on the ports of its roles"
    conclude "$(
        list_closed_ports etcd 2379 2380
        list_closed_ports control-plane "$api_port" 10257 10259
        list_closed_ports worker 10250
    )" "etcd 2379 2380, control planes $api_port 10257 10259, workers 10250"
}

# list_closed_ports ROLE PORT...: a line for each of these ports that a node with the role does not listen on.
list_closed_ports() {
    role=$1
    shift
    for pair in $(node_pairs "$role"); do
        for port; do
            is_open "${pair#*|}" "$port" || printf '%s does not listen on %s\n' "${pair%|*}" "$port"
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
        ! is_open "$address" "$port" || printf '%s listens on %s\n' "${1%%|*}" "$port"
    done
}

# is_open HOST PORT: does a TCP connection succeed? If a firewall drops it, the port counts as closed.
is_open() {
    printf '' | timeout 4 openssl s_client -connect "$1:$2" 2>&1 | grep -q '^CONNECTED'
}
