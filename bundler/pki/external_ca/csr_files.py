"""Write certificate requests as files for the person who signs them.

    NAME.csr        the request
    NAME.ext        the extensions, for -extfile: openssl ignores those in the request
    README.txt      instructions, command by command
    request.json    the same for other tools; written last

None of these files is secret.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from bundler import __version__
from bundler.cluster.plan import ClusterPlan
from bundler.errors import OutputError
from bundler.files import ensure_directory, explain_disk_faults, write_atomically
from bundler.overlays.templating import compile_template
from bundler.paths import RESOURCES
from bundler.pki.certificate_rules import describe_usages
from bundler.pki.external_ca.requests import SigningRequest

README = "README.txt"
INDEX = "request.json"
ROOT = "ROOT"


def write_requests(wanted: Sequence[SigningRequest], plan: ClusterPlan, directory: Path) -> None:
    """Write all files into `directory`; remove files of an earlier run that are obsolete.

    Raises OutputError if the directory holds other files.
    """
    files = make_files(wanted, plan)
    ensure_directory(directory)
    with explain_disk_faults(directory):
        earlier = _read_earlier(directory)
        for name in earlier - set(files):
            (directory / name).unlink(missing_ok=True)
        for name, content in files.items():
            write_atomically(directory / name, content, mode=0o644)


def make_files(wanted: Sequence[SigningRequest], plan: ClusterPlan) -> dict[str, bytes]:
    """The files by name; the index is last."""
    files: dict[str, bytes] = {}
    for one in wanted:
        files[f"{one.name}.csr"] = one.request_pem
        files[f"{one.name}.ext"] = make_extensions(one)
    rows = [_describe(one) for one in wanted]
    signers = tuple(dict.fromkeys(_variable(one) for one in wanted))
    template = (RESOURCES / "REQUESTS.txt.j2").read_text()
    files[README] = (
        compile_template(template)
        .render(
            plan=plan,
            rows=rows,
            signers=signers,
            is_leaves=any(one.ca for one in wanted),
        )
        .encode()
    )
    index = {"cluster": plan.name, "made_by": f"bundler {__version__}", "requests": rows}
    files[INDEX] = (json.dumps(index, indent=2) + "\n").encode()
    return files


def make_extensions(wanted: SigningRequest) -> bytes:
    """The extensions file for `openssl x509 -req -extfile`."""
    rows = {
        "basicConstraints": f"critical, {_constraints(wanted)}",
        "keyUsage": f"critical, {', '.join(_key_usages(wanted))}",
        "extendedKeyUsage": ", ".join(describe_usages(wanted.content.usages)),
        "subjectAltName": ", ".join(_names(wanted)),
        "subjectKeyIdentifier": "hash",
        "authorityKeyIdentifier": "keyid",
    }
    return "".join(f"{name} = {value}\n" for name, value in rows.items() if value).encode()


def get_request_digest(wanted: SigningRequest) -> str:
    """SHA-256 of the request file, which the signer compares by phone."""
    return hashlib.sha256(wanted.request_pem).hexdigest()


def _describe(wanted: SigningRequest) -> dict[str, object]:
    return {
        "name": wanted.name,
        "kind": "leaf" if wanted.ca else "authority",
        "file": f"{wanted.name}.csr",
        "sha256": get_request_digest(wanted),
        "signed_by": wanted.ca or "the root, or a CA below it",
        "subject": {
            "organization": wanted.content.organization,
            "common_name": wanted.content.common_name,
        },
        "basic_constraints": _constraints(wanted),
        "key_usages": _key_usages(wanted),
        "extended_key_usages": describe_usages(wanted.content.usages),
        "names": _names(wanted),
        "days": wanted.days,
        "why": wanted.purpose,
        "command": _make_command(wanted),
    }


def _make_command(wanted: SigningRequest) -> str:
    signer = _variable(wanted)
    name = shlex.quote(wanted.name)
    return (
        f'openssl x509 -req -in {name}.csr -CA "${signer}" -CAkey "${signer}_KEY" -CAcreateserial'
        f" -days {wanted.days} -sha256 -extfile {name}.ext -out {name}.crt"
    )


def _variable(wanted: SigningRequest) -> str:
    """The shell variable that holds the path of the signer's certificate."""
    return wanted.ca.upper().replace("-", "_") if wanted.ca else ROOT


def _constraints(wanted: SigningRequest) -> str:
    return "CA:FALSE" if wanted.ca else "CA:TRUE, pathlen:0"


def _key_usages(wanted: SigningRequest) -> list[str]:
    if not wanted.ca:
        return ["keyCertSign", "cRLSign"]
    enciphers = isinstance(wanted.key, rsa.RSAPublicKey)
    return ["digitalSignature", "keyEncipherment"] if enciphers else ["digitalSignature"]


def _names(wanted: SigningRequest) -> list[str]:
    return [
        f"{'IP' if isinstance(name, IPv4Address) else 'DNS'}:{name}"
        for name in wanted.content.names
    ]


def _read_earlier(directory: Path) -> set[str]:
    """The names of the files that an earlier run wrote."""
    if not any(directory.iterdir()):
        return set()
    try:
        rows = json.loads((directory / INDEX).read_bytes())["requests"]
        names = [str(row["name"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{directory}: holds files that are not certificate requests",
            hint="choose a new or empty directory with -o",
        ) from error
    return {f"{name}.{suffix}" for name in names if "/" not in name for suffix in ("csr", "ext")}
