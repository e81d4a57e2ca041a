# /proc/self/mountinfo: for each mount at or below a path print what it is and where, with \040 for a space as in the
# table: "at POINT", "made POINT" (by the kubelet or the container runtime), or "other POINT"; the newest first.
# Environment: BELOW, the path without links; MADE, paths below which the kubelet mounts volumes.

BEGIN {
    below = ENVIRON["BELOW"]
    made = split(ENVIRON["MADE"], path, " ")
    # disks have other types
    of_containers = "^ (overlay|aufs|(fuse[.])?fuse-overlayfs|tmpfs|nsfs|proc|sysfs|mqueue|devpts|cgroup2?) $"
}

{
    point[$1] = decode($5)
    root[$1] = decode($4)
    device[$1] = $3
    if (point[$1] != below && index(point[$1], below "/") != 1) next
    for (i = 7; i <= NF && $i != "-"; i++) continue
    found[++n] = $1
    parent[$1] = $2
    type[$1] = $(i + 1)
    written[$1] = $5
}

END { for (i = n; i > 0; i--) print kind(found[i]), written[found[i]] }

function kind(id, k) {
    if (is_own_directory(id)) return "made"
    if (point[id] == below) return "at"
    for (k = 1; k <= made; k++) if (index(point[id], path[k] "/") == 1) return "made"
    return (" " type[id] " ") ~ of_containers ? "made" : "other"
}

# dockerd mounts a directory of its own over itself: the same place of the same disk.
function is_own_directory(id, above, place) {
    above = parent[id]
    if (!(above in point) || device[above] != device[id]) return 0
    place = point[above] == "/" ? point[id] : substr(point[id], length(point[above]) + 1)
    return (root[above] == "/" ? "" : root[above]) place == root[id]
}

# \040 is a space, \011 a tab, \012 the end of a line, \134 a backslash.
function decode(text, plain) {
    while (match(text, /\\[0-7][0-7][0-7]/)) {
        plain = plain substr(text, 1, RSTART - 1) sprintf("%c", substr(text, RSTART + 1, 1) * 64 + \
            substr(text, RSTART + 2, 1) * 8 + substr(text, RSTART + 3, 1))
        text = substr(text, RSTART + 4)
    }
    return plain text
}
