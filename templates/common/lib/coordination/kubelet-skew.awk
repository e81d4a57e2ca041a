# Lines "node|kubelet version" on stdin: print which kubelets an API server of another minor version must not
# serve; exit code 1 if there is none. Variables: own (this node), combined (" name  name ": hosts that
# replace their kubelet in the same run as their API server), version and server (the new API server's
# version and minor).

BEGIN { behind = server < 28 ? 2 : 3 }

$1 == own || split($2, part, ".") < 2 { next }

part[2] + 0 > server + 0 && index(combined, " " $1 " ") == 0 { newer = newer ", " $1 " (" $2 ")" }
part[2] + 0 < server - behind { older = older ", " $1 " (" $2 ")" }

END {
    if (newer) {
        print "kubelets must not be newer than API server " version ": " substr(newer, 3) \
            "; first run install.sh --rollback on those nodes"
    } else if (older) {
        print "kubelets must not be more than " behind " minor versions older than API server " version ": " \
            substr(older, 3) "; first upgrade those nodes, or delete them if they no longer exist"
    } else {
        exit 1
    }
}
