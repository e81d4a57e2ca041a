# The Lease of site-addons.sh, and which host's add-ons count.
# needs: claimed here node plan renewer work
# sets: announced holder lease_version renewer
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# Sets holder, announced, lease_version. When the Lease was seen to change is by this host's clock.
read_lease() {
    answer=$(kube -n kube-system get lease bundler-addons \
        -o "go-template-file=$here/site-addons-lease.gotemplate" 2>&1) || {
        report "cannot read the Lease bundler-addons: $(last_line "$answer")"
        return 1
    }
    holder=$(printf '%s\n' "$answer" | sed -n 's/^holder //p')
    announced=$(printf '%s\n' "$answer" | sed -n 's/^plan //p')
    lease_version=$(printf '%s\n' "$answer" | sed -n 's/^version //p')
    [ "$(sed -n 1p "$work/seen" 2>/dev/null)" = "$lease_version" ] ||
        printf '%s\n%s\n' "$lease_version" "$(date +%s)" >"$work/seen"
}

# claim_plan: installed add-ons are announced once. Returns 2 if others were announced since, 1 for a fault.
claim_plan() {
    if [ "$announced" != "$plan" ]; then
        if [ -n "$announced" ] && [ "$(cat "$claimed" 2>/dev/null)" = "$plan" ]; then
            report "another control plane has later add-ons: nothing to do here until this host is installed too"
            return 2
        fi
        patch_lease "\"bundler/addons\":\"$plan\"" '' || return 1
        echo "this host's add-ons count from now on"
    fi
    [ "$(cat "$claimed" 2>/dev/null)" = "$plan" ] ||
        { printf '%s\n' "$plan" >"$claimed.new" && sync && mv -f "$claimed.new" "$claimed"; }
}

# patch_lease ANNOTATIONS SPEC: members of these objects. If the Lease has changed since it was read, it is refused.
patch_lease() {
    patch="{\"metadata\":{\"resourceVersion\":\"$lease_version\",\"annotations\":{$1}},\"spec\":{$2}}"
    answer=$(kube -n kube-system patch lease bundler-addons --type=merge -p "$patch" \
        -o 'jsonpath={.metadata.resourceVersion}' 2>&1) || {
        case $answer in
            *'(Conflict)'*) ;; # another host was faster
            *) report "cannot write the Lease bundler-addons: $(last_line "$answer")" ;;
        esac
        return 1
    }
    lease_version=$answer
}

# take_lease: 0 if this host holds it, and a process renews it.
take_lease() {
    if [ "$holder" = "$node" ] && [ -n "$renewer" ]; then return 0; fi
    if [ -n "$holder" ] && [ "$holder" != "$node" ]; then
        since=$(sed -n 2p "$work/seen")
        [ "$(($(date +%s) - since))" -ge "${PATIENCE:-60}" ] || return 1
        echo "taking over from $holder, which has not renewed the Lease for ${PATIENCE:-60} s"
    fi
    spec="\"holderIdentity\":\"$node\",\"leaseDurationSeconds\":${PATIENCE:-60},\"renewTime\":\"$(print_time)\""
    patch_lease '' "$spec" || return 1
    holder=$node
    rm -f "$work/lost"
    renew_lease &
    renewer=$!
}

print_time() { date -u +%Y-%m-%dT%H:%M:%S.000000Z; }

# In the background, until it is killed. It is lost if another host holds it or announced other add-ons.
renew_lease() {
    trap 'exit 0' TERM
    while :; do
        sleep "$((${PATIENCE:-60} / 4 + 1))" >/dev/null 2>&1 &
        wait $!
        kill -0 "$$" 2>/dev/null || exit 0 # the script was killed
        answer=$(kube -n kube-system patch lease bundler-addons --type=json -p "[
            {\"op\":\"test\",\"path\":\"/spec/holderIdentity\",\"value\":\"$node\"},
            {\"op\":\"test\",\"path\":\"/metadata/annotations/bundler~1addons\",\"value\":\"$plan\"},
            {\"op\":\"replace\",\"path\":\"/spec/renewTime\",\"value\":\"$(print_time)\"}]" 2>&1) && continue
        case $answer in *'testing '* | *'the server rejected'* | *'(Invalid)'*) ;; *) continue ;; esac
        : >"$work/lost"
        exit 0
    done
}

# For others to take at once. The record of a Lease that this host no longer holds is not touched.
release_lease() {
    [ -n "$renewer" ] || return 0
    kill "$renewer" 2>/dev/null
    renewer=''
    kube -n kube-system patch lease bundler-addons --type=json -p "[
        {\"op\":\"test\",\"path\":\"/spec/holderIdentity\",\"value\":\"$node\"},
        {\"op\":\"replace\",\"path\":\"/spec/holderIdentity\",\"value\":\"\"}]" >/dev/null 2>&1
    return 0
}
