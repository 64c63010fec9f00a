"""Who may ask, before anything is looked at: by the Host that is named, a token, and where a change comes from.

Host      a page of elsewhere whose name leads here (DNS rebinding) names itself: addresses, localhost and names that
          were allowed are taken, others are not
token     in the address at first, then in a cookie that scripts do not see and other sites do not send; the cookie is
          named by its token, since those of all ports of a host are one
changes   POSTs come from our own pages: their Origin is our Host, and their kind is one that no form can send
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

COOKIE = "mats_serve"
KINDS = ("application/json", "application/octet-stream")
MOST_JSON = 256 << 10
"""Bytes of the body of a request that is no sound."""
HEADERS = (
    (b"content-security-policy", b"default-src 'self'; media-src 'self' blob:; img-src 'self' blob:; "
     b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
)  # fmt: skip

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Wraps an application. token: None where nobody needs one; hosts: names that are allowed; upload: bytes that a
    sound may have."""

    def __init__(self, app: App, token: str | None, hosts: Collection[str], upload: int) -> None:
        self.app, self.token, self.upload = app, token, upload
        self.hosts = {host.lower().strip("[]") for host in (*hosts, "localhost")}
        self.proof = hmac.new((token or "").encode(), b"mats serve", hashlib.sha256).hexdigest()
        self.cookie = f"{COOKIE}_{self.proof[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        guarded = _with_headers(send)
        host = headers.get("host", "")
        if not self._known_host(host):
            await _say(guarded, 400, "This server is not known by that name; see --allow-host.")
            return
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if self.token is not None and ("token" in asked or not self._proven(headers)):
            if scope["method"] in ("GET", "HEAD") and _same(asked.get("token"), self.token):
                await self._let_in(scope, asked, guarded)
            else:
                await _say(guarded, 401, *_ASK_TOKEN)
            return
        if scope["method"] not in ("GET", "HEAD"):
            refused = self._refused(scope, headers, host)
            if refused:
                await _say(guarded, *refused)
                return
            receive = _limited(receive, self._most(headers))
        await self.app(scope, receive, guarded)

    def _known_host(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _proven(self, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        told = given.strip()  # latin-1 by the standard; what curl sends is UTF-8
        if kind.lower() == "bearer" and any(
            _same(each, self.token) for each in (told, told.encode("latin-1").decode("utf-8", "replace"))
        ):
            return True
        for each in headers.get("cookie", "").split(";"):
            name, _, value = each.strip().partition("=")
            if name == self.cookie and _same(value, self.proof):
                return True
        return False

    async def _let_in(self, scope: Scope, asked: dict[str, str], send: Send) -> None:
        """Give the cookie, and go on to the same page without the token in its address.

        A page of ours leads on, since a redirect after a link from elsewhere would not send the cookie.
        """
        rest = urlencode([(name, value) for name, value in asked.items() if name != "token"])
        path = quote(scope["path"]) if not scope["path"].startswith("//") else "/"  # of \\ browsers make a /
        to = html.escape(path + (f"?{rest}" if rest else ""), quote=True)
        page = f'<!doctype html><meta http-equiv="refresh" content="0;url={to}"><a href="{to}">Go on</a>'
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{self.cookie}={self.proof}; HttpOnly; SameSite=Strict; Path=/{secure}"
        await _say(send, 200, page, [(b"set-cookie", cookie.encode())], b"text/html; charset=utf-8")

    def _refused(self, scope: Scope, headers: dict[str, str], host: str) -> tuple[int, str] | None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and urlsplit(origin).netloc.lower() != host.lower()) or site not in (
            *("same-origin", "none"),
        ):
            return 403, "Changes are made from this server's own pages alone."
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in KINDS:
            return 415, f"Send {' or '.join(KINDS)}."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most(headers):
            return 413, f"At most {self._most(headers)} bytes."
        return None

    def _most(self, headers: dict[str, str]) -> int:
        return MOST_JSON if "json" in headers.get("content-type", "") else self.upload


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and hmac.compare_digest(one.encode(), other.encode())


def _limited(receive: Receive, most: int) -> Receive:
    """What is received, ended where it gets longer than it may be, whatever its header said."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= most else {"type": "http.disconnect"}

    return limited


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name, value) for name, value in (*HEADERS, (b"cache-control", b"no-store")) if name not in there]
            message["headers"] = [*message.get("headers", ()), *more]
        await send(message)

    return sent


async def _say(
    send: Send,
    status: int,
    text: str,
    headers: list[tuple[bytes, bytes]] | None = None,
    kind: bytes = b"text/plain; charset=utf-8",
) -> None:
    body = text.encode()
    given = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})


_ASK_TOKEN = (
    '<!doctype html><meta name="viewport" content="width=device-width">'
    '<title>MATS</title><form method="get"><label>Token <input name="token" type="password" autofocus></label> '
    "<button>Go on</button></form>",
    None,
    b"text/html; charset=utf-8",
)
