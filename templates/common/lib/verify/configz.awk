# Compare the /configz answer of a kubelet with the settings of the bundle, and print a line for each
# difference. Variables: name (of the node), settings (a file: field, tab, value as JSON), own (a file, perhaps missing:
# node, field and value of nodes with other settings; - is a field that the node does not have).
# The kubelet may leave out fields that are zero, false or empty.

{ answer = answer $0 }

END {
    while ((getline line <own) > 0) {
        split(line, part, "\t")
        if (part[1] == name) mine[part[2]] = part[3]
    }
    while ((getline line <settings) > 0) {
        split(line, part, "\t")
        check(part[1], part[1] in mine ? mine[part[1]] : part[2])
        delete mine[part[1]]
    }
    for (field in mine) check(field, mine[field])
}

function check(field, wanted,   key, at, actual) {
    key = "\"" field "\":"
    if (wanted == "-" || index(answer, key wanted)) return
    at = index(answer, key)
    if (!at && wanted ~ /^(0|false|""|\[\]|\{\}|"0s")$/) return
    actual = at ? substr(answer, at + length(key), 40) : "missing"
    print name ": " field " is " actual ", expected " wanted
}
