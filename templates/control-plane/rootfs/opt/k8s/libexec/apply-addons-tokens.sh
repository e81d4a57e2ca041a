# Bootstrap tokens, for apply-addons.sh.
# needs: here manifest revoked, and the functions of spent-tokens.sh
# sets: nothing
# shellcheck shell=sh disable=SC2154 # the scripts share their variables

# Create the tokens with which nodes may still join; delete those that are revoked, or whose nodes have joined. A
# bundle of an earlier build has the ids of no later tokens, so it deletes none of them; and what a later build has
# revoked is spent, so it creates none of those.
sync_tokens() {
    if ! read_record || ! add_joined_nodes || ! revoke_former_tokens; then
        printf '%s\n' "$problem"
        return 1
    fi
    create_tokens || return 1
    # another control plane may have spent some of them meanwhile
    if ! read_record || ! find_finished; then
        printf '%s\n' "$problem"
        return 1
    fi
    delete_tokens
}

# Control planes with bundles of an earlier build accept no token of a revoked generation from now on.
revoke_former_tokens() {
    values=$(print_token_states | awk '$1 == "raise" { printf "%s\"%s\": \"%s revoked\"", (n++ ? ", " : ""), $2, $3 }')
    [ -z "$values" ] || { write_record "$values" && read_record; }
}

create_tokens() {
    ids=$(print_token_states | awk '$1 == "valid" { printf " %s", $3 }')
    [ -n "$ids" ] || return 0
    output=$(awk -v ids="$ids " -f "$here/choose-tokens.awk" "$manifest" | kube apply --validate=false -f - 2>&1)
    code=$?
    printf '%s\n' "$output" | grep -v ' unchanged$'
    return "$code"
}

delete_tokens() {
    existing=$(kube -n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token -o name 2>&1) || {
        printf '%s\n' "$existing"
        return 1
    }
    names=$({
        sed '/^#/d' "$revoked"
        printf '%s\n' "$finished" | awk 'NF { print "bootstrap-token-" $2 }'
        printf '//\n%s\n' "$existing"
    } | awk '$1 == "//" { list = 1; next } !list { unneeded["secret/" $1] = 1; next } $1 in unneeded')
    [ -n "$names" ] || return 0
    # shellcheck disable=SC2086 # a list of names
    kube -n kube-system delete --ignore-not-found $names
}
