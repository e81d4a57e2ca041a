# Lines "node|unschedulable|ticket|Ready|cordoned" (list_nodes of drain.sh): if as many nodes as `most` must be back
# before this node is drained, print which. Variables: own (this node), ticket (its own ticket), most,
# which ("cordoned": a cordoned node with a later ticket counts too).

$1 == own { next }

$3 != "" && ($3 + 0 < ticket || ($3 + 0 == ticket && $1 < own) || (which == "cordoned" && $2 == "true")) {
    add("has the rollout slot")
    next
}
$3 == "" && $2 == "true" { add("cordoned"); next }
$3 == "" && $4 != "True" { add("not Ready") }

END {
    if (n >= most) print "unavailable:" list ", and only " most " may be at a time (upgrade.max_unavailable)"
}

function add(why) {
    n++
    list = list " " $1 " (" why ")"
}
