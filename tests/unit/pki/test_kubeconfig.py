"""The content of kubeconfigs, read back as YAML."""

import base64

import pytest
import yaml
from support.pki_plans import NOW

from bundler.pki.key_pairs import KeyPair
from bundler.pki.kubeconfig import render_kubeconfig, render_token_kubeconfig

SERVER = "https://172.30.20.250:8443"
CLIENT = KeyPair(
    certificate_pem=b"certificate\n" * 50, key_pem=b"key\n" * 50, not_before=NOW, not_after=NOW
)


def render(user="system:kube-scheduler"):
    return render_kubeconfig(cluster="lab", server=SERVER, ca_pem=b"CA\n", user=user, client=CLIENT)


def get(data):
    """The cluster and the user that the current context names."""
    document = yaml.safe_load(data)
    assert (document["apiVersion"], document["kind"]) == ("v1", "Config")
    (context,) = document["contexts"]
    assert context["name"] == document["current-context"]
    (cluster,) = document["clusters"]
    (user,) = document["users"]
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"]}
    return cluster["cluster"], user


@pytest.mark.parametrize("name", ["system:kube-scheduler", "bundler:csr-approver", "admin"])
def test_everything_is_embedded(name):
    cluster, user = get(render(name))
    assert cluster == {
        "server": SERVER,
        "certificate-authority-data": base64.b64encode(b"CA\n").decode(),
    }
    assert user["name"] == name
    assert base64.b64decode(user["user"]["client-certificate-data"]) == CLIENT.certificate_pem
    assert base64.b64decode(user["user"]["client-key-data"]) == CLIENT.key_pem
    assert len(user["user"]) == 2


def test_a_token_kubeconfig_has_a_token_and_no_certificate():
    data = render_token_kubeconfig(
        cluster="lab",
        server=SERVER,
        ca_pem=b"CA\n",
        user="kubelet-bootstrap",
        token="abcdef.0123456789abcdef",
    )
    assert get(data)[1]["user"] == {"token": "abcdef.0123456789abcdef"}


def test_a_token_of_digits_is_not_read_as_a_number():
    data = render_token_kubeconfig(
        cluster="lab",
        server=SERVER,
        ca_pem=b"CA\n",
        user="kubelet-bootstrap",
        token="123456.0123456789012345",
    )
    assert get(data)[1]["user"] == {"token": "123456.0123456789012345"}


def test_the_output_is_deterministic_with_one_field_per_line():
    assert render() == render()
    assert len(render().splitlines()) == 19
