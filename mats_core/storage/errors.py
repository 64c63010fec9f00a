"""What the clients of stores raise: a code and a sentence for each cause, and what passes by itself and is tried again.

`with_retries` is the one place where a call to a store is repeated, at most TRIES times; the clients' own repetition is
switched off where they allow it (`clients.open_client`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import parse_qs

from mats_core.errors import DiskFull, StorageError
from mats_core.storage.uris import Uri, local_path, public_uri, redacted, scheme, uri_text, web_parts

TRIES = 8  # with the pauses below, a call outlasts about twelve seconds
DAMAGED_TRIES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

Result = TypeVar("Result")

# What a store calls the cause → our code and what to say of it. {bucket} and {name} are filled in.
_CAUSES = {
    "NoSuchBucket": ("not_found", "the bucket {bucket} does not exist"),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
        ("access_denied", "the credentials for {bucket} have expired; renew them and start again"),
    ),
    "InvalidToken": ("access_denied", "the session token for {bucket} is not valid"),
    "InvalidAccessKeyId": ("access_denied", "the store of {bucket} does not know this access key"),
    "SignatureDoesNotMatch": ("access_denied", "the secret key does not fit the access key for {bucket}"),
    "RequestTimeTooSkewed": ("access_denied", "the clock of this machine is too far off for {bucket}"),
    "NoCredentialsError": (
        "access_denied",
        "no credentials for {bucket} were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or "
        "anonymous access (MATS_STORAGE)",
    ),
    **dict.fromkeys(("PreconditionFailed", "FileExpired"), ("io_error", "{name} was changed while it was read")),
    "GatedRepoError": (
        "access_denied",
        "{name} is gated: ask for access on its page, and give the token of who has it (HF_TOKEN)",
    ),
    "OfflineModeIsEnabled": ("io_error", "the Hub is not asked, for HF_HUB_OFFLINE is set"),
    "RepositoryNotFoundError": ("not_found", "the Hub shows no {name}; a private one needs a token (HF_TOKEN)"),
    "InvalidObjectState": ("access_denied", "{name} is in cold storage; restore it first"),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed"),
        ("io_error", "the bucket {bucket} lies in another region; set AWS_REGION or MATS_STORAGE ({said})"),
    ),
    "DamagedAnswer": (
        "io_error",
        "{name} arrived more than once with other bytes than its checksum tells of (of a store whose ETags only look "
        'like MD5? then set "checksums": false in MATS_STORAGE)',
    ),
    "EndpointConnectionError": ("io_error", "the store of {bucket} does not answer; is its endpoint right?"),
}
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 509})
_PASSING_WORDS = ("Timeout", "Connection", "Connector", "Disconnected", "Payload", "IncompleteRead", "HTTPClient")
_BUSY = (
    "SlowDown ServiceUnavailable InternalError RequestTimeout Throttling ThrottlingException TooManyRequestsException "
    "IncompleteBody BandwidthLimitExceeded"
)
_PASSING_CODES = frozenset(_BUSY.split())
_MOST_WORDS = 300
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


class DamagedAnswer(ConnectionError):
    """Bytes arrived that are not those whose checksum the store tells."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def store_code(error: BaseException) -> str:
    """What the store itself called the error ("NoSuchBucket", "403", "NoCredentialsError"), or ""."""
    found = ""
    for each in _chain(error):
        response = getattr(each, "response", None)
        code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else type(each).__name__
        if code in _CAUSES:
            return code
        if isinstance(response, dict):
            found = found or code
    return found


def store_words(error: BaseException) -> str:
    """What the store itself says of the error, and what it calls it, in one line without secrets; "" where it says
    nothing: "Missing required header for this request: Content-MD5 (InvalidRequest)"."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        told = response.get("Error") if isinstance(response, dict) else None
        if told:
            code, text = (" ".join(str(told.get(name) or "").split()) for name in ("Code", "Message"))
            line = "".join(letter for letter in redacted(text).rstrip(".")[:_MOST_WORDS] if letter.isprintable())
            for name in _SECRET_VARIABLES:
                line = line.replace(os.environ.get(name) or "\0", "…")
            return f"{line} ({code[:80]})" if line and code and line != code else line or code[:80]
    return ""


def is_passing(error: BaseException) -> bool:
    """Whether to try again may help: the store is busy, a connection broke, an answer came too late or cut."""
    if isinstance(error, StorageError) or store_code(error) == "OfflineModeIsEnabled":
        return False
    response = next((r for each in _chain(error) if isinstance(r := getattr(each, "response", None), dict)), None)
    if response is not None:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in _PASSING_STATUS or response.get("Error", {}).get("Code") in _PASSING_CODES
    for each in _chain(error):
        answer = getattr(getattr(each, "response", None), "status_code", None)
        status = getattr(each, "status", None) or getattr(each, "code", None) or answer
        if isinstance(status, int) and status >= 300:
            return status in _PASSING_STATUS
        if isinstance(each, (ConnectionError, TimeoutError, asyncio.TimeoutError)):
            return True
        if any(word in type(each).__name__ for word in _PASSING_WORDS):
            return True
    return False


def with_retries(action: Callable[[], Result]) -> Result:
    """What `action` returns, called again while its error may pass by itself, after pauses that double each time.

    Damaged answers are asked for DAMAGED_TRIES times: they seldom pass, and each may be large.
    """
    for attempt in range(1, TRIES):
        try:
            return action()
        except Exception as error:  # note: every client library has its own
            if not is_passing(error) or (isinstance(error, DamagedAnswer) and attempt >= DAMAGED_TRIES):
                raise
        # note: drawn, so that workers that failed at the same moment do not come back at the same moment
        time.sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1)))
    return action()


def error_from(error: BaseException, uri: Uri) -> StorageError:
    """The coded form of what a file system raised, with the words of a store that speaks S3. Other clients' own texts
    are left out: they may hold signed URLs."""
    if isinstance(error, StorageError):
        return error
    uri, words = uri_text(uri), store_words(error)
    name = public_uri(uri)
    cause = _CAUSES.get(store_code(error))
    if cause is not None:
        kind = scheme(name)
        bucket = f"{kind}://{name.partition('://')[2].partition('/')[0]}"
        return StorageError(cause[0], cause[1].format(bucket=bucket, name=name, said=words))
    if scheme(uri) in ("http", "https") and isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # note: fsspec says "not found" for a refused or failed connection, too
        if isinstance(error, StorageError):
            return error
    status = getattr(error, "status", None) or getattr(error, "code", None)
    said = words or (f"HTTP {status}" if isinstance(status, int) else type(error).__name__)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) or status == 404:
        path = local_path(uri)
        if path is not None and os.path.islink(path):
            return StorageError("not_found", "the link points to a file that is not there")
        return StorageError("not_found", f"{name} does not exist")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        ended = _signature_ended(uri)
        if ended:
            return StorageError("access_denied", f"the signature of {name} expired at {ended}; sign it anew")
        return StorageError("access_denied", f"access to {name} is denied: {said}")
    if isinstance(error, NotImplementedError):
        return StorageError("refused", f"{name}: {scheme(uri)}:// is read-only")
    full = full_disk(error, name)
    if full is not None:
        return full
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and not words else said
    return StorageError("io_error", f"{name} cannot be read or written: {reason}")


def full_disk(error: BaseException, place: str) -> StorageError | None:
    """What to do, where `error` is that nothing more goes onto a disk or into a quota of it; None else.

    place: what could not be written, unless the error names a file itself.
    """
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    what = public_uri(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else place
    which = "your quota of that disk" if error.errno == errno.EDQUOT else "that disk, or your quota of it,"
    remedy = "make room (df -h and df -i show what is left there), or choose another place"
    return DiskFull("io_error", f"{what} cannot be written: {os.strerror(error.errno)}; {which} is full: {remedy}")


def _signature_ended(uri: str) -> str | None:
    """When the signature in a URL expired (UTC); None where it has not, or there is none that says."""
    if scheme(uri) not in ("http", "https"):
        return None
    query = {name.lower(): values[0] for name, values in parse_qs(web_parts(uri)[2]).items()}
    try:
        store = next((store for store in ("x-amz", "x-goog") if f"{store}-date" in query), None)
        if store is not None:
            begun = timegm(time.strptime(query[f"{store}-date"], "%Y%m%dT%H%M%SZ"))
            ends = begun + int(query.get(f"{store}-expires", "0"))
        elif "expires" in query:
            ends = int(query["expires"])
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ends)) if ends < time.time() else None
