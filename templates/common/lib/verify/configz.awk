# Compare the /configz answer of a kubelet with the settings of the bundle, and print a line for each
# difference. Variables: name (of the node), settings (a file: field, tab, value as JSON).
# The kubelet may leave out fields that are zero, false or empty.

{ answer = answer $0 }

END {
    while ((getline line <settings) > 0) {
        split(line, part, "\t")
        key = "\"" part[1] "\":"
        if (index(answer, key part[2])) continue
        at = index(answer, key)
        if (!at && part[2] ~ /^(0|false|""|\[\]|\{\}|"0s")$/) continue
        actual = at ? substr(answer, at + length(key), 40) : "missing"
        print name ": " part[1] " is " actual ", expected " part[2]
    }
}
