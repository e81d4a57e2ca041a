# Compare the nodes of the cluster (output of nodes.gotemplate) with the planned workers, and print a line
# for each problem. Environment: PLANNED, "name|address" of each planned worker.

BEGIN {
    planned = split(ENVIRON["PLANNED"], pair, " ")
    for (i = 1; i <= planned; i++) {
        split(pair[i], part, "|")
        name[i] = part[1]
        address[i] = part[2]
        is_planned[part[1]] = 1
    }
}

NF {
    found[$1] = $0
    if (!($1 in is_planned)) unplanned[++others] = $1
}

END {
    for (i = 1; i <= planned; i++) {
        line = found[name[i]]
        good = name[i] " " address[i] " True "
        if (line == "") print name[i] " is not registered: its kubelet has not joined"
        else if (line == good) continue
        else if (index(line, good) == 1) print name[i] " has " conditions(line, good) ": it gets no pods"
        else if (line ~ / True /) print name[i] " is Ready, but does not have its planned address " address[i]
        else print name[i] " is not Ready"
    }
    for (i = 1; i <= others; i++) print unplanned[i] " is registered, but is not in cluster.yaml"
}

# The conditions behind the part of the line that is as it should be.
function conditions(line, good) {
    line = substr(line, length(good) + 1)
    sub(/,$/, "", line)
    return line
}
