# Lines of node-marks.gotemplate: print "NAME UID VERSION LEAVE MARKS", separated by tabs. MARKS are the taints and
# labels that the Node would lose for good if it were deleted and its host registered it again: those that are set
# neither by Kubernetes nor by the host, which the admission plugin NodeRestriction limits. "-" if there is none.
# Variable: planned (the taints with which kubelets register, KEY=VALUE:EFFECT, separated by spaces).

BEGIN {
    FS = OFS = "\t"
    n = split(planned, taint, " ")
    for (i = 1; i <= n; i++) is_planned[taint[i]] = 1
}

NF == 6 {
    marks = ""
    n = split($5, taint, " ")
    for (i = 1; i <= n; i++) if (taint[i] != "-" && !is_taint_of_kubernetes(taint[i])) add("the taint " taint[i])
    n = split($6, label, " ")
    for (i = 1; i <= n; i++) if (!is_label_of_host(label[i])) add("the label " label[i])
    print $1, $2, $3, $4, (marks == "" ? "-" : marks)
}

# out-of-service is set by administrators, in spite of its name.
function is_taint_of_kubernetes(taint) {
    if (taint in is_planned) return 1
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
