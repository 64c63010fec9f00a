"""What a URI is: text that names a local file or a remote object, safe to write down, and the way back.

A local file is its absolute path as it stands; a local name that is not UTF-8 becomes file:// and percent-encoding, so
that every URI can be written to Parquet and JSON.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes, urlsplit

from mats_core.errors import StorageError

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2"})
Uri = str | os.PathLike[str]
"""What public functions take: the text of a path or URL, or a `pathlib.Path`."""
_FOLDED = re.compile(rf"(?i)({'|'.join(sorted(OBJECT_STORES))}|https?|file):/(?=[^/])")


def uri_text(uri: Uri) -> str:
    """A path or URL as text. `pathlib` makes one slash of two: a URL that went through it is given its second again."""
    if isinstance(uri, str):
        return uri
    found = os.fspath(uri)
    folded = _FOLDED.match(found)
    if folded is None:
        return found
    return f"{folded[1]}://{'/' if folded[1].lower() == 'file' else ''}{found[folded.end() :]}"


def printable(name: bytes) -> str:
    """A name as text: itself where it is UTF-8, percent-encoded where it is not."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(name)


def uri_from_path(path: bytes | Uri) -> str:
    """URI of a local path: its absolute text, or file:// and percent-encoding where it is not UTF-8."""
    raw = os.path.abspath(os.fsencode(path))
    text = printable(raw)
    return text if text.encode() == raw else f"file://{text}"


def local_path(uri: Uri) -> bytes | None:
    """Bytes of the local path a URI names, or None for a remote one; the inverse of `uri_from_path`."""
    uri = uri_text(uri)
    if is_file_url(uri):
        return unquote_to_bytes(uri[len("file://") :])
    return None if scheme(uri) else os.path.abspath(os.fsencode(uri))


def path_of(uri: Uri) -> Path | None:
    """The local path that a person means, `~` for their home; None for the URL of a store."""
    text = uri_text(uri)
    if scheme(text):
        return None
    return Path(os.fsdecode(local_path(text) or b"")) if is_file_url(text) else Path(text).expanduser()


def to_uri(source: bytes | Uri) -> str:
    """The URI of a path or of a URL: the one way in for what a person gives as a sound."""
    text = source if isinstance(source, bytes) else uri_text(source)
    return text if isinstance(text, str) and (scheme(text) or is_file_url(text)) else uri_from_path(text)


def is_file_url(uri: Uri) -> bool:
    """Whether a local file is named by file://, and so percent-encoded."""
    return uri_text(uri)[:7].lower() == "file://"


def scheme(uri: Uri) -> str:
    """ "s3" of "s3://bucket/key"; "" for a local path and for file://; "tar+s3" for a member of an archive, and
    "parquet+s3" for a row."""
    head, mark, _ = uri_text(uri).partition("://")
    if not mark or head.lower() == "file" or not head.replace("+", "").replace("-", "").replace(".", "").isalnum():
        return ""
    return head.lower()


def join(base: Uri, *names: Uri) -> str:
    """`base` and relative parts, whatever the scheme. A part that climbs out (absolute, "..") is refused."""
    base, parts = uri_text(base), [uri_text(name) for name in names]
    # note: in an object store "a//b" is another name than "a/b"
    empty = () if scheme(base) in OBJECT_STORES else ("", ".")
    steps = [step for part in parts for step in part.split("/") if step not in empty]
    if ".." in steps or any(part.startswith("/") or scheme(part) for part in parts):
        raise StorageError("refused", f"{'/'.join(parts)!r} would leave {public_uri(base)}")
    if is_file_url(base):
        steps = [quote_from_bytes(os.fsencode(step)) for step in steps]
    root, mark, query = base.partition("?") if scheme(base) in ("http", "https") else (base, "", "")
    return "/".join([root.rstrip("/"), *steps]) + mark + query


def same_place(one: Uri, other: Uri) -> bool:
    """Whether two URIs name the same file or folder; of a store by their names alone."""
    return lies_in(one, other) and lies_in(other, one)


def lies_in(uri: Uri, folder: Uri) -> bool:
    """Whether a URI is a folder or something below it; of a store by their names alone."""
    paths = local_path(uri), local_path(folder)
    if paths[0] is not None and paths[1] is not None:
        one, other = os.fsdecode(os.path.realpath(paths[0])), os.fsdecode(os.path.realpath(paths[1]))
    else:
        one, other = public_uri(uri), public_uri(folder)
    return f"{one.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


def public_uri(uri: Uri) -> str:
    """The URI without user, password and query string (presigned secrets): what may enter rows, logs, errors. Never
    raises, whatever the text.

    A "?" in the name of a local file or of an object is part of the name and stays, unless what follows is
    a signature. So does Azure's container in abfss://container@account.
    """
    uri = uri_text(uri)
    kind = scheme(uri)
    if not kind:
        return uri
    if kind.startswith(("tar+", "parquet+")):
        way, inner = uri.split("+", 1)
        found = _inside(uri)
        return f"{way}+{public_uri(found[1])}{found[2]}" if found else f"{way}+{public_uri(inner)}"
    if kind in ("http", "https"):
        host, path, _ = web_parts(uri)
        return f"{kind}://{host.rpartition('@')[2]}{path}"
    name, mark, query = uri.partition("?")
    head, _, rest = (name if mark and _SIGNED.search(query) else uri).partition("://")
    bucket, slash, key = rest.partition("/")
    user, at, host = bucket.rpartition("@")
    if kind in _CONTAINER_AT_ACCOUNT and ":" not in user:
        user, host = "", f"{user}{at}{host}"
    if not user and ":" in host and kind in _NO_PORTS and not host.startswith("arn:") and "@" in key:
        host, slash, key = key.partition("@")[2].partition("/")  # a secret key with a slash in it
    return f"{head}://{host}{slash}{key}"


def web_parts(url: Uri) -> tuple[str, str, str]:
    """(host with user and port, path, query) of an http(s) URL as they stand, valid or not; without the fragment."""
    rest = uri_text(url).partition("://")[2].partition("#")[0]
    place, _, query = rest.partition("?")
    host, slash, path = place.partition("/")
    return host, slash + path, query


def wrong_url(uri: Uri) -> str | None:
    """Why an http(s) URL cannot be one (brackets, host, port), or None; other URIs are not looked at."""
    uri = uri_text(uri)
    if scheme(uri) not in ("http", "https"):
        return None
    try:
        parts = urlsplit(uri)
        _ = parts.port  # note: read only when asked for
    except ValueError:
        return "is no valid URL: its host or port cannot be read"
    return None if parts.hostname else "is a URL without a host"


_CONTAINER_AT_ACCOUNT = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_NO_PORTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "r2", "oss"})
_SIGNED = re.compile(r"(?i)(^|[&-])(sig|signature|credential|token|accesskeyid|security-token)=")
_URL = re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+")
_SECRET_FIELD = re.compile(
    r"(?i)\b((?:x-amz|x-goog)-[a-z-]+|signature|sig|awsaccesskeyid|\w*secret\w*|\w*password|\w*token)=[^\s&'\"]+"
)
_SECRET_NAME = re.compile(
    r"(?i)secret|passw|signature|credential|(?:^|[^a-z])(?:token|key|sig|auth)(?:$|[^a-z])|(?-i:[a-z](?:Token|Key)$)"
)


def names_secret(name: str) -> bool:
    """Whether what goes by this name is a secret: password, aws_secret_access_key, token (not max_new_tokens), …"""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str) -> str:
    """A text of somebody else's (an exception, a library's message) with every URL in it made public."""
    return _SECRET_FIELD.sub(r"\1=…", _URL.sub(lambda found: public_uri(found.group()), text))


def split_member(uri: Uri) -> tuple[str, str]:
    """("s3://bucket/a.tar", "!512+99/x.wav") of tar+s3://bucket/a.tar!512+99/x.wav: a member of an archive, named
    by its first byte, its size and its name. Raises StorageError refused for what is no member."""
    found = _MEMBER.match(uri_text(uri))
    if found is None:
        raise StorageError("refused", "is no member of an archive: tar+URL!OFFSET+SIZE/NAME")
    return found[1], found[2]


def archive_of(uri: Uri) -> str:
    """The file that a member's or a row's URI leads into; any other URI as it is."""
    uri = uri_text(uri)
    found = _inside(uri)
    return uri if found is None else found[1]


def lies_inside(uri: Uri) -> bool:
    """Whether a URI is written as that of a member of an archive, or of a row of a Parquet file."""
    return scheme(uri).startswith(("tar+", "parquet+"))


def member_range(place: str) -> tuple[int, int]:
    """(first byte, size) of the second part of `split_member`."""
    first, _, size = place[1:].partition("/")[0].partition("+")
    return int(first), int(size)


def member_uri(archive: Uri, first: int, size: int, name: str) -> str:
    """The URI of `size` bytes from `first` on of an archive, which it calls `name`."""
    return f"tar+{_as_url(archive)}!{first}+{size}/{name}"


def split_row(uri: Uri) -> tuple[str, int, str]:
    """("s3://bucket/a.parquet", 17, "audio") of parquet+s3://bucket/a.parquet!17+audio/x.wav: what a column holds in
    a row of a file, the first one being 0. Raises StorageError refused for what is no such row."""
    found = _ROW.match(uri_text(uri))
    if found is None:
        raise StorageError("refused", "is no row of a Parquet file: parquet+URL!ROW+COLUMN/NAME")
    row, _, column = found[2][1:].partition("/")[0].partition("+")
    return found[1], int(row), os.fsdecode(unquote_to_bytes(column))


def row_uri(file: Uri, row: int, column: str, name: str = "") -> str:
    """The URI of what a column of a Parquet file holds in a row, which is called `name`."""
    return f"parquet+{_as_url(file)}!{row}+{quote(column, safe='')}/{name}"


def _as_url(uri: Uri) -> str:
    path = local_path(uri)
    return uri_text(uri) if path is None else "file://" + quote_from_bytes(path)


def _inside(uri: str) -> re.Match[str] | None:
    return _MEMBER.match(uri) or _ROW.match(uri)


_MEMBER = re.compile(r"(?s)tar\+(.+?)(!\d{1,18}\+\d{1,18}/.*)$")
_ROW = re.compile(r"(?s)parquet\+(.+?)(!\d{1,18}\+[^/]*/.*)$")
_WINDOWS = re.compile(r"(?i)^(?:file:///?)?(?:[a-z]:[\\/]|\\\\[^\\/])")


def windows_path(text: str) -> str | None:
    """What a path of Windows is, for a message: one with a drive, or of a share; None for any other text."""
    if not _WINDOWS.match(text):
        return None
    return "of a network share" if text.startswith("\\\\") else "with a drive"
