"""The user's options for registries: mirrors, logins, registries without TLS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bundler.sources.images.credentials import Logins


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """How the builder reaches registries; nothing of it is in a bundle."""

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # registry → URLs
    insecure: frozenset[str] = frozenset()  # registries without TLS
    logins: Callable[[], Logins] = field(default=dict, repr=False)  # called when a login is needed
