# Lines "COMPONENT NODE VERSION", VERSION - where it could not be read and then the reason: print a line for each
# component that https://kubernetes.io/releases/version-skew-policy/ does not support next to the API servers that it
# uses: a controller manager and a scheduler use that of their own host, kubelets and kube-proxies use all.

{ component[NR] = $1; node[NR] = $2; version[NR] = $3 }

$3 == "-" {
    reason = $0
    sub(/^[^ ]+ [^ ]+ - */, "", reason)
    print $1 " on " $2 ": its version cannot be read: " reason
    next
}

{ split($3, part, "."); minor[NR] = part[2] + 0 }

$1 == "kube-apiserver" {
    if (oldest == "" || minor[NR] < minor[oldest]) oldest = NR
    if (newest == "" || minor[NR] > minor[newest]) newest = NR
    own[$2] = NR
}

END {
    if (oldest == "") exit
    if (minor[newest] - minor[oldest] > 1)
        print named(newest) " and " named(oldest) ": API servers may differ by one minor version"
    for (i = 1; i <= NR; i++) {
        if (version[i] == "-" || component[i] == "kube-apiserver") continue
        is_of_worker = component[i] ~ /^kube(let|-proxy)$/
        if (!is_of_worker && !(node[i] in own)) continue # the version of its API server cannot be read, which is said
        low = is_of_worker ? oldest : own[node[i]]
        high = is_of_worker ? newest : low
        behind = !is_of_worker ? 1 : minor[high] < 28 ? 2 : 3
        if (minor[i] > minor[low]) print named(i) " is newer than " named(low)
        if (minor[high] - minor[i] > behind)
            print named(i) " is more than " behind " minor version" (behind > 1 ? "s" : "") " older than " named(high)
    }
}

function named(i) { return component[i] " on " node[i] " (" version[i] ")" }
