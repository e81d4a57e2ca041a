# The keys of API servers: which ones the API server of each host has loaded, and whether a bundle's keys go with them.
# needs: here prefix work
# sets: loaded_accepted loaded_reads loaded_reason loaded_signs loaded_since loaded_start loaded_writes
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# The key that signs service account tokens and the key that encrypts Secrets in etcd are rotated in stages (bundler
# certs rotate, bundler secrets rotate). An API server shows to nobody which keys it has. So when it has started, its
# host publishes their ids in etcd, as bundler/keys/NODE, with the start time of the process (libexec/loaded-keys.sh):
#
#   START SINCE SIGNS ACCEPTED,... WRITES READS,...      SINCE: the start of the first process that signs with this key
#
# Who wants to know asks the API server for its start time: if that differs, the ids are not those of this process.
# Ids are not secret: a token's key is named in its header, a Secret's in front of its value in etcd (PROVIDER:KEY).

# print_key_ids DIRECTORY: the ids of the keys in the files below it, as in state.env.
print_key_ids() {
    [ -f "$1/pki/sa.pub" ] && [ -f "$1/encryption-config.yaml" ] || return 1
    printf "TOKENS_SIGNED_WITH='%s'\n" "$(openssl pkey -in "$1/pki/sa.key" -pubout 2>/dev/null | print_public_key_ids)"
    printf "TOKENS_ACCEPTED='%s'\n" "$(print_public_key_ids <"$1/pki/sa.pub")"
    encryption_ids=$(awk '
        /^ *(- )?name: / { printf "%s%s:%s", space, provider, $NF; space = " "; next } # with kms without "- "
        /^ *- [a-z0-9]+:/ { provider = $2; sub(/:$/, "", provider) }' "$1/encryption-config.yaml")
    printf "SECRETS_WRITTEN_WITH='%s'\nSECRETS_READ_WITH='%s'\n" "${encryption_ids%% *}" "$encryption_ids"
}

# Public keys in PEM on stdin → their ids in one line. The id is the one that Kubernetes gives the key.
print_public_key_ids() {
    ids=$(awk '/^-----BEGIN/ { body = ""; next } /^-----END/ { print body; next } { body = body $0 }' |
        while read -r body; do
            printf '%s\n' "$body" | base64 -d | openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d '='
        done | tr '\n' ' ')
    printf '%s' "${ids% }"
}

run_etcdctl() {
    etcd_pki=$prefix/etc/kubernetes/pki
    ETCDCTL_API=3 timeout 40 etcdctl --endpoints="$(printf '%s' "$ETCD_ENDPOINTS" | tr ' ' ',')" \
        --dial-timeout=3s --command-timeout=30s --cacert="$etcd_pki/etcd-ca.crt" \
        --cert="$etcd_pki/apiserver-etcd-client.crt" --key="$etcd_pki/apiserver-etcd-client.key" "$@" </dev/null
}

# kube_at ADDRESS PORT WORD...: kubectl at the server there.
kube_at() {
    kube_server=https://$1:$2
    shift 2
    HOME=$work kubectl --kubeconfig "$prefix/etc/kubernetes/admin.kubeconfig" --server "$kube_server" \
        --request-timeout=20s "$@" </dev/null
}

# print_start ADDRESS PORT: when the process that answers there started, in seconds since the epoch.
print_start() {
    kube_at "$1" "$2" get --raw /metrics 2>/dev/null |
        awk '$1 == "process_start_time_seconds" { printf "%.2f\n", $2; exit }'
}

# print_manager_start NAME ADDRESS: when the controller manager of that host started. With a profile only its own host
# can ask it, and kube-rotation.service there publishes the time, as bundler/managers/NODE: it may have started later.
print_manager_start() {
    if [ -z "${MANAGERS_AT:-}" ]; then
        print_start "$2" 10257
    elif [ "$1" = "$NODE" ]; then
        print_start "$MANAGERS_AT" 10257
    else
        run_etcdctl get "bundler/managers/$1" --print-value-only 2>/dev/null
    fi
}

# read_loaded_keys NAME ADDRESS: sets loaded_* to the keys of that API server; else returns 1 with loaded_reason.
read_loaded_keys() {
    loaded_start=''
    loaded_line=$(run_etcdctl get "bundler/keys/$1" --print-value-only 2>/dev/null) || {
        loaded_reason="etcd does not answer, so it is unknown which keys the API server of $1 has"
        return 1
    }
    loaded_start=$(print_start "$2" "$API_PORT")
    if [ -z "$loaded_start" ]; then
        loaded_reason="the API server of $1 does not answer, so it is unknown which keys it has"
    elif [ -z "$loaded_line" ]; then
        loaded_reason="$1 does not publish which keys its API server has:"
        loaded_reason="$loaded_reason install the bundle of the previous stage on $1 first"
    elif [ "${loaded_line%% *}" != "$loaded_start" ]; then
        loaded_reason="the API server of $1 was restarted since its keys were published:"
        loaded_reason="$loaded_reason run /opt/k8s/libexec/loaded-keys.sh publish there"
    else
        # shellcheck disable=SC2086 # words
        set -- $loaded_line
        loaded_since=$2 loaded_signs=$3 loaded_writes=$5
        loaded_accepted=$(printf '%s' "$4" | tr ',' ' ') loaded_reads=$(printf '%s' "$6" | tr ',' ' ')
        return 0
    fi
    return 1
}

# list_control_planes: "NAME ADDRESS" of each planned one.
list_control_planes() {
    for planned in $NODES; do
        case ",${planned##*|}," in *,control-plane,*) ;; *) continue ;; esac
        planned_address=${planned#*|}
        printf '%s %s\n' "${planned%%|*}" "${planned_address%|*}"
    done
}

# list_lost WORDS OTHERS: the words that are not among the others.
list_lost() {
    for each_word in $1; do has_word "$2" "$each_word" || printf '%s ' "$each_word"; done
}

# list_secrets_by_key ETCDCTL...: "PROVIDER:KEY NAMESPACE/NAME" of every Secret in etcd, or "plain NAMESPACE/NAME"; for
# the other resources that are encrypted (encryption.resources) with the resource as a third word.
# Fails if anything cannot be read. In pages, because a Secret may have 1 MiB.
list_secrets_by_key() {
    for encrypted in ${ENCRYPTED_RESOURCES:-secrets}; do list_resource_by_key "$encrypted" "$@" || return 1; done
}

# list_resource_by_key RESOURCE ETCDCTL...
list_resource_by_key() {
    listed_resource=$1 page_start=/registry/$1/
    shift
    while :; do
        "$@" get "$page_start" "/registry/${listed_resource}0" --limit=100 -w json \
            >"$work/secrets.page" 2>/dev/null || return 1
        tr '{' '\n' <"$work/secrets.page" | cut -c1-900 |
            LC_ALL=C awk -v resource="$listed_resource" -f "$here/lib/core/base64.awk" \
                -f "$here/lib/coordination/secret-keys.awk" \
                >"$work/secrets.keys" || return 1
        cat "$work/secrets.keys"
        grep -q '"more":true' "$work/secrets.page" || break
        [ -s "$work/secrets.keys" ] || return 1
        last_key=$(awk 'END { print $2 }' "$work/secrets.keys")
        page_start=/registry/$listed_resource/$last_key! # no key is between it and the next
    done
    rm -f "$work/secrets.page"
}

# list_legacy_tokens: "KEY NAMESPACE NAME" of every Secret with a service account token, which does not end: the id of
# the key that signed it, or - if the token does not name it. $work/tokens has the tokens.
list_legacy_tokens() {
    kube_at "$ADDRESS" "$API_PORT" get secrets --all-namespaces \
        --field-selector type=kubernetes.io/service-account-token \
        -o "go-template-file=$here/lib/coordination/tokens.gotemplate" >"$work/tokens" 2>"$work/tokens.log" || return 1
    LC_ALL=C awk -f "$here/lib/core/base64.awk" -f "$here/lib/coordination/token-keys.awk" "$work/tokens"
}

# list_tokens_of PUBLIC-KEYS IDS: "NAMESPACE NAME" of those that one of these keys signed. A token that does not name
# its key is checked with the keys of the file PUBLIC-KEYS that have these ids.
list_tokens_of() {
    list_legacy_tokens >"$work/tokens.keys" || return 1
    while read -r token_key token_namespace token_name; do
        if [ "$token_key" = - ]; then
            is_signed_by_any "$1" "$2" "$(awk -v namespace="$token_namespace" -v name="$token_name" \
                '$1 == namespace && $2 == name { print $3 }' "$work/tokens")" || continue
        else
            has_word "$2" "$token_key" || continue
        fi
        printf '%s %s\n' "$token_namespace" "$token_name"
    done <"$work/tokens.keys"
    rm -f "$work/tokens"
}

# is_signed_by_any PUBLIC-KEYS IDS TOKEN
is_signed_by_any() {
    printf '%s' "${3%.*}" >"$work/signed"
    print_signature "${3##*.}" raw >"$work/signature.raw"
    print_signature "${3##*.}" der >"$work/signature.der"
    awk -v path="$work/public." '/^-----BEGIN/ { n++ } n { print >(path n) }' "$1"
    for public_key in "$work"/public.*; do
        has_word "$2" "$(print_public_key_ids <"$public_key")" || continue
        for form in raw der; do
            ! openssl dgst -sha256 -verify "$public_key" -signature "$work/signature.$form" "$work/signed" \
                >/dev/null 2>&1 || return 0
        done
    done
    return 1
}

# print_signature TEXT FORM: the bytes of a token's signature. ECDSA's are two numbers; openssl reads them in DER.
print_signature() {
    padded=$1
    while [ $((${#padded} % 4)) -ne 0 ]; do padded=$padded=; done
    printf '%s' "$padded" | tr -- '-_' '+/' | base64 -d 2>/dev/null | od -An -v -tx1 | tr -d ' \n' |
        awk -v form="$2" -f "$here/lib/coordination/signature.awk" | while read -r octal; do printf '%b' "$octal"; done
}
