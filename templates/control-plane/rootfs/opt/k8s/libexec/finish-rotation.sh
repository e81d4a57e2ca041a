#!/bin/sh
# Finish what a stage of a key rotation begins, when the API servers of all control planes have its keys.
#
# - bundler certs rotate issue: restart this host's controller manager if it is older than the last API server that
#   began to sign service account tokens with the present key, because it may hold tokens of the former one.
# - bundler secrets rotate write: write every Secret again that etcd does not hold under the key with which API servers
#   write. A Secret is written by a patch that changes nothing: the API server reads the newest version and writes it in
#   one transaction of etcd, so no change of somebody else is lost.
#
# What is left to do is read from the servers and from etcd each time, so it may be killed at any moment, and may run on
# several hosts at once. With nothing to do it changes nothing.
# DESTDIR     prepended to the paths of installed files
# MAX_PAUSE   longest pause between two tries, in seconds (default 30)
# CHUNK       Secrets that one kubectl writes (default 200)
# shellcheck disable=SC2153,SC2154 # node.env and the parts set variables
set -u
umask 077
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
here=$prefix/opt/k8s/bundle
for part in core/environment core/common coordination/keys; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 1
done
pause=2 last_problem=''

main() {
    # shellcheck disable=SC1091 # rendered for each node
    . "$here/node.env" || exit 1
    work=$(mktemp -d) || exit 1
    trap 'rm -rf "$work"' EXIT
    trap 'exit 143' HUP INT TERM
    print_key_ids "$prefix/etc/kubernetes" >"$work/keys" || die 1 "the keys in $prefix/etc/kubernetes cannot be read"
    signs=$(text_field "$work/keys" TOKENS_SIGNED_WITH) accepted=$(text_field "$work/keys" TOKENS_ACCEPTED)
    writes=$(text_field "$work/keys" SECRETS_WRITTEN_WITH)
    until have_all_keys && renew_controller_manager && write_secrets; do wait_for_next_try; done
    say "etcd holds every Secret under $writes"
}

# Print a problem when it changes; sleep longer each time.
wait_for_next_try() {
    [ "$problem" = "$last_problem" ] || say "waiting: $problem"
    last_problem=$problem
    sleep "$pause"
    pause=$((pause + 2))
    [ "$pause" -le "${MAX_PAUSE:-30}" ] || pause=${MAX_PAUSE:-30}
}

# Sets latest: when the last API server began to sign with the present key.
have_all_keys() {
    latest=0
    list_control_planes >"$work/control-planes"
    while read -r name server; do
        if ! read_loaded_keys "$name" "$server"; then
            problem=$loaded_reason
            return 1
        elif [ "$loaded_signs" != "$signs" ]; then
            problem="the API server of $name signs service account tokens with another key than this one"
            return 1
        elif [ "$loaded_writes" != "$writes" ]; then
            problem="the API server of $name writes Secrets with $loaded_writes, this one with $writes"
            return 1
        fi
        [ "${loaded_since%.*}" -le "$latest" ] || latest=${loaded_since%.*}
    done <"$work/control-planes"
}

# With one key there is no token of another one.
renew_controller_manager() {
    [ "$accepted" != "$signs" ] || return 0
    kcm_start=$(print_manager_start "$NODE" "$ADDRESS")
    problem="the controller manager of this host does not answer"
    [ -n "$kcm_start" ] || return 1
    if [ "${kcm_start%.*}" -ge "$latest" ]; then
        publish_manager_start
        return $?
    fi
    say "restarting the controller manager, which may hold tokens of the former key"
    problem="the controller manager of this host cannot be restarted"
    systemctl restart kube-controller-manager.service || return 1
    problem="the controller manager of this host does not answer yet"
    return 1
}

# Other hosts cannot ask a controller manager that listens on loopback.
publish_manager_start() {
    [ -n "${MANAGERS_AT:-}" ] || return 0
    problem="etcd does not store when the controller manager of this host started"
    run_etcdctl put "bundler/managers/$NODE" "$kcm_start" >/dev/null
}

write_secrets() {
    former=-1
    while list_former; do
        [ "$left" -gt 0 ] || return 0
        if [ "$left" -eq "$former" ]; then
            problem="$left Secrets cannot be written: $(tail -n 1 "$work/answers")"
            return 1
        fi
        say "writing $left of $(count_lines <"$work/secrets") Secrets again, under $writes"
        former=$left
        write_chunks
    done
    problem="etcd does not answer"
    return 1
}

# Sets left: how many Secrets etcd holds under another key, or under none.
list_former() {
    list_secrets_by_key run_etcdctl >"$work/secrets" || return 1
    awk -v writes="$writes" '$1 != writes { print $2, $3 }' "$work/secrets" >"$work/former"
    left=$(count_lines <"$work/former")
}

# If a Secret was deleted meanwhile, or cannot be written, the others of its chunk are written all the same.
write_chunks() {
    : >"$work/answers"
    awk -v chunk="${CHUNK:-200}" -v path="$work/chunk." '
        BEGIN { kinds[""] = "Secret"; kinds["configmaps"] = "ConfigMap" }
        { file = path sprintf("%06d", int((NR - 1) / chunk)); split($1, part, "/")
          printf "---\napiVersion: v1\nkind: %s\n", kinds[$2] >file
          printf "metadata: {namespace: \"%s\", name: \"%s\"}\n", part[1], part[2] >file
          if (NR % chunk == 0) close(file) }' "$work/former"
    for chunk_file in "$work"/chunk.*; do
        kube_at "$ADDRESS" "$API_PORT" patch --type=merge --patch '{}' --filename "$chunk_file" \
            >/dev/null 2>>"$work/answers"
        rm -f "$chunk_file"
    done
}

main "$@"
