# Requests to the cluster's registry, for verify.sh and registry-copy.sh.
# needs: pki work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# print_manifest_header: a registry gives an OCI manifest only to clients that ask for its type. The `_` at the end
# keeps the line's end from command substitution.
print_manifest_header() {
    printf 'Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, '
    printf 'application/vnd.docker.distribution.manifest.list.v2+json, '
    printf 'application/vnd.docker.distribution.manifest.v2+json\r\n_'
}

# shellcheck disable=SC2086 # lists of words
check_registry_images() {
    expect "status 200 for $(count_words $REGISTRY_IMAGES) images and 403 for a write, from each of $REGISTRY_HOSTS"
    conclude "$(for host in $REGISTRY_HOSTS; do probe_registry "${host%:*}" "${host##*:}"; done)" \
        "$(count_words $REGISTRY_HOSTS) hosts, $(count_words $REGISTRY_IMAGES) images"
}

# probe_registry ADDRESS PORT: a line for each answer that is not as it should be.
probe_registry() {
    header=$(print_manifest_header)
    for path in '' $REGISTRY_IMAGES; do
        answer=$(https_get_with "${header%_}" "$1" "$2" "/v2/$path" "$pki/ca.crt")
        case $answer in
            200*) ;;
            000*)
                echo "$1:$2: $(describe_answer "$answer")"
                return 0
                ;;
            *) echo "$1:$2/v2/$path: $(describe_answer "$answer")" ;;
        esac
    done
    : >"$work/registry-write"
    answer=$(https_exchange "$work/registry-write" '' "$1" "$2" /v2/bundler-verify/manifests/write "$pki/ca.crt")
    case $answer in 403*) ;; *) echo "$1:$2 does not refuse a write: $(describe_answer "$answer")" ;; esac
}
