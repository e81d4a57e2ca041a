# Lines of node-marks.gotemplate: print "NAME UID VERSION LEAVE MARKS", separated by tabs. MARKS are the taints and
# labels that the Node would lose for good if it were deleted and its host registered it again: those that are set
# neither by Kubernetes nor by the host, which the admission plugin NodeRestriction limits. "-" if there is none.
# Variables: planned (taints KEY=VALUE:EFFECT and keys of labels that a Node gets again, separated by spaces); in the
# environment RECORD (lines "NAME UID KIND|KEY|VALUE...": what kube-node-labeler.service has set on each Node).

BEGIN {
    FS = OFS = "\t"
    n = split(planned, mark, " ")
    for (i = 1; i <= n; i++) is_planned[mark[i]] = 1
    lines = split(ENVIRON["RECORD"], line, "\n")
    for (i = 1; i <= lines; i++) {
        n = split(line[i], word, " ")
        for (j = 3; j <= n; j++) {
            split(word[j], part, "|")
            is_recorded[word[1], word[2], name_of(part)] = 1
        }
    }
}

NF == 6 {
    marks = ""
    n = split($5, taint, " ")
    for (i = 1; i <= n; i++) {
        if (taint[i] != "-" && !is_by_plan(taint[i]) && !is_taint_of_kubernetes(taint[i])) add("the taint " taint[i])
    }
    n = split($6, label, " ")
    for (i = 1; i <= n; i++) {
        if (!is_by_plan(label[i]) && !is_label_of_host(label[i])) add("the label " label[i])
    }
    print $1, $2, $3, $4, (marks == "" ? "-" : marks)
}

# A taint as in the Node, or the key of a label.
function name_of(part,    pair) {
    if (part[1] != "taint") return part[2]
    if (part[3] == "-") return part[2]
    split(part[2], pair, ":")
    return pair[1] "=" part[3] ":" pair[2]
}

function is_by_plan(mark) { return (mark in is_planned) || (($1, $2, mark) in is_recorded) }

# out-of-service is set by administrators, in spite of its name.
function is_taint_of_kubernetes(taint) {
    return taint ~ /^node\.(cloudprovider\.)?kubernetes\.io\// && taint !~ /^node\.kubernetes\.io\/out-of-service[=:]/
}

# What NodeRestriction lets a host set: getForbiddenLabels of plugin/pkg/admission/noderestriction, with the labels of
# kubelet/pkg/apis/well_known_labels.go.
function is_label_of_host(label) {
    if (label !~ /^([^\/]*\.)?(kubernetes|k8s)\.io\//) return 1
    if (label ~ /^([^\/]*\.)?(kubelet|node)\.kubernetes\.io\//) return 1
    if (label ~ /^(beta\.)?kubernetes\.io\/(hostname|os|arch|instance-type)$/) return 1
    return label ~ /^(topology|failure-domain|failure-domain\.beta)\.kubernetes\.io\/(zone|region)$/
}

function add(what) { marks = marks (marks == "" ? "" : ", ") what }
