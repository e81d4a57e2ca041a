"""A client certificate of system:masters, for load on API servers that restart.

Until an API server has read the rules of RBAC, within a second after it has opened its port, it refuses everybody else
with 403 (Kubernetes does so). A load balancer that knows only whether the port is open sends requests there.
"""

import base64
from datetime import UTC, datetime
from pathlib import Path

import yaml

from bundler.cluster.plan import ClusterPlan
from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.user_access import BREAK_GLASS_GROUP, make_user_kubeconfig
from bundler.state.directory import open_state


def write_break_glass(state: Path, plan: ClusterPlan, directory: Path) -> Path:
    """Write masters.crt and masters.key; returns the certificate."""
    now = datetime.now(UTC)
    with open_state(state) as opened:
        pki = ensure_pki(opened, plan, now)
    made = make_user_kubeconfig(pki, plan, now, name="load", group=BREAK_GLASS_GROUP, days=2)
    return split_kubeconfig(made.content, directory / "masters.crt")


def split_kubeconfig(content: str | bytes, certificate: Path) -> Path:
    """Write the client certificate of a kubeconfig, and its key as .key next to it."""
    user = yaml.safe_load(content)["users"][0]["user"]
    for name, path in (("certificate", certificate), ("key", certificate.with_suffix(".key"))):
        path.write_bytes(base64.b64decode(user[f"client-{name}-data"]))
    return certificate
