"""What a URI is: text that names a local file or a remote object, safe to write down, and the way back."""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit, urlunsplit


def printable(name: bytes) -> str:
    """A name as text: itself where it is UTF-8, percent-encoded where it is not."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(name)


def uri_from_path(path: bytes | str) -> str:
    """URI of a local path: its absolute text, or file:// and percent-encoding where it is not UTF-8."""
    raw = os.path.abspath(os.fsencode(path))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(raw)


def local_path(uri: str) -> bytes | None:
    """Bytes of the local path a URI names, or None for a remote one; the inverse of `uri_from_path`."""
    if uri.startswith("file://"):
        return unquote_to_bytes(uri[len("file://") :])
    return None if scheme(uri) else os.path.abspath(os.fsencode(uri))


def scheme(uri: str) -> str:
    """ "s3" of "s3://bucket/key"; "" for a local path and for file://."""
    head, mark, _ = uri.partition("://")
    if not mark or head == "file" or not head.replace("+", "").replace("-", "").replace(".", "").isalnum():
        return ""
    return head.lower()


def public_uri(uri: str) -> str:
    """The URI without user, password and query string (presigned secrets): what may enter rows, logs, errors.

    A "?" in the name of a local file or an s3/gs object is part of the name and stays, unless what
    follows is a signature.
    """
    kind = scheme(uri)
    if not kind:
        return uri
    if kind in ("s3", "s3a", "gs", "gcs"):
        name, mark, query = uri.partition("?")
        signed = any(word in query.lower() for word in ("signature=", "credential=", "token=", "accesskeyid="))
        head, _, rest = (name if mark and signed else uri).partition("://")
        bucket, slash, key = rest.partition("/")
        return f"{head}://{bucket.rpartition('@')[2]}{slash}{key}"
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
