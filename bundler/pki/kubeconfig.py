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


def render_webhook_kubeconfig(
    *,
    name: str,
    server: str,
    ca_pem: bytes | None,
    certificate_pem: bytes | None,
    key_pem: bytes | None,
    token: str | None,
) -> bytes:
    """A kubeconfig (YAML) with which API servers reach a server of the site.

    `server` is a URL. Without `ca_pem` the CAs of the host are trusted.
    """
    given = {
        "client-certificate-data": certificate_pem and _encode(certificate_pem),
        "client-key-data": key_pem and _encode(key_pem),
        "token": token,
    }
    credentials = {field: value for field, value in given.items() if value}
    return _render(name, server, ca_pem, "kube-apiserver", credentials)


def _render(
    cluster: str, server: str, ca_pem: bytes | None, user: str, credentials: Mapping[str, str]
) -> bytes:
    trust = {"certificate-authority-data": _encode(ca_pem)} if ca_pem else {}
    context = f"{user}@{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {"server": server, **trust},
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
