# Read the rules of the table filter (iptables -S), and print what pod-guard.sh has to do:
#   pod ADDRESS   kube-router has rules for the packets that this pod sends and receives
#   first CHAIN   another rule comes before kube-router's in this chain of the kernel
#   spare CHAIN   kube-router's rule is the first again, so the guard's own jump can go
# A pod counts only when both directions are there.

function address() {
    for (i = 3; i < NF; i++) if ($i == "-s" || $i == "-d") {
        split($(i + 1), part, "/")
        return part[1]
    }
    return ""
}

$1 == "-A" && $2 == "KUBE-ROUTER-FORWARD" && / -j KUBE-POD-FW-/ {
    if (/ -s /) sends[address()] = 1
    if (/ -d /) receives[address()] = 1
    next
}

$1 == "-A" && ($2 == "FORWARD" || $2 == "INPUT" || $2 == "OUTPUT") {
    rules[$2]++
    if ($NF != "KUBE-ROUTER-" $2) next
    if (/kube-pod-guard/) guards[$2] = 1; else jumps[$2] = 1
    if (rules[$2] == 1) leads[$2] = (/kube-pod-guard/) ? "guard" : "kube-router"
}

END {
    for (one in sends) if (one in receives) print "pod " one
    for (chain in jumps) {
        if (!(chain in leads)) print "first " chain
        else if (leads[chain] == "kube-router" && chain in guards) print "spare " chain
    }
}
