"""Registry logins of the user, as `docker login` stores them.

Source: https://docs.docker.com/reference/cli/docker/login/ (config.json, `auths`);
https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md (namespaces)
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bundler.errors import ConfigError
from bundler.formats.image_references import DOCKER_HUB, HOSTS
from bundler.formats.safe_parse import read_json

DOCKER_HUB_LOGIN = "index.docker.io"
"""The key of the Docker Hub login in config.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name with a password, or a refresh token."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


Logins = Mapping[str, Login]
"""HOST[:PORT], or HOST[:PORT]/NAMESPACE → login."""


def find_login(logins: Logins, host: str, repository: str) -> Login | None:
    """The login of the longest namespace that holds the repository: HOST/A/B, HOST/A, HOST."""
    parts = [host, *repository.split("/")]
    keys = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((logins[key] for key in keys if key in logins), None)


def login_file(environment: Mapping[str, str], home: Path) -> Path:
    """$REGISTRY_AUTH_FILE, else config.json in $DOCKER_CONFIG, else ~/.docker/config.json."""
    if chosen := environment.get("REGISTRY_AUTH_FILE"):
        return Path(chosen)
    return Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def read_logins(path: Path) -> Logins:
    """Every login in the file; ConfigError, without the file's content, if it is invalid."""
    try:
        document: dict[str, Any] = read_json(path.read_bytes())
        return {
            _namespace_of(name): login
            for name, entry in (document.get("auths") or {}).items()
            if (login := _read_login(entry))
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ValueError, AttributeError, TypeError, binascii.Error):
        raise ConfigError(
            f"{path}: not a docker configuration file with logins",
            hint="log in again (docker login), or set REGISTRY_AUTH_FILE to another file",
        ) from None


def _read_login(entry: Mapping[str, str]) -> Login | None:
    """The login of an entry; None if a credential helper has the secret."""
    decoded = base64.b64decode(entry.get("auth") or "", validate=True).decode()
    user, _, password = decoded.rstrip("\0").partition(":")
    user, password = entry.get("username") or user, entry.get("password") or password
    token = entry.get("identitytoken") or ""
    return Login(user=user, password=password, refresh_token=token) if password or token else None


def _namespace_of(name: str) -> str:
    """The host, or HOST/NAMESPACE, in a key: `https://index.docker.io/v1/`, `harbor.example/team`.

    A key with a scheme is of a host: its path is that of the API.
    """
    parts = urlsplit(name if "://" in name else f"//{name}")
    host = HOSTS[DOCKER_HUB] if parts.netloc in {DOCKER_HUB_LOGIN, DOCKER_HUB} else parts.netloc
    namespace = parts.path.strip("/")
    is_of_host = parts.scheme or namespace in {"", "v1", "v2"}
    return host if is_of_host else f"{host}/{namespace}"
