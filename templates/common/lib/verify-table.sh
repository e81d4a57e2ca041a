# The checks of verify.sh: one line each, and the function check_<name> (dashes as underscores).
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# name|needs|section|what it proves|first command to look with
# needs: nothing; api (an API server that answers); namespace (the test's own); workload (its pods).
print_checks() {
    cat <<TABLE
etcd-members|nothing|etcd|every planned member is in the etcd cluster, no other is, and all answer|ETCDCTL_API=3 $etcdctl --endpoints=$etcd_commas --cacert=$pki/etcd-ca.crt --cert=$pki/apiserver-etcd-client.crt --key=$pki/apiserver-etcd-client.key endpoint health
etcd-refuses-strangers|nothing|etcd|etcd serves nobody who has no client certificate|journalctl -u etcd -n 50 (on that member)
apiserver-ready|nothing|control plane|every API server says that it is ready|journalctl -u kube-apiserver -n 50 (on that node)
endpoint-ready|nothing|control plane|the API answers at the address that every client uses|systemctl status kube-nginx kube-keepalived; ip -4 address
controller-manager-leader|api|control plane|one kube-controller-manager leads and is alive|$kubectl_line -n kube-system get lease kube-controller-manager -o yaml
scheduler-leader|api|control plane|one kube-scheduler leads and is alive|$kubectl_line -n kube-system get lease kube-scheduler -o yaml
secrets-encrypted|namespace|control plane|a Secret is unreadable in etcd, and every API server can read it|grep -o 'encryption-provider-config=[^ ]*' /etc/systemd/system/kube-apiserver.service
audit-log|api|control plane|requests leave entries in the audit log of this node|grep -o 'audit-[^ ]*' /etc/systemd/system/kube-apiserver.service
nodes-ready|api|workers|every planned worker is registered with its address and Ready, and no other node is|$kubectl_line get nodes -o wide
kubelet-certificates|api|workers|every kubelet serves with a certificate from the cluster's authority|$kubectl_line get csr; journalctl -u kube-csr-approver -n 50
kubelet-authorization|nothing|workers|kubelets answer 401 to nobody, 403 to the wrong user, 200 to an administrator|journalctl -u kubelet -n 50 (on that worker)
pods-running|workload|workload|a DaemonSet gets one Running pod on every worker|$again pods-running; $kubectl_line -n $namespace describe pods
kubectl-exec|workload|workload|kubectl exec works in a pod on every worker|$again kubectl-exec; $kubectl_line -n $namespace get pods -o wide
pod-network|workload|workload|every worker can ping every pod|ip route; iptables -S FORWARD (on that worker)
service-ip|workload|workload|every worker reaches the Service at its IP|journalctl -u kube-proxy -n 50 (on that worker)
node-ports|workload|workload|every worker reaches the Service at the NodePort of every worker|journalctl -u kube-proxy -n 50 (on that worker)
images-local|workload|workload|no image was pulled: all were on the hosts already|$again images-local; $kubectl_line -n $namespace get events
TABLE
}

# is_check NAME
is_check() { print_checks | CHECK=$1 awk -F'|' '$1 "" == ENVIRON["CHECK"] "" { found = 1 } END { exit !found }'; }

# The names of the chosen checks (all, or those of --only) that need one of the given things.
chosen_checks() {
    print_checks | while IFS='|' read -r row_name row_needs row_rest; do
        case " $* " in *" $row_needs "*) ;; *) continue ;; esac
        case " $only " in "  " | *" $row_name "*) printf '%s\n' "$row_name" ;; esac
    done
}

list_checks() {
    print_checks | while IFS='|' read -r row_name row_needs row_section row_proves row_look; do
        printf '%-26s %s\n' "$row_name" "$row_proves"
    done
}
