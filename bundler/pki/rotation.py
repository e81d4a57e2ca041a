"""Replace the CAs and the service account key in stages: nothing meets what it does not trust.

    trust     create new CAs and a new key; hosts trust both, the old ones sign    pki/next/
    issue     the new ones sign, and every certificate is issued again             pki/previous/
    drop      hosts trust the new ones only
    abandon   back from `trust`: remove the new ones, which have signed nothing

install.sh refuses the bundle of a stage until every other host has the stage before it: it looks at
TLS handshakes for the CAs (coordination/rollout-order.sh), and at the keys that API servers have
loaded for the service account key (coordination/keys.sh in templates/).
"""

from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.ca_origins import CaOrigin, load_ca
from bundler.pki.key_pairs import StoredPair, load_pair
from bundler.pki.leaf_certificates import load_leaves
from bundler.pki.rotation_stages import (
    NEXT,
    PREVIOUS,
    SERVICE_ACCOUNT,
    RotationStage,
    read_stage,
)
from bundler.pki.service_account import make_key_files
from bundler.state.directory import State
from bundler.state.stages import Change, Request, Rotation, Step


def _check_rotatable(request: Request) -> None:
    """Raise PkiError for external CAs: bundler replaces only CAs that it made."""
    for name in _choose_names(request):
        if name == SERVICE_ACCOUNT:
            continue
        directory = request.state.directory / "pki" / name
        if not directory.is_dir():
            raise PkiError(f"{directory}: missing", hint=declarations.BUILD_FIRST)
        found = load_ca(directory, request.state)
        if found.origin is not CaOrigin.MADE:
            raise PkiError(
                f"{name} is an external CA: bundler cannot rotate it",
                hint="import a certificate that was renewed for the same key and name:"
                " docs/guides/external-ca.md; --only service-account rotates the key of tokens",
            )


def _choose_names(request: Request) -> tuple[str, ...]:
    """What is rotated: by the files of the stage, or before the first step as the user says."""
    found = _list_in(request.state, NEXT) or _list_in(request.state, PREVIOUS)
    every = (*declarations.list_ca_names(request.plan), SERVICE_ACCOUNT)
    return tuple(name for name in every if name in (found or request.names or every))


def _list_in(state: State, stage: str) -> tuple[str, ...]:
    places = {path.parent.name for path in (state.directory / "pki" / stage).glob("*/*.pem")}
    return tuple(sorted(places))


def _trust(request: Request) -> Change:
    rotation_id = f"{request.now:%Y%m%dT%H%M%SZ}"
    days = request.plan.cluster.pki.ca_days
    written: dict[str, bytes] = {}
    messages = []
    for name in _choose_names(request):
        if name == SERVICE_ACCOUNT:
            files = make_key_files(request.plan)
            messages.append(f"{name}: created a new key")
        else:
            key = issuing.make_key(request.plan.cluster.pki.key)
            certificate = issuing.issue_ca(
                name, request.plan.name, key, request.now, days, rotation_id=rotation_id
            )
            files = {
                "cert.pem": issuing.encode_certificate(certificate),
                "key.pem": issuing.encode_private_key(key),
            }
            messages.append(
                f"{name}: created a new CA ({rotation_id}), ends on"
                f" {certificate.not_valid_after_utc:%Y-%m-%d}"
            )
        written |= {f"pki/{NEXT}/{name}/{file}": content for file, content in files.items()}
    return Change(messages=tuple(messages), written=written)


def _issue(request: Request) -> Change:
    state, names = request.state, _choose_names(request)
    root = state.directory / "pki"
    written: dict[str, bytes] = {}
    removed: list[str] = []
    for name in names:
        public = "pub.pem" if name == SERVICE_ACCOUNT else "cert.pem"
        written[f"pki/{PREVIOUS}/{name}/{public}"] = state.read_file(root / name / public)
        for file in ("key.pem", public):
            written[f"pki/{name}/{file}"] = state.read_file(root / NEXT / name / file)
            removed.append(f"pki/{NEXT}/{name}/{file}")
    messages = [_explain_issue(name) for name in names]
    replaced = [f"pki/{name}" for name in names]
    issuers = {
        name: load_pair(root / NEXT / name, state) for name in names if name != SERVICE_ACCOUNT
    }
    if issuers:
        leaves = _reissue(request, issuers)
        written |= leaves
        places = {path.rpartition("/")[0] for path in leaves}
        replaced += sorted(place for place in places if (state.directory / place).is_dir())
        messages.append(f"issued {len(places)} certificates again, with new keys")
    return Change(
        messages=tuple(messages), written=written, removed=tuple(removed), replaced=tuple(replaced)
    )


def _explain_issue(name: str) -> str:
    if name == SERVICE_ACCOUNT:
        return f"{name}: the new key signs tokens, those of the previous one are still accepted"
    return f"{name}: the new CA signs, the previous one is still trusted"


def _reissue(request: Request, issuers: dict[str, StoredPair]) -> dict[str, bytes]:
    """Issue every leaf of these CAs again; returns the files by path.

    A CA that was added after the rotation began is not among them.
    """
    plan, written = request.plan, {}
    for leaf in load_leaves(request.state, plan):
        ca = declarations.get_ca_name(leaf.spec, plan)
        if ca not in issuers:
            continue
        issuer = issuers[ca].issuer
        place = leaf.directory.relative_to(request.state.directory).as_posix()
        key = issuing.make_key(plan.cluster.pki.key)
        certificate = issuing.issue(
            leaf.content, key.public_key(), issuer, request.now, plan.cluster.pki.days
        )
        written[f"{place}/cert.pem"] = issuing.encode_certificate(certificate)
        written[f"{place}/key.pem"] = issuing.encode_private_key(key)
    return written


def _drop(request: Request) -> Change:
    return _remove(request, PREVIOUS, "is no longer trusted")


def _abandon(request: Request) -> Change:
    return _remove(request, NEXT, "is removed; it has signed nothing")


def _remove(request: Request, stage: str, why: str) -> Change:
    directory = request.state.directory
    names = _list_in(request.state, stage)
    files = [path for name in names for path in (directory / "pki" / stage / name).glob("*.pem")]
    return Change(
        messages=tuple(f"{_describe(name, stage)} {why}" for name in names),
        written={},
        removed=tuple(sorted(path.relative_to(directory).as_posix() for path in files)),
        replaced=tuple(f"pki/{stage}/{name}" for name in names),
    )


def _describe(name: str, stage: str) -> str:
    kind = "key" if name == SERVICE_ACCOUNT else "CA"
    return f"{name}: the {'new' if stage == NEXT else 'previous'} {kind}"


CERTIFICATES = Rotation(
    command="bundler certs rotate",
    settled="one set of CAs signs and is trusted",
    read_stage=read_stage,
    check=_check_rotatable,
    steps=(
        Step(
            name="trust",
            requires=RotationStage.SETTLED,
            make_change=_trust,
            next_action="install the bundles of this stage on every host, in any order; then"
            " restart the pods that use the API server, because they read its CA only when they"
            " start",
        ),
        Step(
            name="issue",
            requires=RotationStage.TRUST,
            make_change=_issue,
            next_action="install the bundles of this stage on every host, control planes first;"
            " kubelets then get new certificates. Then run"
            " /opt/k8s/libexec/renew-service-accounts.sh on a control plane",
        ),
        Step(
            name="drop",
            requires=RotationStage.ISSUE,
            make_change=_drop,
            next_action="install the bundles of this stage on every host, in any order; this prunes"
            " earlier generations, which hold the previous CAs and keys",
        ),
        Step(
            name="abandon",
            requires=RotationStage.TRUST,
            make_change=_abandon,
            next_action="install the bundles on every host that has bundles of stage trust",
        ),
    ),
)
"""The rotation of the CAs and of the service account key."""
