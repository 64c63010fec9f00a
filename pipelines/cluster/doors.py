"""Who is let into a cluster that somebody else started: anybody, or those with its token."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from typing import Any

from mats_core.errors import SettingsError, first_line
from mats_core.storage.uris import public_uri
from pipelines.cluster.own_ray import environment, read_authentication
from pipelines.cluster.session import TOKEN_REMEDY, check_answers

CLOSE_IT = "start all its nodes with RAY_AUTH_MODE=token and one token, and close its ports to other networks"
_REFUSED = (401, 403)


def takes_anybody(address: str) -> bool:
    """Whether the cluster at `address` serves a client that has no token: the URL of its dashboard, or host:port.

    Raises SettingsError where no Ray answers there.
    """
    if address.startswith(("http://", "https://")):
        return _asked(address, {}) not in _REFUSED
    check_answers(address)
    from ray import _raylet
    from ray.exceptions import AuthenticationError

    try:
        with environment({"RAY_AUTH_MODE": "disabled"}):
            read_authentication()
            raylet: Any = _raylet  # its declarations lack this name
            raylet.GcsClient(address=address).internal_kv_keys(b"session", b"session", timeout=10)
        return True
    except AuthenticationError:
        return False
    except Exception as error:
        problem = f"no Ray answers at {address} ({first_line(error)})"
        raise SettingsError("address", problem, "give host:port of its head, or its dashboard's URL") from None
    finally:
        read_authentication()


def authenticate(dashboard: str) -> bool:
    """Have Ray send its token where the cluster at this URL wants one; returns whether it takes anybody.

    The token is that of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. A cluster that asks for none gets
    none. Raises SettingsError where nobody answers, and where the cluster refuses the token.
    """
    if takes_anybody(dashboard):
        return True
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    read_authentication()
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

    token = get_auth_headers_if_auth_enabled({})
    if not token or _asked(dashboard, token) in _REFUSED:
        problem = f"the cluster at {public_uri(dashboard)} wants {'another' if token else 'a'} token"
        raise SettingsError("address", problem, TOKEN_REMEDY)
    return False


def _asked(dashboard: str, headers: dict[str, str]) -> int:
    """The status of what the dashboard answers when it is asked for its jobs."""
    request = urllib.request.Request(f"{dashboard.rstrip('/')}/api/jobs/", headers=headers)
    try:  # note: Ray's client tries for half a minute before it says that nobody answers
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:
        problem = f"no Ray dashboard answers at {public_uri(dashboard)} ({error})"
        raise SettingsError("address", problem, "start it, or name another one") from None
