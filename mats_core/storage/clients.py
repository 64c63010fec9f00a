"""Which client talks to which store (endpoint, region, profile, anonymous and requester-pays access), and calls to it.

Credentials come from where each store's own tools look (AWS_… variables, ~/.aws, instance roles, …), never from
a URI. One set of variables cannot describe two stores at once, so MATS_STORAGE gives settings by URI
prefix, as JSON; the longest prefix counts:

    MATS_STORAGE='{"s3://public-sounds/": {"anonymous": true},
                   "s3://lab/": {"endpoint": "https://minio.lab:9000", "profile": "lab"}}'

It holds names, no secrets, and reaches decoder processes and Ray's workers with the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Literal

import fsspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mats_core.errors import SettingsError, StorageError
from mats_core.storage.errors import Result, error_from, store_code, with_retries
from mats_core.storage.hosts import refuse_redirect
from mats_core.storage.uris import Uri, local_path, public_uri, scheme, uri_text

# Schemes that lead on to other files or URLs; a manifest must not be able to reach through them.
_REDIRECTING = (
    "zip tar simplecache filecache blockcache cached dir reference generic libarchive git github data dask "
    "jupyter jlab asynclocal local"
)
WRAPPERS = frozenset(_REDIRECTING.split())
READ_ONLY = frozenset({"http", "https"})
VARIABLE = "MATS_STORAGE"
_CONNECT_S, _READ_S = 10, 30  # how long to wait for a connection, and for the next byte
_PLAIN_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


class StoreRule(BaseModel):
    """Settings of the URIs with one prefix."""

    model_config = ConfigDict(extra="forbid")

    anonymous: bool = Field(False, description="Ask without credentials: public buckets.")
    endpoint: str | None = Field(None, description="Another store that speaks S3: its URL.")
    region: str | None = Field(None, description="Region of the bucket.")
    profile: str | None = Field(None, description="Profile in ~/.aws to take credentials from.")
    requester_pays: bool = Field(False, description="Agree to pay for the requests (requester-pays buckets).")
    addressing: Literal["path", "virtual"] | None = Field(
        None, description="Where the bucket is named: in the path of a request, or before its host."
    )
    checksums: bool = Field(True, description="Check what is read against the ETags and checksums of the store.")


@lru_cache(maxsize=4)
def _rules(text: str) -> dict[str, StoreRule]:
    """What MATS_STORAGE says, the longest prefix first; raises SettingsError when it says it wrongly."""
    if not text.strip():
        return {}
    # note: names are shown and values never: some put their keys here, though it holds none
    known = ", ".join(StoreRule.model_fields)
    remedy = f'write JSON such as {{"s3://bucket/": {{"anonymous": true}}}}, with settings out of {known}'
    try:
        found = TypeAdapter(dict[str, StoreRule]).validate_json(text)
    except ValidationError as error:
        where = [str(each) for each in error.errors()[0]["loc"]]
        if not where:
            raise SettingsError(VARIABLE, "its text is no JSON mapping", remedy) from None
        wrong = f"a wrong {'.'.join(where[1:])}" if where[1:] else "no settings"
        raise SettingsError(VARIABLE, f"{public_uri(where[0])} has {wrong}", remedy) from None
    for prefix in found:
        if not scheme(prefix):
            problem = f"{public_uri(prefix)} is not the beginning of a URL"
            raise SettingsError(VARIABLE, problem, "use prefixes that begin with s3://, gs:// or az://")
    return dict(sorted(found.items(), key=lambda each: -len(each[0])))


def _rule(uri: str) -> StoreRule:
    rules = _rules(os.environ.get(VARIABLE, ""))
    return next((rule for prefix, rule in rules.items() if uri.startswith(prefix)), StoreRule())


def checks_content(uri: str) -> bool:
    """Whether what is read there is to be checked against what the store tells of it."""
    return _rule(uri).checksums


def _options(kind: str, uri: str, repeats: bool) -> dict[str, Any]:
    """Arguments of the fsspec class for this URI; `repeats`: whether its client repeats requests by itself."""
    rule = _rule(uri)
    if kind in ("s3", "s3a"):
        tries = {"max_attempts": 1} if repeats else {"total_max_attempts": 1}
        from mats_core.storage.stores.s3 import plain_uploads

        config = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": tries, **plain_uploads()}
        if rule.addressing:
            config["s3"] = {"addressing_style": rule.addressing}
        given = {
            "config_kwargs": config,
            "fixed_upload_size": True,  # note: Cloudflare's store wants all parts of an upload but the last alike
            "anon": rule.anonymous,
            "endpoint_url": rule.endpoint,
            "client_kwargs": {"region_name": rule.region} if rule.region else None,
            "profile": rule.profile,
            "requester_pays": rule.requester_pays,  # note: s3fs asks so for contents only, hence the next
            "s3_additional_kwargs": {"RequestPayer": "requester"} if rule.requester_pays else None,
        }
        return {name: value for name, value in given.items() if value}
    if kind in ("gs", "gcs"):
        options: dict[str, Any] = {"token": "anon"} if rule.anonymous else {}
        return {**options, "requester_pays": True} if rule.requester_pays else options
    if kind in ("az", "abfs", "abfss"):
        return {"anon": True} if rule.anonymous else {}
    if kind in READ_ONLY:
        import aiohttp

        wait = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
        sent = {"timeout": wait, "trust_env": True, "trace_configs": [_redirects()]}
        # note: a signed URL is sent as it stands; written anew, its signature might no longer fit
        return {"encoded": bool(_PLAIN_URL.fullmatch(uri)), "client_kwargs": sent}
    return {}


@lru_cache(maxsize=1)
def _redirects() -> Any:
    """What aiohttp calls when it is sent on; one object, since clients of the same options are shared."""
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse_redirect)
    return trace


def is_known_scheme(name: str) -> bool:
    """Whether `name` is a kind of storage that can be read here, or could be with a package ("file" is local)."""
    return name == "file" or (name not in WRAPPERS and name in fsspec.available_protocols())


def _class_of(kind: str) -> Any:
    if kind not in ("s3", "s3a"):
        return fsspec.get_filesystem_class(kind)
    from mats_core.storage.stores.s3 import S3Store

    return S3Store


def open_client(uri: Uri, repeats: bool = False) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a remote URI. S3's client repeats failed requests only where `repeats`; by
    default every call to it goes through `with_retries`, and its own tries would multiply with those.

    Raises StorageError refused, and whatever the client raises.
    """
    uri = uri_text(uri)
    kind = scheme(uri)
    if kind in WRAPPERS:
        raise StorageError("refused", f"{kind}:// reaches through to other files; name the file itself")
    try:
        cls = _class_of(kind)
    except ValueError:
        raise StorageError("refused", f"{kind}:// is not a known kind of storage") from None
    except ImportError as error:
        raise StorageError("refused", f"{kind}:// needs a package that is not installed: {error}") from None
    # note: not url_to_fs: it would split a literal "::" in an object name into chained file systems
    # note: listings are not kept: a later scan must see new files, and millions of names would stay in memory
    options = {**cls._get_kwargs_from_urls(uri), **_options(kind, uri, repeats), "use_listings_cache": False}
    fs = cls(**options)
    if kind in ("s3", "s3a") and not repeats:
        fs.retries = 1  # note: s3fs makes five tries, on top of those that botocore below it makes
    return fs, cls._strip_protocol(uri)


def filesystem(uri: Uri) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a remote URI, for code that does not go through `with_retries` (Arrow, Ray,
    uploads in parts): this client repeats failed requests by itself. Raises StorageError."""
    with coded(uri):
        return open_client(uri, repeats=True)


def arrow(uri: Uri) -> tuple[Any, str]:
    """(pyarrow file system, path) to read and write Parquet there. Raises StorageError for a name it cannot take."""
    from pyarrow import fs as arrow_fs

    path = local_path(uri)
    if path is not None:
        try:
            return arrow_fs.LocalFileSystem(), path.decode("utf-8")
        except UnicodeDecodeError:
            raise StorageError("refused", f"{uri}: Parquet needs a path in UTF-8") from None
    fs, name = filesystem(uri)
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fs)), name


@contextmanager
def coded(uri: Uri) -> Iterator[None]:
    """Errors of any client library become StorageErrors."""
    try:
        yield
    except (StorageError, SettingsError, MemoryError):
        raise
    except Exception as error:  # note: fsspec back ends raise the exceptions of their own client libraries
        raise error_from(error, uri) from None


def call_store(uri: Uri, action: Callable[[Any, str], Result]) -> Result:
    """`action` of (file system, path in it), tried again where its error may pass by itself."""
    fs, name = open_client(uri)
    return with_retries(lambda: action(fs, name))


def s3_pages(fs: Any, method: str, **asked: Any) -> Iterator[dict[str, Any]]:
    """The answers to a listing of S3, a page after the other. Raises what the client raises."""
    more: dict[str, Any] = {}
    while True:
        page = with_retries(partial(fs.call_s3, method, fs.kwargs, **asked, **more))
        yield page
        if not page.get("IsTruncated"):
            return
        before = more
        more = {name.removeprefix("Next"): value for name, value in page.items() if name.startswith("Next")}
        if more == before:
            raise StorageError("io_error", f"the store gives the same page of its listing of {asked['Bucket']} again")


def remote_info(fs: Any, name: str, kind: str) -> dict[str, Any]:
    """What the store says of one object or prefix; "type" is "directory" for a prefix. Raises what the client
    raises."""
    if kind in ("s3", "s3a") and "/" not in name.strip("/"):
        # note: asking for the bucket itself needs other rights than listing it, and gives no reason when refused
        fs.call_s3("list_objects_v2", fs.kwargs, Bucket=name.strip("/"), MaxKeys=1)
        return {"name": name, "type": "directory", "size": 0}
    return dict(fs.info(name))


def remote_type(uri: Uri) -> str | None:
    """What a store has there: "file", "directory" or None. Raises what the client raises, as for a missing bucket."""
    try:
        return str(call_store(uri, lambda fs, name: remote_info(fs, name, scheme(uri)))["type"])
    except FileNotFoundError as error:
        if store_code(error) == "NoSuchBucket":
            raise
        return None
