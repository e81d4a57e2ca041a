"""Keys of other providers than aescbc and secretbox: made, kept, rotated and rendered."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.pki_plans import NOW, make_plan

from bundler.cluster.plan import ClusterPlan
from bundler.cluster.schema_encryption import Encryption
from bundler.errors import ConfigError
from bundler.render.policy import group_keys
from bundler.state.directory import open_state
from bundler.state.encryption import (
    ENCRYPTION,
    EncryptionKey,
    check_encryption_keys,
    check_resources,
    ensure_encryption_keys,
)
from bundler.state.stages import take_step

KMS = {"name": "vault"}
PLAN = make_plan()


def plan_with(**encryption: object) -> ClusterPlan:
    cluster = PLAN.cluster.model_copy(update={"encryption": Encryption.model_validate(encryption)})
    return replace(PLAN, cluster=cluster)


def make_state(directory: Path, plan: ClusterPlan) -> Path:
    with open_state(directory / "state", create=True) as state:
        ensure_encryption_keys(state, plan.cluster.encryption)
        state.make_directory(state.directory / "pki")
    return directory / "state"


def load(directory: Path) -> tuple[EncryptionKey, ...]:
    with open_state(directory) as state:
        return ensure_encryption_keys(state)


def group(plan: ClusterPlan, directory: Path) -> dict[str, list[str]]:
    groups = group_keys(plan.cluster, load(directory))
    return {provider: [key.name for key in keys] for provider, keys in groups.items()}


@pytest.mark.parametrize("provider", [None, "aescbc", "secretbox"])
def test_two_providers_share_a_key_whose_file_is_as_it_was(
    tmp_path: Path, provider: str | None
) -> None:
    plan = plan_with(provider=provider)
    directory = make_state(tmp_path, plan)
    name, secret = (directory / "encryption-key").read_text().split()
    assert (name, len(secret)) == ("key1", 44)
    order = ["aescbc", "secretbox"] if provider == "aescbc" else ["secretbox", "aescbc"]
    assert list(group(plan, directory)) == order


def test_a_new_cluster_begins_with_its_provider(tmp_path: Path) -> None:
    plan = plan_with(provider="aesgcm")
    directory = make_state(tmp_path, plan)
    (key,) = load(directory)
    assert (key.name, key.provider) == ("key1", "aesgcm")
    assert (directory / "encryption-key").read_text() == f"key1 {key.secret} aesgcm\n"
    assert group(plan, directory) == {"aesgcm": ["key1"]}


def test_a_new_cluster_with_a_key_management_service_has_no_key(tmp_path: Path) -> None:
    plan = plan_with(provider="kms", kms=KMS)
    directory = make_state(tmp_path, plan)
    assert (directory / "encryption-key").read_text() == "vault - kms\n"
    assert group(plan, directory) == {"kms": ["vault"]}
    assert load(directory) == (EncryptionKey(name="vault", secret="", provider="kms"),)


def test_a_rotation_leads_to_a_key_management_service_and_back(tmp_path: Path) -> None:
    directory = make_state(tmp_path, PLAN)
    plan = plan_with(provider="kms", kms=KMS)

    def step(name: str, day: int) -> dict[str, list[str]]:
        take_step(ENCRYPTION, directory, plan, name, NOW + timedelta(days=day))
        return group(plan, directory)

    old = {"secretbox": ["key1"], "aescbc": ["key1"]}
    assert group(plan, directory) == old, "cluster.yaml alone changes nothing"
    assert list(step("read", 1).items()) == [*old.items(), ("kms", ["vault"])]
    assert list(step("write", 2).items()) == [("kms", ["vault"]), *old.items()]
    assert step("drop", 3) == {"kms": ["vault"]}
    with pytest.raises(ConfigError, match="the plugin vault encrypts already"):
        step("read", 4)
    plan = plan_with(provider="aesgcm", kms=KMS)
    step("read", 5)
    name = "key-" + f"{NOW + timedelta(days=5):%Y%m%dT%H%M%SZ}"
    assert list(step("write", 6).items()) == [("aesgcm", [name]), ("kms", ["vault"])]
    assert step("drop", 7) == {"aesgcm": [name]}


def test_what_is_encrypted_is_chosen_once(tmp_path: Path) -> None:
    both = Encryption.model_validate({"resources": ["secrets", "configmaps"]})
    directory = make_state(tmp_path, plan_with(resources=both.resources))
    with open_state(directory) as state:
        check_resources(state, both)
        with pytest.raises(ConfigError, match="cannot change in a cluster that exists") as caught:
            check_resources(state, Encryption())
        assert caught.value.hint == "write resources: [secrets, configmaps]"
    (tmp_path / "other").mkdir()
    directory = make_state(tmp_path / "other", PLAN)
    assert not (directory / "encryption-resources").exists()
    with open_state(directory) as state:
        check_resources(state, Encryption())
        with pytest.raises(ConfigError, match="cannot change"):
            check_resources(state, both)


def test_what_cluster_yaml_and_the_state_say_is_compared() -> None:
    shared = (EncryptionKey(name="key1", secret="x"),)
    service = (EncryptionKey(name="vault", secret="", provider="kms"),)
    said = check_encryption_keys(shared, Encryption(provider="aesgcm"))
    assert (
        said
        == "aescbc or secretbox still encrypts, and cluster.yaml says aesgcm: bundler secrets rotate read"
    )
    for provider in (None, "aescbc", "secretbox"):
        assert (
            check_encryption_keys(shared, Encryption.model_validate({"provider": provider})) == ""
        )
    settings = Encryption.model_validate({"provider": "kms", "kms": KMS})
    assert check_encryption_keys(service, settings) == ""
    back = Encryption.model_validate({"provider": "secretbox", "kms": KMS})
    assert "kms still encrypts, and cluster.yaml says secretbox" in check_encryption_keys(
        service, back
    )
    with pytest.raises(ConfigError, match="etcd holds Secrets under the plugin vault"):
        check_encryption_keys(service, Encryption(provider="secretbox"))


@pytest.mark.parametrize(
    "text", ["vault - other", "vault x kms", "key1 short aesgcm", "Vault - kms", " - kms"]
)
def test_a_damaged_line_is_refused(tmp_path: Path, text: str) -> None:
    directory = make_state(tmp_path, PLAN)
    (directory / "encryption-key").write_text(f"{text}\n")
    with pytest.raises(Exception, match="expected a key's name and 32 bytes in base64"):
        load(directory)
