# Check of versions: of every component that runs, next to the API servers.
# needs: api_port here work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_version_skew() {
    expect "every component has a version that Kubernetes supports next to every API server"
    list_versions >"$work/versions"
    conclude "$(awk -f "$here/lib/verify/version-skew.awk" "$work/versions")" \
        "$(awk '{ print $3 }' "$work/versions" | sort -u | tr '\n' ' ')on $(count_lines <"$work/versions") components"
}

# "COMPONENT NODE VERSION", or "COMPONENT NODE - REASON". kube-proxy's version is what it says itself, in its pod's
# probe: a Node has that of its kubelet.
list_versions() {
    for pair in $(node_pairs control-plane); do
        print_version kube-apiserver "$pair" "$api_port" /version
    done
    for pair in $(manager_pairs); do
        print_version kube-controller-manager "$pair" 10257 /metrics
        print_version kube-scheduler "$pair" 10259 /metrics
    done
    for pair in $(node_pairs worker); do
        print_version kubelet "$pair" 10250 /metrics
        has_feature kube-proxy || continue
        proxy=$(sed -n 's/^version kube-proxy v*//p' "$work/probe.${pair%|*}" 2>/dev/null)
        printf 'kube-proxy %s %s\n' "${pair%|*}" "${proxy:-- its pod did not report it}"
    done
}

# print_version COMPONENT NAME|ADDRESS PORT PATH. Metrics have kubernetes_build_info, with gitVersion before 1.17.
print_version() {
    as_admin "${2#*|}" "$3" "$4" >"$work/version.answer"
    running=$(sed -n 's/.*git_*[vV]ersion"*[=:] *"v\([0-9.]*\).*/\1/p' "$work/version.answer" | sed -n 1p)
    printf '%s %s %s\n' "$1" "${2%|*}" "${running:-- $(describe_answer "$(sed 2q "$work/version.answer")")}"
}
