# Whether this bundle's keys go with those that the API servers have: see keys.sh. A key must be known everywhere before
# anything is signed or written with it, and nothing may need it when it goes.
# needs: here loaded_accepted loaded_reads loaded_reason loaded_signs loaded_since loaded_start loaded_writes prefix
# needs: work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# Print why the keys of this bundle must not be installed yet, if there is a reason. A key that is only added is none.
find_key_obstacle() {
    has_word "$UNITS" kube-apiserver.service || return 1
    print_key_ids "$prefix/etc/kubernetes" >"$work/installed-keys" 2>/dev/null || return 1
    bundle_keys=$here/state.env
    if [ -z "$(text_field "$bundle_keys" TOKENS_ACCEPTED)" ]; then # of an earlier version
        bundle_keys=$work/bundle-keys
        print_key_ids "$here/rootfs/etc/kubernetes" >"$bundle_keys" || return 1
    fi
    signs=$(text_field "$bundle_keys" TOKENS_SIGNED_WITH) accepted=$(text_field "$bundle_keys" TOKENS_ACCEPTED)
    writes=$(text_field "$bundle_keys" SECRETS_WRITTEN_WITH) reads=$(text_field "$bundle_keys" SECRETS_READ_WITH)
    lost_accepted=$(list_lost "$(text_field "$work/installed-keys" TOKENS_ACCEPTED)" "$accepted")
    lost_reads=$(list_lost "$(text_field "$work/installed-keys" SECRETS_READ_WITH)" "$reads")
    [ -n "$lost_accepted$lost_reads" ] ||
        [ "$signs" != "$(text_field "$work/installed-keys" TOKENS_SIGNED_WITH)" ] ||
        [ "$writes" != "$(text_field "$work/installed-keys" SECRETS_WRITTEN_WITH)" ] || return 1
    list_control_planes >"$work/control-planes"
    while read -r name server; do
        if find_key_mismatch "$name" "$server"; then return 0; fi
    done <"$work/control-planes"
    if [ -n "$lost_reads" ] && find_unreadable_secret; then return 0; fi
    [ -n "$lost_accepted" ] && find_unaccepted_token
}

# find_key_mismatch NAME ADDRESS: this host's own API server counts too. One that does not answer and is not in the
# installed node.env may not be installed yet.
find_key_mismatch() {
    previous="install the bundle of the previous stage on $1 first" tokens='service account tokens'
    installed_nodes=$(installed_field NODES)
    if ! read_loaded_keys "$1" "$2"; then
        [ -n "$loaded_start" ] || is_installed_control_plane "$1" || return 1
        echo "$loaded_reason"
    elif ! has_word "$loaded_accepted" "$signs"; then
        echo "the API server of $1 does not accept the key with which this bundle signs $tokens: $previous"
    elif ! has_word "$accepted" "$loaded_signs"; then
        echo "the API server of $1 signs $tokens with a key that this bundle does not accept: $previous"
    elif ! has_word "$loaded_reads" "$writes"; then
        echo "the API server of $1 cannot read the key with which this bundle writes Secrets ($writes): $previous"
    elif ! has_word "$reads" "$loaded_writes"; then
        echo "the API server of $1 writes Secrets with a key that this bundle cannot read ($loaded_writes): $previous"
    else
        return 1
    fi
}

# No API server writes with a lost key any more, so what etcd holds under it is what is left.
find_unreadable_secret() {
    if ! list_secrets_by_key run_etcdctl >"$work/secrets"; then
        echo "etcd does not answer, so it is unknown whether a Secret needs a key that this bundle lacks ($lost_reads)"
        return 0
    fi
    awk -v lost=" $lost_reads" 'index(lost, " " $1 " ") { n++; if (n == 1) first = $2 " under " $1 }
        END { if (n) print "etcd holds " n " Secrets under a key that this bundle does not have (" first "):", \
            "kube-rotation.service writes them again; see journalctl -u kube-rotation"
            exit !n }' "$work/secrets"
}

# A token that the lost key signed would be refused. Those of Secrets do not end; kubelets renew those of pods.
find_unaccepted_token() {
    latest=0 # when the last API server began to sign with the present key
    while read -r name server; do
        read_loaded_keys "$name" "$server" || continue # one that is not installed yet
        [ "${loaded_since%.*}" -le "$latest" ] || latest=${loaded_since%.*}
    done <"$work/control-planes"
    while read -r name server; do
        kcm_start=$(print_manager_start "$name" "$server")
        if [ -z "$kcm_start" ]; then
            is_installed_control_plane "$name" || continue
            echo "the controller manager of $name does not answer, so it is unknown which tokens it holds"
            return 0
        elif [ "${kcm_start%.*}" -lt "$latest" ]; then
            echo "the controller manager of $name may hold tokens of the former key:" \
                "kube-rotation.service restarts it; see journalctl -u kube-rotation there"
            return 0
        fi
    done <"$work/control-planes"
    find_unaccepted_legacy_token || find_unrenewed_pod_token
}

find_unaccepted_legacy_token() {
    if ! list_tokens_of "$prefix/etc/kubernetes/pki/sa.pub" "$lost_accepted" >"$work/lost-tokens"; then
        echo "the API server of this host does not list Secrets of service accounts: $(tail -n 1 "$work/tokens.log")"
        return 0
    fi
    [ -s "$work/lost-tokens" ] || return 1
    echo "$(count_lines <"$work/lost-tokens") Secrets hold a token of a key that this bundle does not accept" \
        "($(sed -n '1s| |/|p' "$work/lost-tokens")): run /opt/k8s/libexec/renew-service-accounts.sh on a control plane"
}

# Kubelets renew the tokens of pods when 80 % of their time is over, and after a day at the latest.
find_unrenewed_pod_token() {
    template=$here/lib/coordination/pod-tokens.gotemplate
    if ! kube_at "$ADDRESS" "$API_PORT" get pods --all-namespaces -o "go-template-file=$template" \
        >"$work/pod-tokens" 2>"$work/tokens.log"; then
        echo "the API server of this host does not list pods: $(tail -n 1 "$work/tokens.log")"
        return 0
    fi
    awk -v now="$(now)" -v since="$latest" -v time="$(date -u -d "@$latest" +%Y-%m-%dT%H:%M:%SZ)" \
        -f "$here/lib/coordination/pod-tokens.awk" "$work/pod-tokens"
}
