# Two node-labels.tsv, the installed one (or /dev/null) and the bundle's → "KIND|NODE: KEY=VALUE is set" and "KIND|NODE:
# KEY is removed", for each mark that is planned differently. Values of annotations may be long, and are left out.
BEGIN { FS = "\t" }
/^#/ || $2 == "node" || NF < 5 { next }
FILENAME == ARGV[1] { before[$1, $2, $3] = $4; order[++n] = $1 SUBSEP $2 SUBSEP $3; next }
{
    after[$1, $2, $3] = 1
    if (!(($1, $2, $3) in before) || before[$1, $2, $3] != $4) print $2 "|" $1 ": " describe($2, $3, $4) " is set"
}
END {
    for (i = 1; i <= n; i++) {
        if (order[i] in after) continue
        split(order[i], part, SUBSEP)
        print part[2] "|" part[1] ": " part[3] " is removed"
    }
}

function describe(kind, key, value,    pair) {
    if (kind == "annotation" || value == "-") return key
    if (kind == "label") return key "=" value
    split(key, pair, ":")
    return pair[1] "=" value ":" pair[2]
}
