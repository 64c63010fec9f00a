"""Which client talks to which store, and how: endpoint, region, profile, anonymous and requester-pays access.

Credentials come from where each store's own tools look (AWS_… variables, ~/.aws, instance roles, …), never from
a URI. One set of variables cannot describe two stores at once, so MATS_STORAGE gives settings by URI
prefix, as JSON; the longest prefix counts:

    MATS_STORAGE='{"s3://public-sounds/": {"anonymous": true},
                   "s3://lab/": {"endpoint": "https://minio.lab:9000", "profile": "lab"}}'

It holds names, no secrets, and reaches decoder processes and Ray's workers with the environment.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mats_core.errors import got_allowed
from mats_core.storage.errors import StorageError
from mats_core.storage.uris import public_uri, scheme

# Schemes that lead on to other files or URLs; a manifest must not be able to reach through them.
_REDIRECTING = (
    "zip tar simplecache filecache blockcache cached dir reference generic libarchive git github data dask "
    "jupyter jlab asynclocal local"
)
WRAPPERS = frozenset(_REDIRECTING.split())
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2"})
READ_ONLY = frozenset({"http", "https"})
VARIABLE = "MATS_STORAGE"
_CONNECT_S, _READ_S = 10, 30  # without a byte; after that the request is made again
_PLAIN_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


class StoreRule(BaseModel):
    """Settings of the URIs with one prefix."""

    model_config = ConfigDict(extra="forbid")

    anonymous: bool = Field(False, description="Ask without credentials: public buckets.")
    endpoint: str | None = Field(None, description="Another store that speaks S3: its URL.")
    region: str | None = Field(None, description="Region of the bucket.")
    profile: str | None = Field(None, description="Profile in ~/.aws to take credentials from.")
    requester_pays: bool = Field(False, description="Agree to pay for the requests (requester-pays buckets).")


def rules() -> dict[str, StoreRule]:
    """What MATS_STORAGE says; raises SettingsError when it says it wrongly."""
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=4)
def _parsed(text: str) -> dict[str, StoreRule]:
    if not text.strip():
        return {}
    # note: names are shown and values never: some put their keys here, though it holds none
    allowed = 'JSON: {"s3://bucket/": {"anonymous": true}}, with ' + ", ".join(StoreRule.model_fields)
    try:
        given = json.loads(text)
    except ValueError:
        raise got_allowed(VARIABLE, "text that is no JSON", allowed) from None
    if not isinstance(given, dict):
        raise got_allowed(VARIABLE, "no mapping", allowed)
    found = {}
    for prefix, rule in given.items():
        shown = public_uri(prefix)
        if not isinstance(rule, dict):
            raise got_allowed(VARIABLE, f"{shown} without settings", allowed)
        if not scheme(prefix):
            raise got_allowed(VARIABLE, shown, "prefixes that begin with s3://, gs:// or az://")
        try:
            found[prefix] = StoreRule(**rule)
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(map(str, each["loc"])) for each in error.errors()}))
            raise got_allowed(VARIABLE, f"{shown} with a wrong {wrong}", allowed) from None
    return dict(sorted(found.items(), key=lambda each: -len(each[0])))


def _rule(uri: str) -> StoreRule:
    return next((rule for prefix, rule in rules().items() if uri.startswith(prefix)), StoreRule())


def _options(kind: str, uri: str) -> dict[str, Any]:
    """Arguments of the fsspec class for this URI."""
    rule = _rule(uri)
    if kind in ("s3", "s3a"):
        options: dict[str, Any] = {
            # note: its own five tries a request come on top
            "config_kwargs": {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"max_attempts": 1}},
        }
        if rule.anonymous:
            options["anon"] = True
        if rule.endpoint:
            options["endpoint_url"] = rule.endpoint
        if rule.region:
            options["client_kwargs"] = {"region_name": rule.region}
        if rule.profile:
            options["profile"] = rule.profile
        if rule.requester_pays:
            options["requester_pays"] = True
            options["s3_additional_kwargs"] = {"RequestPayer": "requester"}  # note: s3fs asks so for contents only
        return options
    if kind in ("gs", "gcs"):
        options = {"token": "anon"} if rule.anonymous else {}
        return {**options, "requester_pays": True} if rule.requester_pays else options
    if kind in ("az", "abfs", "abfss"):
        return {"anon": True} if rule.anonymous else {}
    if kind in READ_ONLY:
        import aiohttp

        wait = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
        # note: a signed URL is sent as it stands; written anew, its signature might no longer fit
        return {
            "encoded": bool(_PLAIN_URL.fullmatch(uri)),
            "client_kwargs": {"timeout": wait, "trust_env": True},
        }
    return {}


def is_known_scheme(name: str) -> bool:
    """Whether `name` is a kind of storage that can be read here, or could be with a package ("file" is local)."""
    import fsspec

    return name == "file" or (name not in WRAPPERS and name in fsspec.available_protocols())


def open_store(uri: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a remote URI. Raises StorageError refused, and whatever the client
    raises."""
    import fsspec

    kind = scheme(uri)
    if kind in WRAPPERS:
        raise StorageError("refused", f"{kind}:// reaches through to other files; name the file itself")
    try:
        cls = fsspec.get_filesystem_class(kind)
    except ValueError:
        raise StorageError("refused", f"{kind}:// is not a known kind of storage") from None
    except ImportError as error:
        raise StorageError("refused", f"{kind}:// needs a package that is not installed: {error}") from None
    # note: not url_to_fs: it would split a literal "::" in an object name into chained file systems
    # note: listings are not kept: a later scan must see new files, and millions of names would stay in memory
    options = {**cls._get_kwargs_from_urls(uri), **_options(kind, uri), "use_listings_cache": False}
    return cls(**options), cls._strip_protocol(uri)
