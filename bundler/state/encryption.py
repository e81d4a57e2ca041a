"""The keys that encrypt Secrets in etcd, and their rotation in stages.

    encryption-key             the key with which API servers write: "NAME KEY", 32 bytes in base64
    encryption-key.next        stage `read`: API servers can read with it, but do not write with it
    encryption-key.previous    stage `write`: no longer writes, still reads
    encryption-resources       what is encrypted, if it is more than Secrets; never changed

    read       create a new key; every API server reads with both, the old one writes
    write      the new key writes; control planes write every Secret again
    drop       API servers have the new key only
    abandon    back from `read`: remove the new key, which has written nothing
    recall     read with an archived key again, to restore a backup from before a rotation

etcd holds the name of the key in front of each value, so no two keys have the same name. A file
without a name, as earlier versions wrote it, is that of `key1`.

A key is for the providers aescbc and secretbox, and API servers read with both; so one of them can
follow the other without a rotation. A third word is another provider: `NAME KEY aesgcm`, or
`NAME - kms`, whose key is in a key management service and whose name is that of its plugin.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bundler.cluster.schema_encryption import Encryption
from bundler.errors import ConfigError, PkiError
from bundler.state.directory import RESTORE, State, has_entries
from bundler.state.replaced import ARCHIVE
from bundler.state.stages import Change, Request, Rotation, Step

WRITES = "encryption-key"
NEXT = "encryption-key.next"
PREVIOUS = "encryption-key.previous"
RESOURCES = "encryption-resources"
FIRST = "key1"
LINE = re.compile(
    r"(?:(?P<name>key1|key-\d{8}T\d{6}Z) )?(?P<secret>\S+)"
    r"|(?P<gcm_name>key1|key-\d{8}T\d{6}Z) (?P<gcm_secret>\S+) aesgcm"
    r"|(?P<kms_name>[a-z][-a-z0-9]{0,62}) - kms"
)
DEFAULT = Encryption()
BY_STATE = frozenset({"aesgcm", "kms"})
"""Providers that belong to a key; the others share one."""


class EncryptionStage(StrEnum):
    """The current stage of a rotation."""

    SETTLED = "settled"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKey:
    """One key, as the API servers' configuration has it."""

    name: str
    secret: str = field(repr=False)  # base64; empty with kms
    provider: str = field(default="", repr=False)  # one of BY_STATE, or empty

    @property
    def line(self) -> bytes:
        """The content of its file."""
        words = [self.name, self.secret or "-", self.provider]
        return f"{' '.join(word for word in words if word)}\n".encode()

    def list_providers(self, order: Iterable[str]) -> tuple[str, ...]:
        """The providers that use it; `order` has those that share keys, the writing one first."""
        return (self.provider,) if self.provider else tuple(order)


def ensure_encryption_keys(
    state: State, encryption: Encryption = DEFAULT
) -> tuple[EncryptionKey, ...]:
    """Load every key, the one that writes first; create it in a new state directory.

    Raises PkiError if it is missing although certificates exist: with a new key, the running
    cluster could not read its Secrets.
    """
    path = state.directory / WRITES
    if not path.exists():
        if has_entries(state.directory / "pki"):
            raise PkiError(
                f"{path}: missing, but certificates, which are made later, exist", hint=RESTORE
            )
        if encryption.resources != DEFAULT.resources:
            text = f"{' '.join(encryption.resources)}\n"
            state.write_file(state.directory / RESOURCES, text.encode())
        state.write_file(path, make_key(FIRST, encryption).line)
    others = (state.directory / name for name in (NEXT, PREVIOUS))
    keys = tuple(_load(file, state) for file in (path, *others) if file.exists())
    if len({key.name for key in keys}) < len(keys):
        raise PkiError(f"{path}: two keys have the name {keys[0].name}", hint=RESTORE)
    return keys


def read_stage(directory: Path) -> EncryptionStage:
    """Read the stage of a state directory; raises PkiError if the files match no stage."""
    has_next, has_previous = ((directory / name).exists() for name in (NEXT, PREVIOUS))
    if has_next and has_previous:
        raise PkiError(f"{directory}: has both {NEXT} and {PREVIOUS}", hint=RESTORE)
    if has_next:
        return EncryptionStage.READ
    return EncryptionStage.WRITE if has_previous else EncryptionStage.SETTLED


def check_resources(state: State, encryption: Encryption) -> None:
    """Raise ConfigError if cluster.yaml would encrypt other resources than etcd has encrypted.

    An API server that is not told of a resource cannot read it, so no host could change it first.
    """
    path = state.directory / RESOURCES
    stored = state.read_file(path).decode().split() if path.exists() else [*DEFAULT.resources]
    if set(stored) != set(encryption.resources):
        raise ConfigError(
            "encryption.resources cannot change in a cluster that exists",
            hint=f"write resources: [{', '.join(stored)}]",
        )


def check_encryption_keys(keys: tuple[EncryptionKey, ...], encryption: Encryption) -> str:
    """Return what is to be done if another provider writes than cluster.yaml says, or nothing.

    Raises ConfigError if a key is in a key management service that cluster.yaml does not have.
    """
    for key in keys:
        if key.provider == "kms" and (not encryption.kms or encryption.kms.name != key.name):
            raise ConfigError(
                f"encryption.kms: etcd holds Secrets under the plugin {key.name}",
                hint="keep its settings in cluster.yaml until bundler secrets rotate drop",
            )
    wanted, writes = encryption.provider or "", keys[0]
    if writes.provider == (wanted if wanted in BY_STATE else ""):
        return ""
    former, new = writes.provider or "aescbc or secretbox", wanted or "the default"
    return f"{former} still encrypts, and cluster.yaml says {new}: bundler secrets rotate read"


def note_stage(directory: Path) -> Iterator[str]:
    """Yield a line if a rotation is under way."""
    stage = read_stage(directory)
    if stage is not EncryptionStage.SETTLED:
        yield f"secrets rotate is in stage {stage}; bundler secrets rotate shows the next step"


def _read(request: Request) -> Change:
    key = make_key(f"key-{request.now:%Y%m%dT%H%M%SZ}", request.plan.cluster.encryption)
    if key.provider == "kms" and key.name in _by_name(request.state):
        raise ConfigError(
            f"the plugin {key.name} encrypts already", hint="rotate the key in its service"
        )
    if key.name in (_list_archived(request.state) | _by_name(request.state)):
        raise ConfigError(f"a key has the name {key.name} already", hint="try again")
    return Change(
        messages=(f"{key.name}: created; API servers are to read with it",),
        written={NEXT: key.line},
    )


def _write(request: Request) -> Change:
    old, new = ensure_encryption_keys(request.state)
    return Change(
        messages=(
            f"{new.name}: API servers are to write with it, and every Secret is written again",
            f"{old.name}: API servers still read with it",
        ),
        written={WRITES: new.line, PREVIOUS: old.line},
        removed=(NEXT,),
        replaced=(WRITES,),
    )


def _drop(request: Request) -> Change:
    _, old = ensure_encryption_keys(request.state)
    return Change(
        messages=(f"{old.name}: removed; backups from before the rotation need it (archive/)",),
        written={},
        removed=(PREVIOUS,),
        replaced=(PREVIOUS,),
    )


def _abandon(request: Request) -> Change:
    _, new = ensure_encryption_keys(request.state)
    return Change(
        messages=(f"{new.name}: removed; it has written nothing",),
        written={},
        removed=(NEXT,),
        replaced=(NEXT,),
    )


def _recall(request: Request) -> Change:
    archived = _list_archived(request.state)
    name = request.names[0] if len(request.names) == 1 else ""
    if name not in archived:
        raise ConfigError(
            f"no key of the name {name} is in the archive" if name else "name one key",
            hint=f"the archive has {', '.join(sorted(archived)) or 'no other key'}; restore.sh"
            " names the key that a backup needs",
        )
    return Change(
        messages=(f"{name}: API servers are to read with it again",),
        written={PREVIOUS: archived[name].line},
    )


def _list_archived(state: State) -> dict[str, EncryptionKey]:
    """Every archived key by its name, without the one that writes."""
    paths = sorted((state.directory / ARCHIVE).glob(f"*/{WRITES}*"))
    keys = {key.name: key for key in (_load(path, state) for path in paths)}
    current = _by_name(state)
    return {name: key for name, key in keys.items() if name not in current}


def _by_name(state: State) -> dict[str, EncryptionKey]:
    return {key.name: key for key in ensure_encryption_keys(state)}


ENCRYPTION = Rotation(
    command="bundler secrets rotate",
    settled="one key encrypts the Secrets in etcd",
    read_stage=read_stage,
    steps=(
        Step(
            name="read",
            requires=EncryptionStage.SETTLED,
            make_change=_read,
            next_action="install the bundles of this stage on every control plane",
        ),
        Step(
            name="write",
            requires=EncryptionStage.READ,
            make_change=_write,
            next_action="install the bundles of this stage on every control plane;"
            " kube-rotation.service then writes every Secret again",
        ),
        Step(
            name="drop",
            requires=EncryptionStage.WRITE,
            make_change=_drop,
            next_action="install the bundles of this stage on every control plane; this prunes"
            " earlier generations, which hold the former key",
        ),
        Step(
            name="abandon",
            requires=EncryptionStage.READ,
            make_change=_abandon,
            next_action="install the bundles on every control plane that has bundles of stage read",
        ),
        Step(
            name="recall",
            requires=EncryptionStage.SETTLED,
            make_change=_recall,
            next_action="install the bundles on every control plane, then restore the backup",
        ),
    ),
)
"""The rotation of the key that encrypts Secrets in etcd."""


def make_key(name: str, encryption: Encryption) -> EncryptionKey:
    """Make a new key for the provider; with kms it has the name of the plugin."""
    if encryption.provider == "kms" and encryption.kms:
        return EncryptionKey(name=encryption.kms.name, secret="", provider="kms")
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    provider = encryption.provider if encryption.provider in BY_STATE else ""
    return EncryptionKey(name=name, secret=secret, provider=provider or "")


def _load(path: Path, state: State) -> EncryptionKey:
    match = LINE.fullmatch(state.read_file(path).decode(errors="replace").strip())
    if match and match["kms_name"]:
        return EncryptionKey(name=match["kms_name"], secret="", provider="kms")
    secret = (match["secret"] or match["gcm_secret"]) if match else ""
    try:
        size = len(base64.b64decode(secret, validate=True))
    except binascii.Error:
        size = 0
    if not match or size != 32:
        raise PkiError(f"{path}: expected a key's name and 32 bytes in base64", hint=RESTORE)
    provider = "aesgcm" if match["gcm_name"] else ""
    name = match["name"] or match["gcm_name"] or FIRST
    return EncryptionKey(name=name, secret=secret, provider=provider)
