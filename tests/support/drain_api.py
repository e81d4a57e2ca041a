"""A worker that drains itself, against a fake API: kubectl reads and writes files."""

from pathlib import Path

from support.shells import TEMPLATES, Sh, write_program

SCRIPT = """
set -u
work={work}/w here={lib}/.. prefix='' dry_run=no slot_wait={limit} drain=yes lock_taken=no switching=no
NODE=w1 NODES='{plan}' ENDPOINT=https://192.0.2.9:8443 KUBELET_ROOT={work}/kubelet UNITS='kubelet.service kube-proxy.service'
MAX_UNAVAILABLE={most} DRAIN_LIMIT=4 EVICTION_API=policy/v1beta1 skipped='{skipped}'
live=''
. {lib}/core/common.sh; . {lib}/preflight/checks.sh; . {lib}/transaction/host-diff.sh; . {lib}/transaction/generations.sh; . {lib}/coordination/rollout-order.sh; . {lib}/coordination/keys.sh; . {lib}/coordination/key-stages.sh; . {lib}/coordination/drain.sh
prefix='' store={work}/store
is_staged() {{ false; }}
unit_field() {{ [ "$1 $2" != 'kubelet.service DrainOn' ] || echo /opt/k8s/bin/kubelet; }}
systemctl() {{ :; }}
sleep() {{ command sleep 0.2; }}
add_failure() {{ is_skipped "$1" || echo "FAILURE $1: $2"; }}
add_advice() {{ echo "ADVICE $1: $2"; }}
trap finish EXIT
lock_taken=yes
{command}
"""
# The state is in files: nodes (lines as list_nodes prints them), marks (the line of node-marks.gotemplate for w1),
# cordoned (w1's annotation bundler/cordoned), lists-only (exists if nodes may be listed, but not read by name), pods (lines as list_pods requests them),
# stubborn (pods whose eviction a disruption budget refuses)
KUBECTL = r"""
cd {work}/api
shift_options() {{ while case ${{1:-}} in --server*|--cert*|--client*|--request*) true ;; *) false ;; esac; do shift; done; echo "$*"; }}
words=$(shift_options "$@")
echo "$words" >>calls
case $words in
    'get node'*) [ ! -e down ] || {{ echo 'Unable to connect to the server' >&2; exit 1; }} ;;
esac
case $words in
    'get node '*node-marks.gotemplate) sed -n 's/^w1|.*/&/p' nodes | while read -r _; do cat marks; done ;;
    'get node '*)
        [ ! -e lists-only ] || case $words in *' w2 '*) echo 'nodes "w2" is forbidden' >&2; exit 1 ;; esac
        names=${{words#get node }}; for name in ${{names%% --*}}; do grep "^$name|" nodes; done | sed "s/^w1|.*/&|$(cat cordoned)/"
        [ ! -e after-list ] || sh ./after-list ;;
    'get nodes '*) [ -e lists-only ] || {{ echo 'nodes is forbidden' >&2; exit 1; }}; cat nodes ;;
    'get pods'*) cat pods ;;
    '-n kube-system get lease'*) [ ! -e no-lease ] || {{ cat no-lease >&2; exit 1; }}; n=$(cat renewed); [ -e no-leader ] || echo $((n + 1)) >renewed; echo "$n" ;;
    '-n kube-system get endpoints'*) exit 1 ;;
    'annotate --overwrite node w1 bundler/turn='*) ticket=${{words##*=}}; sed -i "s/^w1|\([^|]*\)|[^|]*|/w1|\1|$ticket|/" nodes ;;
    'annotate node w1 bundler/turn-') sed -i 's/^w1|\([^|]*\)|[^|]*|/w1|\1||/' nodes ;;
    *unschedulable\":true*)
        time=${{words#*bundler/cordoned\":\"}}; echo "${{time%%\"*}}" >cordoned
        sed -i 's/^w1||/w1|true|/' nodes ;;
    *unschedulable\":null*) : >cordoned; sed -i 's/^w1|true|/w1||/' nodes ;;
    'patch node w1 '*bundler/cordoned\":null*) : >cordoned ;;
    'create --raw'*)
        pod=${{words#*namespaces/}} pod=${{pod%/eviction*}}
        namespace=${{pod%%/*}} pod=${{pod##*/}}
        cat >>evictions
        if grep -qx "$pod" stubborn 2>/dev/null; then echo "Error from server (TooManyRequests): Cannot evict pod as it would violate the pod's disruption budget." >&2; exit 1; fi
        grep -v "^$namespace|$pod|" pods >pods.new; mv pods.new pods ;;
    *) echo "unexpected: $words" >&2; exit 9 ;;
esac
"""
PODS = """\
default|web-1|Running|ReplicaSet||
kube-system|proxy-x|Running|DaemonSet||
default|job-done|Succeeded|Job||
kube-system|static|Running|Node|hash|
default|db-0|Running|StatefulSet||
"""
PLAN = "m1|192.0.2.1|etcd,control-plane w1|192.0.2.11|worker w2|192.0.2.12|worker w3|192.0.2.13|etcd,worker"
MARKS = "w1\tuid\t7\t-\tnode.kubernetes.io/unschedulable:NoSchedule \tkubernetes.io/hostname \n"
NODES = "w1|||True\nw2|||True\nw3|||True\n"


class Api:
    """A host w1 with its store, and the API that it uses."""

    def __init__(self, sh: Sh, directory: Path) -> None:
        self.sh, self.directory = sh, directory
        for name in ("api", "w", "store", "kubelet/pki", "bin"):
            (directory / name).mkdir(parents=True)
        (directory / "kubelet/pki/kubelet-client-current.pem").touch()
        (directory / "w/touched").write_text("/opt/k8s/bin/kubelet\n")
        write_program(directory / "bin/kubectl", KUBECTL.format(work=directory))
        self.write("nodes", NODES)
        self.write("marks", MARKS)
        self.write("pods", PODS)
        self.write("calls", "")
        self.write("cordoned", "")
        self.write("renewed", "1")

    def write(self, name: str, text: str) -> None:
        (self.directory / "api" / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.directory / "api" / name).read_text()

    def run(
        self, command: str, *, most: int = 1, limit: int = 0, skipped: str = " ", plan: str = PLAN
    ) -> tuple[int, str]:
        script = self.directory / "script.sh"
        script.write_text(
            SCRIPT.format(
                work=self.directory, lib=TEMPLATES / "common/lib", command=command, most=most,
                limit=limit, skipped=skipped, plan=plan,
            )
        )  # fmt: skip
        (self.directory / "w").mkdir(exist_ok=True)
        (self.directory / "w/touched").write_text("/opt/k8s/bin/kubelet\n")
        done = self.sh(script, PATH=f"{self.directory}/bin:/usr/bin:/bin")
        return done.returncode, done.stdout + done.stderr

    @property
    def state(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "store").iterdir())
