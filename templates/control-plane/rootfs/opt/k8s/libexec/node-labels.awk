# Plan (node-labels.tsv), record ("NAME UID KIND|KEY|VALUE..." for each Node) and Nodes (output of
# node-labels.gotemplate): what is to be done for each planned Node that exists, so that it has what is planned, and
# nothing more of what the record says was set before. A line each, fields separated by tabs:
#
#   record   NAME WORDS   the record's new value, JSON. Written before the patches: what is set is always in the record
#   patch    NAME JSON    the change of the Node, refused by the API if the Node has changed since it was read
#   differs  NAME TEXT    the same for people
#   missing  NAME         a planned Node that does not exist
#   count    KIND NUMBER  how many of each kind are planned
#
# What is recorded and no longer planned is removed if it still has the recorded value: otherwise somebody else has set
# it.

BEGIN { FS = "\t"; uninitialized = "bundler/uninitialized" }

FILENAME == ARGV[1] {
    if (/^#/ || NF < 5) next
    if ($2 == "node") { nodes[++planned_nodes] = $1; next }
    id = $1 SUBSEP $2 SUBSEP $3
    rows[$1] = rows[$1] (rows[$1] == "" ? "" : " ") $2 "|" $3 "|" $4
    planned[id] = $4
    json[id] = $5
    total[$2]++
    next
}

FILENAME == ARGV[2] {
    space = index($0, " ")
    record[substr($0, 1, space - 1)] = substr($0, space + 1)
    next
}

{
    if ($2 == "node") { uid[$1] = $3; version[$1] = $4; next }
    if ($2 == "taint") taints[$1, ++n_taints[$1]] = $0
    found[$1, $2, $3] = 1
    value[$1, $2, $3] = $4
}

END {
    for (i = 1; i <= planned_nodes; i++) {
        if (nodes[i] in uid) compare(nodes[i])
        else print "missing\t" nodes[i]
        is_node[nodes[i]] = 1
    }
    for (node in record) if (node !~ /^_/ && !(node in is_node) && !(node in uid)) print "record\t" node "\tnull"
    for (kind in total) print "count\t" kind "\t" total[kind]
}

function compare(node,    n, word, i, part, key, recorded, before, wanted, kept, is_new, changes, texts, has_taints) {
    texts = changes["label"] = changes["annotation"] = ""
    has_taints = is_new = 0

    # what was set before; the record of a Node that was deleted since says nothing about this one
    recorded = split(record[node], before, " ")
    if (before[1] != uid[node]) recorded = 0
    for (i = 2; i <= recorded; i++) is_recorded[node, before[i]] = 1

    n = split(rows[node], word, " ")
    for (i = 1; i <= n; i++) {
        split(word[i], part, "|")
        is_planned[node, word[i]] = 1
        if (!((node, word[i]) in is_recorded)) is_new = 1
        key = node SUBSEP part[1] SUBSEP part[2]
        if ((key in found) && value[key] == part[3]) continue
        texts = texts "\n" name_of(part) ((key in found) ? " has another value" : " is missing")
        if (part[1] == "taint") has_taints = 1
        else change(changes, part[1], part[2], json[key])
    }

    wanted = (n == 0) ? "" : uid[node] " " rows[node]
    kept = (n == 0) ? uid[node] : wanted
    for (i = 2; i <= recorded; i++) {
        if ((node, before[i]) in is_planned) continue
        split(before[i], part, "|")
        key = node SUBSEP part[1] SUBSEP part[2]
        if (!(key in found) || value[key] != part[3]) continue
        kept = kept " " before[i]
        if (key in planned) continue
        texts = texts "\n" name_of(part) " is no longer planned"
        removed[key] = 1
        if (part[1] == "taint") has_taints = 1
        else change(changes, part[1], part[2], "null")
    }
    for (i = 1; i <= n_taints[node]; i++) {
        split(taints[node, i], part, "\t")
        if (part[5] != uninitialized) continue
        removed[node, "taint", part[3]] = 1
        texts = texts "\n" "it has the taint " uninitialized ", with which it registered"
        has_taints = 1
    }

    if (texts == "") {
        if (record[node] != wanted) print "record\t" node "\t" (wanted == "" ? "null" : "\"" wanted "\"")
        return
    }
    if (is_new) print "record\t" node "\t\"" kept "\""
    n = split(substr(texts, 2), word, "\n")
    for (i = 1; i <= n; i++) print "differs\t" node "\t" word[i]
    print "patch\t" node "\t{\"metadata\":{\"resourceVersion\":\"" version[node] "\"" \
        member("labels", changes["label"]) member("annotations", changes["annotation"]) "}" \
        (has_taints ? ",\"spec\":{\"taints\":[" list_taints(node) "]}" : "") "}"
}

function change(changes, kind, key, text) {
    changes[kind] = changes[kind] (changes[kind] == "" ? "" : ",") "\"" key "\":" text
}

function member(field, members) { return members == "" ? "" : ",\"" field "\":{" members "}" }

# Values of annotations may be long.
function name_of(part) {
    if (part[1] == "annotation" || part[3] == "-") return "the " part[1] " " part[2]
    if (part[1] == "label") return "the label " part[2] "=" part[3]
    split(part[2], pair, ":")
    return "the taint " pair[1] "=" part[3] ":" pair[2]
}

# All taints of the Node afterwards: those of others, and planned ones that are there already, as they are.
function list_taints(node,    i, part, n, word, pair, text, is_listed) {
    text = ""
    for (i = 1; i <= n_taints[node]; i++) {
        split(taints[node, i], part, "\t")
        if ((node, "taint", part[3]) in removed) continue
        if (((node, "taint", part[3]) in planned) && planned[node, "taint", part[3]] != part[4]) continue
        is_listed[part[3]] = 1
        text = text "," taint(part[5], part[4], part[6], part[7])
    }
    n = split(rows[node], word, " ")
    for (i = 1; i <= n; i++) {
        split(word[i], part, "|")
        if (part[1] != "taint" || (part[2] in is_listed)) continue
        split(part[2], pair, ":")
        text = text "," taint(pair[1], part[3], pair[2], "-")
    }
    return substr(text, 2)
}

function taint(key, text, effect, time) {
    return "{\"key\":\"" key "\"" (text == "-" ? "" : ",\"value\":\"" text "\"") ",\"effect\":\"" effect "\"" \
        (time == "-" ? "" : ",\"timeAdded\":\"" time "\"") "}"
}
