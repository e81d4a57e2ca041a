# /proc/self/mountinfo: for each mount at or below a path print what it is and where, with \040 for a space as in the
# table: "at POINT", "made POINT" (by the kubelet or the container runtime), or "other POINT".
# Environment: BELOW, the path without links; MADE, paths below which the kubelet mounts volumes.

BEGIN {
    below = ENVIRON["BELOW"]
    made = split(ENVIRON["MADE"], path, " ")
}

{
    point = decode($5)
    if (point != below && index(point, below "/") != 1) next
    for (i = 7; i <= NF && $i != "-"; i++) continue
    print (point == below ? "at" : is_made(point, $(i + 1), decode($4)) ? "made" : "other"), $5
}

# Disks have other types. dockerd mounts a directory of its own over itself: then the end of the mount point is its place
# on the disk.
function is_made(point, type, root) {
    for (i = 1; i <= made; i++) if (index(point, path[i] "/") == 1) return 1
    if (type ~ /^(overlay|aufs|fuse-overlayfs|fuse\.fuse-overlayfs|tmpfs|nsfs|proc|sysfs|mqueue|devpts|cgroup2?)$/) return 1
    return root != "/" && substr(point, length(point) - length(root) + 1) == root
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
