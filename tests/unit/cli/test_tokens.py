"""bundler tokens renew."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.command import run_bundler
from support.json_shapes import read_shape

from bundler.errors import ConfigError, PkiError
from bundler.state.directory import open_state
from bundler.state.tokens import Tokens, ensure_tokens

PINS = Path(__file__).parents[2] / "golden" / "pins.yaml"
WORKERS = ("worker1", "worker2")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(description: Path) -> Path:
    """The example's directory with a state that has only tokens."""
    with open_state(description.parent / "lab.state", create=True) as state:
        state.make_directory(state.directory / "pki")
        ensure_tokens(state, WORKERS, datetime.now(UTC), 30)
    return description.parent


def read_tokens(site: Path) -> Tokens:
    with open_state(site / "lab.state") as state:
        return ensure_tokens(state, WORKERS, datetime.now(UTC), 30)


@pytest.fixture
def renew(site: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_bundler(
            ["tokens", "renew", *arguments, "--pins", str(PINS)],
            cwd=site, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_only_the_named_token_is_renewed_and_no_token_is_printed(renew: Run, site: Path) -> None:
    before = read_tokens(site)
    done = renew("worker2")
    assert done.returncode == 0, done.stderr
    after = read_tokens(site)
    assert after.current["worker1"] == before.current["worker1"]
    assert after.current["worker2"].generation == 2
    assert after.revoked == (before.current["worker2"].identifier,)
    assert done.stdout.startswith("worker2: generation 2, ends on ")
    assert "install the bundle of one control plane" in done.stderr
    for tokens in (before, after):
        assert not any(t.secret in done.stdout + done.stderr for t in tokens.current.values())


def test_all_tokens_are_renewed_at_once_as_json(renew: Run, site: Path) -> None:
    done = renew("--all", "--json")
    assert [
        (row["node"], row["generation"]) for row in read_shape(done.stdout, "tokens")["tokens"]
    ] == [
        ("worker1", 2),
        ("worker2", 2),
    ]
    assert {token.generation for token in read_tokens(site).current.values()} == {2}


def test_a_dry_run_changes_nothing(renew: Run, site: Path) -> None:
    before = read_tokens(site)
    done = renew("--all", "--dry-run")
    assert "2 tokens would be renewed; nothing was changed" in done.stderr
    assert read_tokens(site) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either names of workers, or --all"),
        (("worker1", "--all"), "give either names of workers, or --all"),
        (("worker1", "worker3"), "did you mean worker"),
        (("master1",), "master1: not a worker of lab"),
        (("worker1", "-o", "renewal"), "--since and -o must be given together"),
    ],
)
def test_wrong_arguments_are_refused_and_change_nothing(
    renew: Run, site: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = read_tokens(site)
    done = renew(*arguments)
    assert done.returncode == ConfigError.exit_code
    assert message in done.stderr
    assert read_tokens(site) == before


def test_without_a_state_nothing_is_created(renew: Run, site: Path) -> None:
    done = renew("--all", "--state", "other.state")
    assert done.returncode == PkiError.exit_code
    assert "not a state directory" in done.stderr
    assert not (site / "other.state").exists()


def test_a_worker_that_no_build_has_seen_has_nothing_to_renew(renew: Run, site: Path) -> None:
    (site / "lab.state/tokens/worker2").unlink()
    before = read_tokens_of(site)
    done = renew("worker1", "worker2")
    assert done.returncode == ConfigError.exit_code
    assert "worker2: no bootstrap token yet" in done.stderr
    assert read_tokens_of(site) == before
    assert renew("--all").stdout.startswith("worker1: generation 2")
    assert set(read_tokens_of(site)) == {"worker1"}


def read_tokens_of(site: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (site / "lab.state/tokens").iterdir()}
