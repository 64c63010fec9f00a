"""Who may ask: by Host, token and origin; and the headers of every answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from pipelines.serve.guard import HEADERS, Guard

TOKEN = "0123456789abcdef-ü"
COOKIE = Guard(FastAPI(), TOKEN, (), 0).cookie


def client(token: str | None = None, hosts: tuple[str, ...] = (), base: str = "http://127.0.0.1:8000") -> TestClient:
    """A small application behind a guard: GET / and POST /, which counts its body."""
    app = FastAPI()

    @app.get("/")
    def read(request: Request) -> dict[str, Any]:
        return dict(request.query_params)

    @app.post("/")
    async def write(request: Request) -> int:
        return len(await request.body())

    return TestClient(Guard(app, token, hosts, 1000), base_url=base)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8000", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:8000", True),
        ("192.168.1.7:8000", True), ("sounds.example", True), ("SOUNDS.example:80", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("localhost.evil.example", False), ("", False),
        ("127.0.0.1@evil.example", False), ("[::1", False),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_lead_here_is_refused(host: str, known: bool) -> None:
    asked = client(hosts=("sounds.example",)).get("/", headers={"host": host})
    assert asked.status_code == (200 if known else 400)


def test_every_answer_has_the_headers_refusals_too() -> None:
    for answer in (client().get("/"), client().get("/none"), client(TOKEN).get("/"), client().post("/")):
        for name, value in HEADERS:
            assert answer.headers[name.decode()] == value.decode()
        assert answer.headers["cache-control"] == "no-store"
    policy = dict(part.split(" ", 1) for part in client().get("/").headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'" and "unsafe" not in str(policy) and "script-src" not in policy


def test_without_the_token_nothing_is_told() -> None:
    asked = client(TOKEN)
    for given in ({}, {"params": {"token": "wrong"}}, {"headers": {"authorization": "Bearer wrong"}},
                  {"headers": {"cookie": f"{COOKIE}={TOKEN[:-2]}"}}, {"headers": {"authorization": "Bearer "}},
                  {"params": {"token": ""}}):  # fmt: skip
        answer = asked.get("/", **given)
        assert answer.status_code == 401 and "set-cookie" not in answer.headers
        assert TOKEN not in answer.text
    assert asked.post("/", json={}).status_code == 401
    plain = "0123456789abcdef"
    for name in (COOKIE, Guard(FastAPI(), plain, (), 0).cookie, "token"):
        assert client(plain).get("/", headers={"cookie": f"{name}={plain}"}).status_code == 401, (
            "no cookie is the token"
        )


def test_the_token_in_an_address_becomes_a_cookie_and_leaves_the_address() -> None:
    asked = client(TOKEN)
    first = asked.get("/", params={"token": TOKEN, "q": '"><script>'}, follow_redirects=False)
    assert first.status_code == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie and TOKEN not in first.text
    assert "q=%22%3E%3Cscript%3E" in first.text and "<script>" not in first.text
    assert asked.get("/", params={"q": "x"}).json() == {"q": "x"}
    assert asked.post("/", json={}).status_code == 200


def status_with(token: str, authorization: bytes) -> int:
    """Of a request with this header, as its bytes came over the wire."""
    told: list[Any] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def asked() -> None:
        headers = [(b"host", b"127.0.0.1"), (b"authorization", authorization)]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}

        async def receive() -> Any:
            raise AssertionError("a GET has no body")

        async def send(message: Any) -> None:
            told.append(message)

        await Guard(answer, token, (), 0)(scope, receive, send)

    asyncio.run(asked())
    return int(told[0]["status"])


@pytest.mark.parametrize("token", ["0123456789abcdef", TOKEN])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])  # of curl, of Python's urllib
def test_programs_send_the_token_in_a_header(token: str, encoding: str) -> None:
    sent = token.encode(encoding)
    assert status_with(token, b"Bearer " + sent) == status_with(token, b"bearer  " + sent) == 200
    for wrong in (b"Bearer " + sent + b"x", b"Bearer " + sent[:-1], b"Basic " + sent, b"Bearer", b"Bearer \xff"):
        assert status_with(token, wrong) == 401, wrong


def test_the_printed_address_works_as_often_as_it_is_opened() -> None:
    asked = client(TOKEN)
    for _ in range(2):
        answer = asked.get("/", params={"token": TOKEN, "q": "x"})
        assert answer.status_code == 200 and TOKEN not in answer.text and "set-cookie" in answer.headers
    wrong = asked.get("/", params={"token": "another"})
    assert wrong.status_code == 401 and "another" not in wrong.text
    assert client(TOKEN).post("/", params={"token": TOKEN}, json={}).status_code == 401, "nothing was written"


def test_two_servers_of_a_host_do_not_log_each_other_out() -> None:
    """Cookies know no ports."""
    one, two = client(TOKEN), client("fedcba9876543210", base="http://127.0.0.1:9000")
    kept: dict[str, str] = {}  # as a browser keeps them
    for asked, token in ((one, TOKEN), (two, "fedcba9876543210")):
        given = asked.get("/", params={"token": token}).headers["set-cookie"].partition(";")[0]
        kept[given.partition("=")[0]] = given
        asked.cookies.clear()
    for asked in (one, two):
        assert asked.get("/").status_code == 401
        assert asked.get("/", headers={"cookie": "; ".join(kept.values())}).json() == {}


def test_an_address_never_leads_to_another_server() -> None:
    first = client(TOKEN).get("http://127.0.0.1:8000//evil.example/", params={"token": TOKEN}, follow_redirects=False)
    assert "evil.example" not in first.text
    for path in ("/%5Cevil.example", "/a%3Fb%22%3E"):  # a backslash is a slash to browsers
        answer = client(TOKEN).get(path, params={"token": TOKEN, "q": "x"})
        assert f'url={path}?q=x"' in answer.text, "the same place, as it was written"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "application/json; charset=utf-8", "origin": "http://127.0.0.1:8000"}, 200),
        ({"content-type": "application/octet-stream", "sec-fetch-site": "same-origin"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({}, 415),
        ({"content-type": "application/json", "origin": "http://evil.example"}, 403),
        ({"content-type": "application/json", "origin": "null"}, 403),
        ({"content-type": "application/json", "origin": "http://127.0.0.1:9000"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "same-site"}, 403),
        ({"content-type": "application/octet-stream", "content-length": "1001"}, 413),
        ({"content-type": "application/octet-stream", "content-length": "-5"}, 413),
    ],
)
def test_changes_come_from_our_own_pages(headers: dict[str, str], status: int) -> None:
    assert client().post("/", content=b"{}", headers=headers).status_code == status


def test_a_body_that_is_longer_than_it_says_is_ended() -> None:
    def unsaid() -> Any:
        yield from [b"x" * 300] * 4

    kind = {"content-type": "application/octet-stream"}
    with pytest.raises(ClientDisconnect):  # the server hangs up
        client().post("/", content=unsaid(), headers=kind)
