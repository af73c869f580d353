"""The API's rim: every route says who may call it, and nobody else may."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.callers import OrderKey
from broker.adapters.clock import SystemClock
from broker.api.problems import STATUS
from broker.api.routes import ROUTES, Auth, Route, Services, _actor, make_app
from broker.errors import AirlockError, RecordingFailed
from broker.sessions.services import Refusal
from workflows.orders import sign_call
from workflows.wire import Problem

KEY = Ed25519PrivateKey.generate()


class Callers(OrderKey):
    def __init__(self) -> None:
        self._clock = SystemClock()

    def _key(self) -> Any:
        return KEY.public_key()


class Nothing:
    """Services that must not be reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.error: Exception = Refusal("not_found", "nothing here")

    def __getattr__(self, name: str) -> Any:
        async def reached(*_args: Any, **_options: Any) -> Any:
            self.reached.append(name)
            raise self.error

        async def chunks(*_args: Any) -> AsyncIterator[bytes]:
            yield await reached()

        return chunks if name in {"lines", "transcript"} else reached

    def unready(self) -> list[str]:
        return ["no reaper"]

    def metrics(self) -> bytes:
        return b"airlock 1\n"

    def called(self, route: str, status: int) -> None:
        pass


class Served:
    def __init__(self, url: str, http: aiohttp.ClientSession, nothing: Nothing) -> None:
        self.url, self.http, self.nothing = url, http, nothing

    async def call(self, method: str, path: str, token: str | None = None, **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.http.request(method, self.url + path, headers=headers, **options) as answer:
            assert answer.headers["Content-Type"].startswith(("application/json", "text/plain"))
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    nothing: Any = Nothing()
    app = make_app(Services(Callers(), *[nothing] * 8))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as http:
        yield Served(f"http://{host}:{port}", http, nothing)
    await runner.cleanup()


def test_every_route_of_the_router_is_declared() -> None:
    nothing: Any = Nothing()
    app = make_app(Services(Callers(), *[nothing] * 8))
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert served == {(route.method, route.path) for route in ROUTES}
    assert "auth" in Route.__dataclass_fields__
    assert {route.path for route in ROUTES if route.auth is not Auth.CALL} == {
        "/v1/grants",
        "/v1/holds/{id}/answers",
        "/v1/health",
        "/v1/ready",
        "/metrics",
    }


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_route_answers_only_whom_it_says(served: Served, route: Route) -> None:
    path = route.path.replace("{id}", "grant1234")
    now = datetime.now(UTC)
    tokens = {
        "none": None,
        "empty": "",
        "garbage": "x.y.z",
        "wrong key": sign_call(route.method, path, Ed25519PrivateKey.generate(), now),
        "expired": sign_call(route.method, path, KEY, now - timedelta(minutes=2)),
        "early": sign_call(route.method, path, KEY, now + timedelta(minutes=2)),
        "wrong path": sign_call(route.method, f"{path}x", KEY, now),
        "wrong method": sign_call("PUT", path, KEY, now),
    }
    for name, token in tokens.items():
        status, body = await served.call(route.method, path, token)
        match route.auth:
            case Auth.CALL:
                assert (status, body["code"]) == (401, "unauthorized"), name
            case Auth.ORDER:
                assert (status, body["code"]) == (400, "bad_request"), name
            case Auth.OPEN | Auth.LOOPBACK:
                assert status in {200, 503}, name
    assert not served.nothing.reached
    if route.auth is Auth.CALL:
        query = {"request": "request1"} if path == "/v1/grants" else {}
        status, body = await served.call(route.method, path, sign_call(route.method, path, KEY, now), params=query)
        assert (status, body["code"]) == (404, "not_found")
        assert served.nothing.reached


@pytest.mark.parametrize(
    ("method", "path", "params"),
    [
        ("GET", "/v1/events", {"wait": "31"}),
        ("GET", "/v1/events", {"wait": "nan"}),
        ("GET", "/v1/events", {"limit": "0"}),
        ("GET", "/v1/events", {"what": "1"}),
        ("GET", "/v1/grants", {}),
        ("GET", "/v1/grants", {"request": "a b"}),
        ("DELETE", "/v1/grants/grant1234", {"kind": "destroy"}),
        ("GET", "/v1/recordings/grant1234", {"format": "xml"}),
    ],
)
async def test_bad_parameters_are_said(served: Served, method: str, path: str, params: dict[str, str]) -> None:
    token = sign_call(method, path, KEY, datetime.now(UTC))
    status, body = await served.call(method, path, token, params=params)
    assert (status, body["code"]) == (400, "bad_request")
    assert "`" in body["message"]


async def test_bad_ids_and_bodies_are_said(served: Served) -> None:
    now = datetime.now(UTC)
    for bad in ("x", "a" * 65, "gr%0Ant12"):
        status, body = await served.call("GET", f"/v1/grants/{bad}", sign_call("GET", f"/v1/grants/{bad}", KEY, now))
        assert (status, body["code"]) in {(404, "not_found"), (401, "unauthorized")}
    for body_text in (b"{", b"[]", b"\xff", b'{"order": 3}'):
        status, body = await served.call("POST", "/v1/grants", data=body_text)
        assert (status, body["code"]) == (400, "bad_request")
    status, body = await served.call("POST", "/v1/grants", data=b"x" * 200_000)
    assert (status, body["code"]) == (413, "too_large")
    status, body = await served.call("GET", "/nowhere")
    assert (status, body["code"]) == (404, "not_found")
    status, body = await served.call("PUT", "/v1/grants")
    assert (status, body["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("code", STATUS)
async def test_each_refusal_has_its_status(served: Served, code: str) -> None:
    served.nothing.error = Refusal(code, "the message", "the hint")
    path = "/v1/grants/grant1234"
    status, body = await served.call("GET", path, sign_call("GET", path, KEY, datetime.now(UTC)))
    assert status == STATUS[code]
    assert Problem.model_validate(body) == Problem(code=code, message="the message", hint="the hint")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RecordingFailed("disk full"), 503, "recording"),
        (AirlockError("secret"), 503, "unavailable"),
        (RuntimeError("secret"), 500, "error"),
    ],
)
async def test_what_nobody_foresaw_says_nothing_of_its_inside(
    served: Served, error: Exception, status: int, code: str
) -> None:
    served.nothing.error = error
    path = "/v1/grants/grant1234"
    found, body = await served.call("GET", path, sign_call("GET", path, KEY, datetime.now(UTC)))
    assert (found, body["code"]) == (status, code)
    assert "secret" not in str(body)


async def test_metrics_are_for_this_machine_only() -> None:
    nothing: Any = Nothing()
    services = Services(Callers(), *[nothing] * 8)
    for remote, allowed in (("127.0.0.1", True), ("::1", True), ("10.0.0.7", False), (None, False)):
        request: Any = SimpleNamespace(remote=remote)
        if allowed:
            assert _actor(Auth.LOOPBACK, request, services) == ""
        else:
            with pytest.raises(Refusal):
                _actor(Auth.LOOPBACK, request, services)


async def test_readiness_says_what_is_missing(served: Served) -> None:
    assert await served.call("GET", "/v1/ready") == (503, {"ready": False, "reasons": ["no reaper"]})
    assert await served.call("GET", "/v1/health") == (200, {"live": True})
