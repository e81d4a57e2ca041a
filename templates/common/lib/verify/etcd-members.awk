# Compare the members of etcd with the planned ones, and print a line for each problem.
# First file: `etcdctl endpoint health`; second file: `etcdctl member list`. Environment: ENDPOINTS, the
# client URLs of the planned members.

BEGIN { planned = split(ENVIRON["ENDPOINTS"], endpoint, " ") }

FILENAME == ARGV[1] {
    last = $0
    for (i = 1; i <= planned; i++) {
        if (index($0, endpoint[i]) == 0) continue
        if (index($0, endpoint[i] " is healthy") == 1) healthy[i] = 1
        if (health[i] == "") health[i] = $0
    }
    next
}

/^[0-9a-f]+, / { members++ }
/, started, / {
    for (i = 1; i <= planned; i++) if (index($0, endpoint[i])) started[i] = 1
}

END {
    for (i = 1; i <= planned; i++) {
        if (!healthy[i]) print endpoint[i] " is not healthy: " (health[i] == "" ? last : health[i])
        if (!started[i]) print endpoint[i] " is not a started member"
    }
    if (members + 0 != planned) print "etcd has " members + 0 " members, " planned " are planned"
}
