"""CAs of a cluster from the first build and from rotations, for tests of scripts."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from bundler.pki import declarations, issuing

NOW = datetime.now(UTC)
NEW = "20261229T050607Z"  # a rotation id
SETTLED, TRUST, ISSUE, DROP = ("-", "-"), ("-", f"- {NEW}"), (NEW, f"{NEW} -"), (NEW, NEW)
"""The rotation ids that sign and that are trusted, in each stage."""


@dataclass(frozen=True)
class ClusterCas:
    """The CAs of a cluster, from the first build and from rotations."""

    directory: Path
    issuers: dict[tuple[str, str], issuing.Issuer] = field(default_factory=dict)

    def issuer(self, name: str, rotation_id: str) -> issuing.Issuer:
        if (name, rotation_id) not in self.issuers:
            key = issuing.make_key("ecdsa-p256")
            certificate = issuing.issue_ca(
                name, "lab", key, NOW, 30, rotation_id=None if rotation_id == "-" else rotation_id
            )
            self.issuers[name, rotation_id] = issuing.Issuer(certificate=certificate, key=key)
        return self.issuers[name, rotation_id]

    def issue(self, name: str, rotation_id: str, common_name: str, *, days: int = 30) -> bytes:
        """A certificate and its key, PEM."""
        key = issuing.make_key("ecdsa-p256")
        content = declarations.Content(
            common_name=common_name,
            organization=None,
            usages=tuple(
                usage.dotted_string for usage in (declarations.SERVER, declarations.CLIENT)
            ),
            names=(IPv4Address("127.0.0.1"),),
        )
        then = NOW if days > 0 else NOW - timedelta(days=40)
        issuer = self.issuer(name, rotation_id)
        if days <= 0:
            certificate = issuing.issue_ca(
                name,
                "lab",
                issuer.key,
                then,
                60,
                rotation_id=None if rotation_id == "-" else rotation_id,
            )
            issuer = issuing.Issuer(certificate=certificate, key=issuer.key)
        certificate = issuing.issue(content, key.public_key(), issuer, then, 30)
        return issuing.encode_certificate(certificate) + issuing.encode_private_key(key)

    def encode_cas(self, names: tuple[str, ...], rotation_ids: str) -> bytes:
        return b"".join(
            issuing.encode_certificate(self.issuer(name, rotation_id).certificate)
            for name in names
            for rotation_id in rotation_ids.split()
        )
