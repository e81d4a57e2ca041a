# Lines "COMPONENT NODE VERSION", VERSION - where it could not be read and then the reason: print a line for each component
# that https://kubernetes.io/releases/version-skew-policy/ does not support next to the API servers.

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
}

END {
    if (oldest == "") exit
    if (minor[newest] - minor[oldest] > 1)
        print named(newest) " and " named(oldest) ": API servers may differ by one minor version"
    for (i = 1; i <= NR; i++) {
        if (version[i] == "-" || component[i] == "kube-apiserver") continue
        behind = component[i] !~ /^kube(let|-proxy)$/ ? 1 : minor[newest] < 28 ? 2 : 3
        if (minor[i] > minor[oldest]) print named(i) " is newer than " named(oldest)
        if (minor[newest] - minor[i] > behind)
            print named(i) " is more than " behind " minor version" (behind > 1 ? "s" : "") " older than " named(newest)
    }
}

function named(i) { return component[i] " on " node[i] " (" version[i] ")" }
