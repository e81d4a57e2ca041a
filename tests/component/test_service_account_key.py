"""Two real control planes: the key of service account tokens is rotated, and no token is refused too early."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.two_control_planes import Site, run_site

from bundler.pki.rotation import CERTIFICATES
from bundler.pki.rotation_stages import SERVICE_ACCOUNT

pytestmark = pytest.mark.long

RENEW = "renew-service-accounts.sh"
SOMEBODYS = """
apiVersion: v1
kind: Secret
type: kubernetes.io/service-account-token
metadata: {name: somebodys, annotations: {kubernetes.io/service-account.name: default}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: holder}
spec: {containers: [{name: one, image: "x"}]}
"""


class Story:
    """What the steps leave for those after them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.trees: dict[str, dict[str, Path]] = {}
        self.former: dict[str, str] = {}  # tokens that the former key signed

    def statuses(self, token: str) -> list[int]:
        """What both API servers answer."""
        return [host.may(token) for host in self.site.hosts]


@pytest.fixture(scope="module", params=[{}, {"profile": "cis"}], ids=["plain", "cis"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """With the profile a host cannot ask the controller manager of another one."""
    with run_site(tmp_path_factory, **request.param) as site:
        yield Story(site)


def request_token(story: Story, number: int, audience: str = "") -> str:
    """A token of the TokenRequest API, as kubelets get it for pods; from the first or second host."""
    body = {"spec": {"expirationSeconds": 3600, "audiences": [audience] if audience else []}}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    host = story.site.hosts[number]
    answer = host.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", **body,
    }))  # fmt: skip
    return str(json.loads(answer)["status"]["token"])


def each_api_server_publishes_the_keys_that_it_has_loaded(story: Story) -> None:
    found = story.site.one.etcdctl("get", "bundler/keys/", "--prefix").stdout.decode().split()
    assert found[0::7] == ["bundler/keys/one", "bundler/keys/two"]
    assert found[1] == found[2] != found[8]
    assert found[3] == found[4] == found[10]
    assert found[5] == "aescbc:key1"


def an_unchanged_bundle_asks_nobody(story: Story) -> None:
    trees = story.site.build("same")
    story.site.two.stop("kube-apiserver")
    assert story.site.one.obstacle(trees["one"]) == ""
    story.site.two.restart("kube-apiserver")


def a_new_key_does_not_sign_before_every_api_server_accepts_it(story: Story) -> None:
    site = story.site
    site.one.kubectl("apply", "-f", "-", stdin=SOMEBODYS)
    site.one.kubectl("apply", "-f", "-", stdin=POD)
    site.one.wait("a token", lambda: site.read_secret_token("somebodys"))
    story.former = {
        "pods": site.read_token(), "somebody's": site.read_secret_token("somebodys"),
        "requested": request_token(story, 0),
    }  # fmt: skip
    story.trees["trust"] = site.rotate(CERTIFICATES, "trust", SERVICE_ACCOUNT)
    assert site.one.obstacle(story.trees["trust"]["one"]) == ""
    site.one.install(story.trees["trust"]["one"])
    story.trees["issue"] = site.rotate(CERTIFICATES, "issue")
    said = site.one.obstacle(story.trees["issue"]["one"])
    assert said == (
        "the API server of two does not accept the key with which this bundle signs service"
        " account tokens: install the bundle of the previous stage on two first"
    )


def files_without_a_restart_do_not_count(story: Story) -> None:
    """As a killed install.sh leaves them."""
    site = story.site
    site.two.install(story.trees["trust"]["two"], restart=())
    assert "does not accept the key" in site.one.obstacle(story.trees["issue"]["one"])
    code, said = site.two.run("loaded-keys.sh", "publish")
    assert code == 1
    assert "the API server does not run with the keys in its files" in said
    site.two.restart("kube-apiserver")
    assert site.one.obstacle(story.trees["issue"]["one"]) == ""


def an_api_server_that_started_again_unnoticed_is_an_obstacle(story: Story) -> None:
    site = story.site
    value = site.one.etcdctl("get", "bundler/keys/two", "--print-value-only").stdout.decode()
    stale = " ".join(["1.00", *value.split()[1:]])
    assert site.one.etcdctl("put", "bundler/keys/two", stale).returncode == 0
    said = site.one.obstacle(story.trees["issue"]["one"])
    assert "the API server of two was restarted since its keys were published" in said
    pid = str(site.two.running["kube-apiserver"].pid)
    assert site.two.run("loaded-keys.sh", "publish", MAINPID=pid)[0] == 0
    assert site.one.obstacle(story.trees["issue"]["one"]) == ""


def questions_without_an_answer_are_obstacles(story: Story) -> None:
    site = story.site
    tree = story.trees["issue"]["one"]
    site.two.stop("kube-apiserver")
    assert "the API server of two does not answer, so it is unknown" in site.one.obstacle(tree)
    site.two.restart("kube-apiserver")
    assert site.one.etcdctl("del", "bundler/keys/two").returncode == 0
    assert "two does not publish which keys its API server has" in site.one.obstacle(tree)
    site.two.restart("kube-apiserver")
    assert site.one.obstacle(tree) == ""


def tokens_of_both_keys_are_accepted_while_both_are_valid(story: Story) -> None:
    site = story.site
    site.install(story.trees["issue"])
    for token in story.former.values():
        assert story.statuses(token) == [200, 200]
    new = [request_token(story, number) for number in (0, 1)]
    for token in new:
        assert story.statuses(token) == [200, 200]


def the_former_key_stays_while_a_controller_manager_may_hold_its_tokens(story: Story) -> None:
    site = story.site
    story.trees["drop"] = site.rotate(CERTIFICATES, "drop")
    # the first host's controller manager is older than the second host's new API server
    said = site.one.obstacle(story.trees["drop"]["one"])
    assert "the controller manager of one may hold tokens of the former key" in said
    for host in site.hosts:
        code, said = host.run("finish-rotation.sh")
        assert code == 0, said
    assert "controller manager" not in site.one.obstacle(story.trees["drop"]["one"])


def the_former_key_stays_while_a_secret_holds_its_token(story: Story) -> None:
    site = story.site
    said = site.two.obstacle(story.trees["drop"]["two"])
    assert "Secrets hold a token of a key that this bundle does not accept" in said
    assert "run /opt/k8s/libexec/renew-service-accounts.sh" in said
    code, said = site.one.run(RENEW)
    assert code == 4
    assert "default/default: new pods get the token in default-token-" in said
    assert "restart the pods that hold its token: holder" in said
    assert "default/somebodys: somebody created it" in said
    assert story.statuses(site.read_token()) == [200, 200]
    for token in story.former.values():
        assert story.statuses(token) == [200, 200]  # no pod has lost its token


def a_secret_is_deleted_when_no_pod_uses_it(story: Story) -> None:
    site = story.site
    code, said = site.one.run(RENEW)
    assert code == 4
    assert "kube-public/default-token" in said
    assert "deleted, no pod uses it" in said
    assert story.statuses(story.former["pods"]) == [200, 200]
    site.one.kubectl("delete", "pod", "holder", "--force", "--grace-period=0")
    assert site.one.run(RENEW)[0] == 4
    patch = '[{"op":"remove","path":"/data/token"}]'
    site.one.kubectl("patch", "secret", "somebodys", "--type=json", "-p", patch)
    site.one.wait("a new token", lambda: site.read_secret_token("somebodys"))
    code, said = site.one.run(RENEW)
    assert (code, said) == (0, "no Secret holds a token of the former key\n")
    assert story.statuses(site.read_secret_token("somebodys")) == [200, 200]
    assert site.one.obstacle(story.trees["drop"]["one"]) == ""


def a_pod_that_may_hold_a_token_of_the_former_key_is_waited_for(story: Story) -> None:
    """Pods with projected tokens that started before the new key signed."""
    site = story.site
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "projected"},
        "spec": {
            "containers": [{"name": "one", "image": "x"}],
            "volumes": [{"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 7200}}]}}],
        },
    }  # fmt: skip
    site.one.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    assert site.one.obstacle(story.trees["drop"]["one"]) == ""  # it has not started
    start_pod(story, "2020-01-01T00:00:00Z")
    said = site.one.obstacle(story.trees["drop"]["one"])
    assert (
        "1 pods may hold a token of a key that this bundle does not accept (default/projected)"
        in said
    )
    assert (
        "kubelets renew them within 9" in said
    )  # 80 % of 120 minutes, and 3, less what has gone by
    start_pod(story, "2099-01-01T00:00:00Z")
    assert site.one.obstacle(story.trees["drop"]["one"]) == ""
    site.one.kubectl("delete", "pod", "projected", "--force", "--grace-period=0")


def start_pod(story: Story, time: str) -> None:
    path = "/api/v1/namespaces/default/pods/projected"
    pod = json.loads(story.site.one.kubectl("get", "--raw", path))
    pod["status"]["startTime"] = time
    story.site.one.kubectl("replace", "--raw", f"{path}/status", "-f", "-", stdin=json.dumps(pod))


def tokens_of_the_dropped_key_are_refused_everywhere(story: Story) -> None:
    site = story.site
    site.install(story.trees["drop"])
    for token in story.former.values():
        assert story.statuses(token) == [401, 401]
    assert story.statuses(site.read_token()) == [200, 200]
    for number in (0, 1):
        assert story.statuses(request_token(story, number)) == [200, 200]


def a_bundle_that_signs_with_the_dropped_key_is_refused(story: Story) -> None:
    """As a rollback to an earlier generation would bring it."""
    said = story.site.one.obstacle(story.trees["trust"]["one"])
    assert "does not accept the key with which this bundle signs" in said


def test_the_key_of_service_account_tokens_is_replaced_step_by_step(story: Story) -> None:
    """One test, because pytest-xdist may give the tests of a file to several processes."""
    each_api_server_publishes_the_keys_that_it_has_loaded(story)
    an_unchanged_bundle_asks_nobody(story)
    a_new_key_does_not_sign_before_every_api_server_accepts_it(story)
    files_without_a_restart_do_not_count(story)
    an_api_server_that_started_again_unnoticed_is_an_obstacle(story)
    questions_without_an_answer_are_obstacles(story)
    tokens_of_both_keys_are_accepted_while_both_are_valid(story)
    the_former_key_stays_while_a_controller_manager_may_hold_its_tokens(story)
    the_former_key_stays_while_a_secret_holds_its_token(story)
    a_secret_is_deleted_when_no_pod_uses_it(story)
    a_pod_that_may_hold_a_token_of_the_former_key_is_waited_for(story)
    tokens_of_the_dropped_key_are_refused_everywhere(story)
    a_bundle_that_signs_with_the_dropped_key_is_refused(story)
