"""A test sigstore: a CA, a certificate transparency log, a transparency log, and a trusted root."""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SCT = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER_RAW = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey


def make_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def public_der(key: Key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def identifier(key: Key) -> bytes:
    return hashlib.sha256(public_der(key)).digest()


def sign(key: Key, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Sigstore:
    """Keys of the three services."""

    ca: Key = field(default_factory=make_key)
    certificates_log: Key = field(default_factory=make_key)
    log: Key = field(default_factory=make_key)

    @property
    def authority_name(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio")])

    def authority_certificate(self) -> x509.Certificate:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(self.authority_name).issuer_name(self.authority_name)
            .public_key(self.ca.public_key()).serial_number(1)
            .not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), critical=False)
            .sign(self.ca, hashes.SHA256())
        )  # fmt: skip

    def trusted_root(self) -> bytes:
        """The trusted root, in the format of `cosign trusted-root create`."""

        def service(url: str, key: Key) -> dict[str, object]:
            return {
                "baseUrl": url, "hashAlgorithm": "SHA2_256", "logId": {"keyId": b64(identifier(key))},
                "publicKey": {
                    "rawBytes": b64(public_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2026-01-01T00:00:00Z"},
                },
            }  # fmt: skip

        certificate = self.authority_certificate().public_bytes(serialization.Encoding.DER)
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [service("https://rekor.example", self.log)],
                "ctlogs": [service("https://ct.example", self.certificates_log)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "test", "commonName": "fulcio"},
                        "uri": "https://fulcio.example",
                        "certChain": {"certificates": [{"rawBytes": b64(certificate)}]},
                        "validFor": {"start": "2026-01-01T00:00:00Z"},
                    }
                ],
                "timestampAuthorities": [],
            }
        ).encode()  # fmt: skip

    def issue(self, key: Key, identity: str, issuer: str) -> x509.Certificate:
        """A certificate for ten minutes, with an SCT of the certificate transparency log."""
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        text = issuer.encode()
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([])).issuer_name(self.authority_name)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(NOW).not_valid_after(NOW + timedelta(minutes=10))
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER, b"\x0c" + bytes([len(text)]) + text), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_RAW, text), critical=False)
            .add_extension(signer, critical=False)
        )  # fmt: skip
        tbs = builder.sign(self.ca, hashes.SHA256()).tbs_certificate_bytes
        time = int(NOW.timestamp() * 1000)
        entry = identifier(self.ca) + len(tbs).to_bytes(3, "big") + tbs
        signed = struct.pack("!BBQH", 0, 0, time, 1) + entry + b"\0\0"
        signature = sign(self.certificates_log, signed)
        sct = (
            b"\0" + identifier(self.certificates_log) + time.to_bytes(8, "big") + b"\0\0"
            + b"\4\3" + len(signature).to_bytes(2, "big") + signature
        )  # fmt: skip
        listed = len(sct).to_bytes(2, "big") + sct
        promises = len(listed).to_bytes(2, "big") + listed
        octets = b"\x04" + (
            bytes([len(promises)]) if len(promises) < 128 else b"\x81" + bytes([len(promises)])
        )
        return builder.add_extension(
            x509.UnrecognizedExtension(SCT, octets + promises), critical=False
        ).sign(self.ca, hashes.SHA256())

    def sign(self, content: bytes, identity: str, issuer: str, *, logged: bytes = b"") -> bytes:
        """A bundle for a file; `logged` is the content in the log, if it differs."""
        key = make_key()
        certificate = self.issue(key, identity, issuer)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        signature = sign(key, content)
        body = canonical(
            {
                "apiVersion": "0.0.1", "kind": "hashedrekord",
                "spec": {
                    "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(logged or content).hexdigest()}},
                    "signature": {"content": b64(signature), "publicKey": {"content": b64(pem)}},
                },
            }
        )  # fmt: skip
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"rekor.example - 1\n1\n{b64(root)}\n"
        own = identifier(self.log)
        checkpoint = (
            f"{note}\n\u2014 rekor.example {b64(own[:4] + sign(self.log, note.encode()))}\n"
        )
        time = int((NOW + timedelta(minutes=1)).timestamp())
        promise = canonical(
            {"body": b64(body), "integratedTime": time, "logID": own.hex(), "logIndex": 0}
        )
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
                    "tlogEntries": [
                        {
                            "logIndex": "0", "logId": {"keyId": b64(own)}, "integratedTime": str(time),
                            "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
                            "inclusionPromise": {"signedEntryTimestamp": b64(sign(self.log, promise))},
                            "inclusionProof": {
                                "logIndex": "0", "rootHash": b64(root), "treeSize": "1", "hashes": [],
                                "checkpoint": {"envelope": checkpoint},
                            },
                            "canonicalizedBody": b64(body),
                        }
                    ],
                },
                "messageSignature": {
                    "messageDigest": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(content).digest())},
                    "signature": b64(signature),
                },
            }
        ).encode()  # fmt: skip
