"""Render kubeconfig files, with embedded certificates where a client needs one file only."""

import base64
from collections.abc import Mapping

from bundler.formats.yaml_output import dump_yaml
from bundler.pki.key_pairs import KeyPair


def render_kubeconfig(
    *, cluster: str, server: str, ca_pem: bytes, user: str, client: KeyPair
) -> bytes:
    """A kubeconfig (YAML) for `user` with a client certificate; `server` is a URL."""
    credentials = {
        "client-certificate-data": _encode(client.certificate_pem),
        "client-key-data": _encode(client.key_pem),
    }
    return _render(cluster, server, ca_pem, user, credentials)


def render_token_kubeconfig(
    *, cluster: str, server: str, ca_pem: bytes, user: str, token: str
) -> bytes:
    """A kubeconfig (YAML) for `user` with a bearer token; `server` is a URL."""
    return _render(cluster, server, ca_pem, user, {"token": token})


def render_file_kubeconfig(
    *, cluster: str, server: str, ca_pem: bytes, user: str, client: str
) -> bytes:
    """A kubeconfig (YAML) for `user` that names the file of a certificate and its key."""
    credentials = {"client-certificate": client, "client-key": client}
    return _render(cluster, server, ca_pem, user, credentials)


def _render(
    cluster: str, server: str, ca_pem: bytes, user: str, credentials: Mapping[str, str]
) -> bytes:
    context = f"{user}@{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": _encode(ca_pem),
                },
            }
        ],
        "users": [{"name": user, "user": dict(credentials)}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
    }
    return f"{dump_yaml(document)}\n".encode()


def _encode(pem: bytes) -> str:
    return base64.b64encode(pem).decode("ascii")
