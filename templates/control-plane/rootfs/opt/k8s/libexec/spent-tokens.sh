# Which bootstrap tokens are spent, that is used or revoked. For approve-csrs.sh and apply-addons.sh.
#
# The ConfigMap kube-system/bundler-spent-tokens has a value for each node: the highest generation of its tokens that
# is spent, and why. A generation never goes down.
#
#   1 joined                             the Node existed before there was a value: it joined with bundler 0.1
#   2 revoked                            by bundler tokens renew, or because the node was removed from cluster.yaml
#   3 request NAME KEY HEARTBEAT         NAME is the certificate request that used it, KEY the digest of its public
#                                        key, HEARTBEAT the last one of the Node before (- if there was none)
#
# Each write names the version that was read: of two control planes that write at the same time, one is refused.
# needs: here tokens, and a function kube
# sets: finished problem record record_uid record_version
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# read_record: sets record (lines NODE GENERATION WHY...), record_version and record_uid, or problem.
read_record() {
    record=$(kube -n kube-system get configmap bundler-spent-tokens \
        -o "go-template-file=$here/spent-tokens.gotemplate" 2>&1) || {
        problem="cannot read the ConfigMap bundler-spent-tokens: $(last_line "$record")"
        return 1
    }
    record_version=$(printf '%s\n' "$record" | sed 1q) record_uid=${record_version#* }
    record_version=${record_version%% *}
    record=$(printf '%s\n' "$record" | sed 1d)
    wrong=$(printf '%s\n' "$record" | awk 'NF && $2 !~ /^[0-9]+$/ { print $1; exit }')
    [ -n "$wrong" ] || return 0
    problem="the ConfigMap bundler-spent-tokens has no generation for $wrong: correct that value"
    return 1
}

# write_record MEMBERS: the members of a JSON object; values of other nodes stay. Sets record_version, or problem.
write_record() {
    answer=$(kube -n kube-system patch configmap bundler-spent-tokens --type=merge \
        -p "{\"metadata\": {\"resourceVersion\": \"$record_version\"}, \"data\": {$1}}" \
        -o 'jsonpath={.metadata.resourceVersion}' 2>&1) || {
        problem="cannot write the ConfigMap bundler-spent-tokens: $(last_line "$answer")"
        return 1
    }
    record_version=$answer
}

# print_entry NODE: "GENERATION WHY..."; nothing if no token of the node is spent.
print_entry() {
    printf '%s\n' "$record" | NODE_NAME=$1 awk '$1 "" == ENVIRON["NODE_NAME"] "" { sub(/^[^ ]* /, ""); print }'
}

# The lines of spent-tokens.awk.
print_token_states() {
    printf '%s\n' "$record" | awk -v now="$(date +%s)" -f "$here/spent-tokens.awk" - "$tokens"
}

# print_joined NODE...: "NODE HEARTBEAT" of those that exist and whose kubelet has reported its status. Many are read
# with one request, and the others' lines printed too: kubectl sends few requests a second.
print_joined() {
    [ $# -gt 0 ] || return 0
    [ $# -lt 20 ] || set --
    kube get nodes "$@" --ignore-not-found -o "go-template-file=$here/joined-nodes.gotemplate"
}

# Nodes that joined without a value in the record get one. Returns 1 if that fails, and sets problem.
add_joined_nodes() {
    new=$(print_token_states | awk '$4 == "new" { print $2 }')
    # shellcheck disable=SC2086 # a list of names
    joined=$(print_joined $new 2>&1) || {
        problem="cannot read the Nodes: $(last_line "$joined")"
        return 1
    }
    values=$(printf '%s\n//\n%s\n' "$new" "$joined" | awk '$1 == "//" { list = 1; next }
        !list { if (NF) wanted[$1] = 1; next }
        $1 in wanted { printf "%s\"%s\": \"1 joined\"", (n++ ? ", " : ""), $1 }')
    [ -z "$values" ] || { write_record "$values" && read_record; }
}

# find_finished: sets finished, "NODE ID" of each spent token that no kubelet needs any more: if a request used it, the
# Node has reported its status since. Returns 1 if the API does not answer, and sets problem.
find_finished() {
    spent=$(print_token_states | sed -n 's/^spent //p')
    # shellcheck disable=SC2046 # a list of names
    joined=$(print_joined $(printf '%s\n' "$spent" | awk 'NF && $3 != "any" { print $1 }') 2>&1) || {
        problem="cannot read the Nodes: $(last_line "$joined")"
        return 1
    }
    finished=$(printf '%s\n//\n%s\n' "$joined" "$spent" | awk '$1 == "//" { list = 1; next }
        !list { heartbeat[$1] = $2 == "" ? "-" : $2; next }
        NF && ($3 == "any" || ($1 in heartbeat && heartbeat[$1] != $3)) { print $1, $2 }')
}

last_line() { printf '%s\n' "$1" | tail -n 1; }
