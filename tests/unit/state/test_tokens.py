"""Bootstrap tokens of the state directory: one for each node, with a generation and an end."""

import json
import stat
from datetime import UTC, datetime, timedelta

import pytest

from bundler.errors import ConfigError, PkiError
from bundler.state.directory import open_state
from bundler.state.tokens import (
    FORMER,
    TOKEN,
    ensure_tokens,
    make_group,
    renew_tokens,
)

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
DAYS = 30
OLD = "abcdef.0123456789abcdef"


@pytest.fixture
def state(tmp_path):
    with open_state(tmp_path / "state", create=True) as opened:
        yield opened


def ensure(state, *nodes, now=NOW, days=DAYS):
    return ensure_tokens(state, nodes, now, days)


def renew(state, *nodes, now=NOW, dry_run=False):
    return renew_tokens(state, nodes, now, DAYS, dry_run=dry_run)


def read_files(state):
    return {path.name: path.read_bytes() for path in (state.directory / "tokens").iterdir()}


def test_each_node_has_its_own_token_which_is_created_once(state):
    first = ensure(state, "worker1", "worker2").current
    assert len({token.identifier for token in first.values()}) == 2
    assert all(TOKEN.fullmatch(token.text) for token in first.values())
    second = ensure(state, "worker1", "worker2", "worker3").current
    assert list(second) == ["worker1", "worker2", "worker3"]
    assert {name: second[name] for name in first} == first
    assert stat.S_IMODE((state.directory / "tokens" / "worker1").stat().st_mode) == 0o600


def test_a_token_ends_after_the_days_from_its_creation(state):
    token = ensure(state, "worker1").current["worker1"]
    assert token.expires == datetime(2026, 6, 3, 3, 2, tzinfo=UTC)
    assert token.generation == 1
    later = NOW + timedelta(days=DAYS, seconds=-2)
    before = read_files(state)
    assert ensure(state, "worker1", now=later).current["worker1"] == token
    assert read_files(state) == before


def test_a_token_that_has_ended_is_replaced_by_one_of_the_same_generation(state):
    old = ensure(state, "worker1", "worker2").current["worker1"]
    made = ensure(state, "worker1", now=NOW + timedelta(days=DAYS))
    new = made.current["worker1"]
    assert new.generation == old.generation == 1
    assert new.identifier != old.identifier
    assert new.expires == old.expires + timedelta(days=DAYS)
    assert old.identifier in made.revoked
    assert "have ended, of worker1" in made.notes[0]


def test_fewer_days_shorten_the_tokens_that_exist(state):
    old = ensure(state, "worker1").current["worker1"]
    assert ensure(state, "worker1", days=7).current["worker1"].expires < old.expires
    later = NOW + timedelta(days=7)
    assert ensure(state, "worker1", days=7, now=later).current["worker1"].text != old.text


def test_a_token_of_bundler_0_1_has_no_end_and_is_replaced(state):
    state.make_directory(state.directory / "tokens")
    state.write_file(state.directory / "tokens" / "worker1", f"{OLD}\n".encode())
    made = ensure(state, "worker1")
    assert made.current["worker1"].generation == 1
    assert made.current["worker1"].text != OLD
    assert made.revoked == ("abcdef",)
    assert ensure(state, "worker1").current == made.current


def test_tokens_of_removed_nodes_are_revoked(state):
    tokens = ensure(state, "worker1", "worker2", "worker3").current
    made = ensure(state, "worker2")
    assert made.revoked == (tokens["worker1"].identifier, tokens["worker3"].identifier)
    assert made.removed == {"worker1": 1, "worker3": 1}
    assert ensure(state, "worker2") == made


def test_a_node_that_is_added_again_has_a_token_of_the_next_generation(state):
    old = ensure(state, "worker1").current["worker1"]
    ensure(state)
    made = ensure(state, "worker1")
    assert made.current["worker1"].generation == 2
    assert made.removed == {}
    assert made.revoked == (old.identifier,)


def test_renewed_tokens_have_the_next_generation_and_revoke_the_former_ones(state):
    old = ensure(state, "worker1", "worker2").current
    later = NOW + timedelta(days=3)
    new = renew(state, "worker1", now=later)
    assert list(new) == ["worker1"]
    assert new["worker1"].generation == 2
    assert new["worker1"].expires == old["worker1"].expires + timedelta(days=3)
    made = ensure(state, "worker1", "worker2", now=later)
    assert made.current == {"worker1": new["worker1"], "worker2": old["worker2"]}
    assert made.revoked == (old["worker1"].identifier,)


def test_a_dry_run_of_a_renewal_changes_nothing(state):
    ensure(state, "worker1")
    before = read_files(state)
    assert renew(state, "worker1", dry_run=True)["worker1"].generation == 2
    assert read_files(state) == before


def test_a_node_without_a_token_is_not_renewed(state):
    ensure(state, "worker1")
    before = read_files(state)
    with pytest.raises(ConfigError, match="worker2, worker3: no bootstrap token yet"):
        renew(state, "worker1", "worker2", "worker3")
    assert read_files(state) == before


def test_the_last_former_tokens_stay_revoked(state):
    ensure(state, "worker1")
    former = [renew(state, "worker1")["worker1"].identifier for _ in range(FORMER + 2)]
    assert ensure(state, "worker1").revoked == tuple(former[:-1][-FORMER:])


@pytest.mark.parametrize(
    ("node", "group"),
    [
        ("worker1", "system:bootstrappers:worker1"),
        ("a.b-c.example", "system:bootstrappers:a:b-c:example"),
    ],
)
def test_the_group_of_a_node_has_only_characters_that_kubernetes_allows(node, group):
    assert make_group(node) == group


GOOD = {"token": OLD, "generation": 1, "created": "2026-05-04T03:02:00+00:00", "former": []}
DAMAGED = {
    "no token": "secret-but-wrong",
    "no JSON": "{",
    "a list": "[]",
    "no generation": json.dumps({key: GOOD[key] for key in GOOD if key != "generation"}),
    "generation 0": json.dumps(GOOD | {"generation": 0}),
    "a generation that is true": json.dumps(GOOD | {"generation": True}),
    "a short token": json.dumps(GOOD | {"token": OLD[:-1]}),
    "a token that is a number": json.dumps(GOOD | {"token": 5}),
    "no creation": json.dumps(GOOD | {"created": None}),
    "a creation without a zone": json.dumps(GOOD | {"created": "2026-05-04T03:02:00"}),
    "a creation without an end": json.dumps(GOOD | {"created": "9999-12-31T00:00:00+00:00"}),
    "former tokens": json.dumps(GOOD | {"former": [OLD]}),
    "deep nesting": "[" * 100_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_token_is_reported_without_its_value_and_kept(state, text):
    ensure(state, "worker1")
    path = state.directory / "tokens" / "worker1"
    path.write_text(text)
    with pytest.raises(PkiError, match="tokens/worker1: expected a bootstrap token") as caught:
        ensure(state, "worker1")
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"
    assert OLD[7:] not in f"{caught.value.message}{caught.value.hint}"
    assert path.read_text() == text


def test_a_token_copied_to_another_node_is_refused(state):
    ensure(state, "worker1")
    directory = state.directory / "tokens"
    state.write_file(directory / "worker2", (directory / "worker1").read_bytes())
    with pytest.raises(PkiError, match="worker2: has the same token as worker1"):
        ensure(state, "worker1", "worker2")


def test_tokens_do_not_appear_when_they_are_printed(state):
    made = ensure(state, "worker1")
    assert made.current["worker1"].secret not in f"{made} {made.current}"
