"""S3 as stores speak it that are not Amazon's (OpenStack Swift, Ceph, MinIO, gateways): s3fs, asking for no more than
all of them know. `clients` makes it for every s3:// URI."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from typing import Any

from aiohttp import ClientResponseError
from botocore.config import Config
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from mats_core.errors import StorageError
from mats_core.storage.errors import is_passing, store_code

# What a store answers to a request, or to a header, that it does not know.
_UNKNOWN = (
    "NotImplemented",
    "501",
    "MethodNotAllowed",
    "405",
    "InvalidRequest",
    "InvalidArgument",
    "BadRequest",
    "400",
)
_DELETES_AT_ONCE = 16


def plain_uploads() -> dict[str, Any]:
    """Settings of botocore that keep its newer checksums, and the trailers that carry them, out of requests: what has
    to be checked is, by Content-MD5, which every store knows."""
    names = ("request_checksum_calculation", "response_checksum_validation")
    return {name: "when_required" for name in names if name in Config.OPTION_DEFAULTS}


class S3Store(S3FileSystem):  # type: ignore[misc]
    """s3fs with differences: uploads carry their MD5, so that the store refuses other bytes. Objects are deleted one by
    one: DeleteObjects wants a Content-MD5 that newer clients leave out, or is not known at all. Where a HEAD fails, a
    GET of the first byte tells why. Listings and reads do without their newer forms where a store has none."""

    lists_anew = True
    """Whether the store is asked for listings of version 2."""
    tells_checksums = True
    """Whether it is asked for the checksums that it keeps."""
    ends_heads = True
    """Whether its answers to HEAD are HTTP; Swift puts a body into "not found", which aiohttp refuses."""

    async def _call_s3(self, method: str, *defaults: Any, **asked: Any) -> Any:
        body = asked.get("Body")
        if method in ("put_object", "upload_part") and isinstance(body, (bytes, bytearray, memoryview)):
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            asked["ContentMD5"] = b64encode(digest).decode()
        if method == "list_objects_v2":
            return await self._list_page(defaults, asked)
        if "ChecksumMode" in asked:
            return await self._with_checksums(method, defaults, asked)
        if method == "head_object":
            return await self._head(defaults, asked)
        return await super()._call_s3(method, *defaults, **asked)

    call_s3 = sync_wrapper(_call_s3)

    async def _list_page(self, defaults: tuple[Any, ...], asked: dict[str, Any]) -> dict[str, Any]:
        """One page, in the form of version 2 whatever the store speaks."""
        token = asked.get("ContinuationToken", "")
        if self.lists_anew:
            try:
                page = dict(await super()._call_s3("list_objects_v2", *defaults, **asked))
            except Exception as error:  # note: s3fs raises errors of Python's own for what it knows
                if store_code(error) not in _UNKNOWN:
                    raise
            else:
                if not page.get("IsTruncated") or page.get("NextContinuationToken"):
                    return page
            self.lists_anew = False  # refused, or answered as it answers version 1
        asked = {name: value for name, value in asked.items() if name != "ContinuationToken"}
        page = dict(await super()._call_s3("list_objects", *defaults, **asked, **({"Marker": token} if token else {})))
        if page.get("IsTruncated"):
            last = [*page.get("Contents", ())[-1:], *page.get("CommonPrefixes", ())[-1:]]
            names = [str(each.get("Key") or each.get("Prefix")) for each in last]
            page["NextContinuationToken"] = page.pop("NextMarker", "") or max(names, default="")
            if page["NextContinuationToken"] <= token:
                raise StorageError("io_error", f"the listing of {asked['Bucket']} does not go on after {token!r}")
        return page

    async def _with_checksums(self, method: str, defaults: tuple[Any, ...], asked: dict[str, Any]) -> Any:
        if self.tells_checksums:
            try:
                return await super()._call_s3(method, *defaults, **asked)
            except Exception as error:
                if store_code(error) not in _UNKNOWN:
                    raise
                self.tells_checksums = False
        plain = {name: value for name, value in asked.items() if name != "ChecksumMode"}
        return await super()._call_s3(method, *defaults, **plain)

    async def _head(self, defaults: tuple[Any, ...], asked: dict[str, Any]) -> Any:
        if self.ends_heads:
            try:
                return await super()._call_s3("head_object", *defaults, **asked)
            except FileNotFoundError:
                raise
            except Exception as error:
                self.ends_heads = not isinstance(error.__context__, ClientResponseError)
                if self.ends_heads and is_passing(error):
                    raise
        try:
            answer = await super()._call_s3("get_object", *defaults, **asked, Range="bytes=0-0")
        except Exception as error:
            if store_code(error) not in ("InvalidRange", "416"):
                raise
            return await super()._call_s3("head_object", *defaults, **asked)  # it is empty
        body = answer.pop("Body")
        if span := answer.pop("ContentRange", ""):
            answer["ContentLength"] = int(span.rpartition("/")[2])
            await body.read()
        body.close()
        return answer

    async def _bulk_delete(self, pathlist: list[str], **_: Any) -> list[str]:
        for at in range(0, len(pathlist), _DELETES_AT_ONCE):
            await asyncio.gather(*map(self._rm_file, pathlist[at : at + _DELETES_AT_ONCE]))
        return list(pathlist)
