"""verify.sh looks for the objects of an add-on's `verify`, and at their conditions."""

from pathlib import Path

from support.shells import TEMPLATES, Sh

LIB = TEMPLATES / "common" / "lib"
SCRIPT = """\
. {lib}/verify/run.sh
. {lib}/verify/add-ons.sh
prefix={root} results={root} check=addons
count_lines() {{ wc -l; }}
print_first() {{ cat; }}
kube() {{
    case "$*" in
        *"get configmap"*) printf 'ready: ' ;;
        diff*) ;;
        *) {answer} ;;
    esac
}}
check_addons
code=$?
cat {root}/addons.seen
exit "$code"
"""
ROWS = """\
# the head
1e1\tStorageClass\tdefault\tother\t-
10\tStorageClass\tdefault\tlocal-path\t-
10\tGatewayClass.gateway.networking.k8s.io\tweb\tnginx\tAccepted
"""


def check(sh: Sh, root: Path, answer: str, rows: str | None = ROWS) -> tuple[int, list[str]]:
    folder = root / "etc/kubernetes/site-addons"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "addons.tsv").write_text("# the head\n10\t-\t300\tobjects\tno\n")
    (folder / "10").mkdir(exist_ok=True)
    (folder / "10/5-objects.yaml").touch()
    if rows is not None:
        (folder / "verify.tsv").write_text(rows)
    script = root / "script.sh"
    script.write_text(SCRIPT.format(lib=LIB, root=root, answer=answer))
    done = sh(script)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_objects_that_exist_with_their_condition_are_in_order(sh: Sh, tmp_path: Path) -> None:
    answer = 'echo "$*" >>"$results/asked"; [ "$4" = StorageClass ] || printf True'
    assert check(sh, tmp_path, answer) == (0, ["1 add-ons, no drift"])
    assert (tmp_path / "asked").read_text().splitlines() == [
        (
            "-n default get StorageClass local-path -o"
            ' jsonpath={.status.conditions[?(@.type=="-")].status}'
        ),
        (
            "-n web get GatewayClass.gateway.networking.k8s.io nginx -o"
            ' jsonpath={.status.conditions[?(@.type=="Accepted")].status}'
        ),
    ]


def test_an_object_that_is_missing_or_not_in_its_condition_is_named(sh: Sh, tmp_path: Path) -> None:
    answer = """case $4 in StorageClass) echo 'Error: "local-path" not found' >&2; return 1 ;; esac
        printf False"""
    assert check(sh, tmp_path, answer) == (
        1,
        [
            '10: StorageClass local-path: Error: "local-path" not found',
            "10: GatewayClass.gateway.networking.k8s.io nginx: Accepted is False, not True",
        ],
    )
    code, seen = check(sh, tmp_path, ":")
    assert code == 1
    assert seen == [
        "10: GatewayClass.gateway.networking.k8s.io nginx: Accepted is missing, not True"
    ]


def test_add_ons_without_verify_need_no_table(sh: Sh, tmp_path: Path) -> None:
    assert check(sh, tmp_path, "return 1", rows=None) == (0, ["1 add-ons, no drift"])
