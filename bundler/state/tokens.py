"""The bootstrap tokens of workers. A kubelet joins with its node's token once, before it ends.

    tokens/<node>        {"token": …, "generation": 2, "created": …, "former": [ids]}

A node that joined needs a token of a higher generation to join again (`bundler tokens renew`). A
token that ended unused is replaced by one of the same generation. A removed node has no token:
{"token": null, …}; if it is added again, its generation is the next one. Files of bundler 0.1 hold
only the token, of generation 1 and without an end, and are replaced.
"""

import json
import re
import secrets
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bundler.errors import ConfigError, PkiError
from bundler.state.directory import State
from bundler.state.transaction import write_transaction

TOKENS = "tokens"
TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
IDENTIFIER = re.compile(r"[a-z0-9]{6}")
ALPHABET = string.ascii_lowercase + string.digits
FORMER = 12
"""How many ids of replaced tokens are kept for each node, so that hosts delete those tokens."""

DAMAGED_HINT = (
    "restore it from your backup of the state directory, or delete the file if the node has never"
    " joined: the next build creates a new token"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The token with which a node's kubelet joins."""

    identifier: str
    secret: str = field(repr=False)
    generation: int
    expires: datetime
    group: str  # of the user that the API server makes of it

    @property
    def text(self) -> str:
        """The token as a kubeconfig holds it."""
        return f"{self.identifier}.{self.secret}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Every token of the cluster, and those that hosts revoke."""

    current: Mapping[str, Token] = field(repr=False)  # by node
    revoked: tuple[str, ...]  # identifiers
    removed: Mapping[str, int]  # node that is not in the cluster any more → its last generation
    notes: tuple[str, ...]  # what was replaced, one line each


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """The file of a node."""

    token: str | None = field(repr=False)  # None: the node was removed
    generation: int
    created: datetime | None  # None: by bundler 0.1
    former: tuple[str, ...] = ()  # identifiers, the oldest first


def make_group(node: str) -> str:
    """The group of a node's token; Kubernetes allows no dot in it, and node names have no colon."""
    return f"system:bootstrappers:{node.replace('.', ':')}"


def ensure_tokens(state: State, nodes: Iterable[str], now: datetime, days: int) -> Tokens:
    """Load the token of each node; create those that are missing, replace those that have ended.

    Tokens of other nodes are revoked. A token is valid for `days` from its creation.
    """
    wanted, lifetime = tuple(nodes), timedelta(days=days)
    stored = _read_all(state)
    taken = _list_identifiers(stored)
    ended = [name for name in wanted if name in stored and _has_ended(stored[name], now, lifetime)]
    changed = {
        name: _revoke(each) for name, each in stored.items() if name not in wanted and each.token
    }
    for name in wanted:
        if name in ended:
            changed[name] = _replace(stored[name], stored[name].generation, now, taken)
        elif name not in stored:
            changed[name] = _create(1, now, taken)
        elif not stored[name].token:
            changed[name] = _replace(stored[name], stored[name].generation + 1, now, taken)
    state.make_directory(state.directory / TOKENS)
    for name, each in changed.items():
        state.write_file(state.directory / TOKENS / name, _encode(each))
    stored |= changed
    return Tokens(
        current={name: _make_token(name, stored[name], lifetime) for name in wanted},
        revoked=tuple(each for name in sorted(stored) for each in stored[name].former),
        removed={name: each.generation for name, each in sorted(stored.items()) if not each.token},
        notes=(_describe_ended(ended),) if ended else (),
    )


def list_nodes_with_tokens(state: State) -> tuple[str, ...]:
    """The nodes that have a token, sorted."""
    return tuple(sorted(name for name, each in _read_all(state).items() if each.token))


def renew_tokens(
    state: State, names: Collection[str], now: datetime, days: int, *, dry_run: bool = False
) -> dict[str, Token]:
    """Replace the tokens of these nodes, in one transaction; returns the new ones.

    Raises ConfigError for a node without a token. With `dry_run` nothing is written.
    """
    stored = _read_all(state)
    missing = [name for name in names if name not in stored or not stored[name].token]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: no bootstrap token yet",
            hint="the next bundler build creates it; there is nothing to renew",
        )
    taken = _list_identifiers(stored)
    changed = {
        name: _replace(stored[name], stored[name].generation + 1, now, taken) for name in names
    }
    if not dry_run:
        files = {f"{TOKENS}/{name}": _encode(each) for name, each in changed.items()}
        write_transaction(state.directory, files)
    lifetime = timedelta(days=days)
    return {name: _make_token(name, each, lifetime) for name, each in changed.items()}


def _has_ended(stored: StoredToken, now: datetime, lifetime: timedelta) -> bool:
    """Whether a token has ended; one of bundler 0.1, which has no end, counts as ended."""
    return bool(stored.token) and (not stored.created or stored.created + lifetime <= now)


def _describe_ended(names: list[str]) -> str:
    return (
        f"replaced bootstrap tokens that have ended, of {', '.join(names)}: a node that has not"
        " joined yet needs its new bundle, after one of a control plane"
    )


def _create(generation: int, now: datetime, taken: set[str]) -> StoredToken:
    while True:
        text = "".join(secrets.choice(ALPHABET) for _ in range(22))
        if text[:6] not in taken:
            break
    taken.add(text[:6])
    created = now.replace(second=0, microsecond=0)
    return StoredToken(token=f"{text[:6]}.{text[6:]}", generation=generation, created=created)


def _replace(stored: StoredToken, generation: int, now: datetime, taken: set[str]) -> StoredToken:
    return replace(_create(generation, now, taken), former=_revoke(stored).former)


def _revoke(stored: StoredToken) -> StoredToken:
    former = (*stored.former, *([stored.token[:6]] if stored.token else ()))[-FORMER:]
    return replace(stored, token=None, created=None, former=former)


def _make_token(node: str, stored: StoredToken, lifetime: timedelta) -> Token:
    if not stored.token or not stored.created:
        raise TypeError(f"the token of {node} is not made yet")
    identifier, _, secret = stored.token.partition(".")
    return Token(
        identifier=identifier,
        secret=secret,
        generation=stored.generation,
        expires=stored.created + lifetime,
        group=make_group(node),
    )


def _list_identifiers(stored: Mapping[str, StoredToken]) -> set[str]:
    return {
        identifier
        for each in stored.values()
        for identifier in (*each.former, *([each.token[:6]] if each.token else ()))
    }


def _read_all(state: State) -> dict[str, StoredToken]:
    """Read the file of each node; raises PkiError if two nodes have the same token."""
    directory = state.directory / TOKENS
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    stored = {path.name: _read(path, state) for path in paths if not path.name.startswith(".")}
    owners: dict[str, str] = {}
    for name, each in stored.items():
        other = owners.setdefault(each.token[:6], name) if each.token else name
        if other != name:
            raise PkiError(
                f"{directory / name}: has the same token as {other}, but each node needs its own",
                hint="delete the copy; the next build creates a new token",
            )
    return stored


def _read(path: Path, state: State) -> StoredToken:
    text = state.read_file(path).decode(errors="replace").strip()
    if TOKEN.fullmatch(text):
        return StoredToken(token=text, generation=1, created=None)
    try:
        return _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PkiError(
            f"{path}: expected a bootstrap token and its generation", hint=DAMAGED_HINT
        ) from error


def _parse(found: Any) -> StoredToken:
    token, generation, created, former = (
        found[key] for key in ("token", "generation", "created", "former")
    )
    if type(generation) is not int or generation < 1:
        raise ValueError("generation")
    if (token is None) != (created is None) or (token and not TOKEN.fullmatch(token)):
        raise ValueError("token")
    if not all(IDENTIFIER.fullmatch(each) for each in former):
        raise ValueError("former")
    moment = datetime.fromisoformat(created) if created else None
    if moment and (not moment.tzinfo or moment.year > 9000):
        raise ValueError("created")
    return StoredToken(token=token, generation=generation, created=moment, former=tuple(former))


def _encode(stored: StoredToken) -> bytes:
    document = {
        "token": stored.token,
        "generation": stored.generation,
        "created": stored.created.isoformat() if stored.created else None,
        "former": list(stored.former),
    }
    return json.dumps(document, indent=2).encode() + b"\n"
