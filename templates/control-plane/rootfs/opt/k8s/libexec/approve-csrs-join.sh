# Requests of nodes that join, for approve-csrs.sh.
# needs: groups here kept name request reported still_pending tab tokens usages user, and its functions
# sets: joins
# shellcheck shell=sh disable=SC2034,SC2046,SC2154 # the scripts share their variables; lists of words

deleted=' ' # ids of tokens that this process has deleted
checks=0
CHECKS_BETWEEN=60
MOST=50 # requests and tokens in one check: so many fit into the arguments of one program

# Add the request in the variables of check_requests to joins (NAME NODE GENERATION KEY, a line each), or refuse it. A
# node with a certificate renews it by itself; the controller manager approves that.
decide_client() {
    case $user in '"system:node:'*) return 0 ;; esac
    [ "$(say "$joins" | grep -c .)" -lt "$MOST" ] || return 1
    if reason=$(find_join_fault "$user" "$groups" "$usages" "$request"); then
        refuse "$name" "$reason"
    else
        joins="$joins$name $(planned_token "$user" | cut -d ' ' -f 1,2) $(digest_of_key "$request")
"
    fi
}

find_join_fault() (
    set -- "$@" $(planned_token "$1")
    if [ $# -ne 7 ]; then
        say "the requester $1 has no token of a planned node in $tokens"
        exit 0
    fi
    case $2 in *"\"$7\""*) ;; *)
        say "$1 is not in the group $7"
        exit 0
        ;;
    esac
    find_usage_fault "$3" 'client auth' && exit 0
    find_request_fault "$5" "$4" && exit 0
    [ "$(print_attributes "$4")" != a000 ] || exit 1
    say "it requests $(describe_names "$4"), allowed is nothing but a subject and a key"
)

# "NODE GENERATION GROUP" of "system:bootstrap:ID" (with the quotes); nothing for other users.
planned_token() {
    TOKEN_USER=$1 awk -F "$tab" '
        /^#/ || $3 == "-" { next }
        "\"system:bootstrap:" $3 "\"" == ENVIRON["TOKEN_USER"] { print $1, $2, $5; exit }' "$tokens"
}

digest_of_key() { decode "$1" | openssl req -noout -pubkey 2>/dev/null | sha256sum | cut -c1-64; }

# The record says that a token is spent before its request is approved. A kill in between is no harm: the same key may
# be approved again.
approve_joins() {
    [ -n "$joins" ] || return 0
    if ! read_kept_record || ! read_heartbeats; then
        refuse_joins "$problem"
        return 0
    fi
    values='' approved='' taken=' '
    while read -r name node generation key; do
        if [ -z "$name" ]; then continue; fi
        if reason=$(find_spent_fault); then
            refuse "$name" "$reason"
            continue
        fi
        taken="$taken$node " approved="$approved$name $node
"
        is_same_request || values="$values${values:+, }\"$node\": \"$(print_use)\""
    done <<JOINS
$joins
JOINS
    joins=$approved
    if [ -n "$values" ] && ! write_record "$values"; then
        refuse_joins "$problem"
        return 0
    fi
    while read -r name node; do
        [ -z "$name" ] || approve "$name" "node $node joins"
    done <<APPROVED
$approved
APPROVED
}

# read_record, with what this control plane knows from before: a snapshot that was restored has an older ConfigMap, with
# the same UID. The file has the UID, then the record.
read_kept_record() {
    read_record || return 1
    # without StateDirectory= (systemd before 235) nothing has made it
    [ -d "$kept" ] || mkdir -m 0700 "$kept" 2>/dev/null || return 0
    if [ "$(sed 1q "$kept/spent-tokens" 2>/dev/null)" = "$record_uid" ]; then
        values=$(printf '%s\n' "$record" | awk -f "$here/lost-values.awk" - "$kept/spent-tokens")
        [ -z "$values" ] || { say "the record is older than this control plane's: correcting it" &&
            write_record "$values" && read_record; } || return 1
    fi
    copy="$record_uid
$record"
    [ "$copy" = "$(cat "$kept/spent-tokens" 2>/dev/null)" ] ||
        { say "$copy" >"$kept/new" && mv -f "$kept/new" "$kept/spent-tokens"; } ||
        say "cannot keep a copy of the record in $kept"
}

refuse_joins() {
    while read -r name _; do
        [ -z "$name" ] || refuse "$name" "$1" 'could not approve'
    done <<JOINS
$joins
JOINS
}

# Sets heartbeats: the Nodes of joins that exist and have joined.
read_heartbeats() {
    heartbeats=$(print_joined $(printf '%s' "$joins" | cut -d ' ' -f 2 | sort -u) 2>&1) && return 0
    problem="cannot read the Nodes: $(last_line "$heartbeats")"
    return 1
}

# The value for the record. A Node that has not joined has no heartbeat.
print_use() { say "$generation request $name $key $(find_heartbeat || echo -)"; }

# Print the heartbeat of $node; returns 1 if it has not joined.
find_heartbeat() {
    say "$heartbeats" | NODE_NAME=$node awk '
        $1 "" == ENVIRON["NODE_NAME"] "" { found = 1; print $2 == "" ? "-" : $2 }
        END { exit !found }'
}

# Of the request in the variables of approve_joins; sets spent, why, user and used_key.
find_spent_fault() {
    case $taken in *" $node "*)
        say "another request with the token of $node came first"
        return 0
        ;;
    esac
    read_entry
    fix="for a host that is installed again: bundler tokens renew $node"
    if [ -z "$spent" ]; then
        find_heartbeat >/dev/null || return 1
        say "the node $node has joined already; $fix"
        return 0
    fi
    [ "$spent" -ge "$generation" ] || return 1
    ! is_same_request || return 1
    case $why in
        joined) say "the node $node has joined already; $fix" ;;
        request) say "the token of $node was used by the request $used_by, or revoked; $fix" ;;
        *) say "the token of $node (generation $generation) is $why; $fix" ;;
    esac
}

read_entry() {
    set -- $(print_entry "$node") '' '' '' ''
    spent=$1 why=$2 used_by=$3 used_key=$4
}

is_same_request() {
    read_entry
    [ "$spent $why $used_key" = "$generation request $key" ]
}

# Delete the tokens of nodes that have joined. Every CHECKS_BETWEEN checks the record gets nodes that joined without
# it, as after a snapshot was restored.
delete_spent_tokens() {
    left=$(list_undeleted $(awk '!/^#/ && $3 != "-" { print $3 }' "$tokens"))
    [ -n "$left" ] || return 0
    if ! read_kept_record || { [ $((checks % CHECKS_BETWEEN)) -eq 0 ] && ! add_joined_nodes; } || ! find_finished; then
        report_problem "$problem"
        return 1
    fi
    checks=$((checks + 1))
    ids=$(list_undeleted $(say "$finished" | cut -d ' ' -f 2) | sed "${MOST}q")
    if [ -z "$ids" ]; then
        last_problem=''
    elif answer=$(kube -n kube-system delete secret --ignore-not-found $(say "$ids" | sed 's/^/bootstrap-token-/') \
        2>&1); then
        deleted="$deleted$(say "$ids" | tr '\n' ' ')" last_problem=''
        [ -z "$answer" ] || say "$answer"
    else
        report_problem "cannot delete tokens of nodes that have joined: $(last_line "$answer")"
    fi
}

# list_undeleted ID...: those that this process has not deleted, a line each.
list_undeleted() {
    for id; do
        case $deleted in *" $id "*) ;; *) say "$id" ;; esac
    done
}
