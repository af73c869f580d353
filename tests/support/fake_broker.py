"""A broker's API without a broker behind it: obeys signed orders, keeps events, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from workflows.orders import Order, OrderInvalid, verify_call, verify_order
from workflows.wire import GrantView, TicketView


class FakeBroker:
    """Grants, tickets and events in memory; `refusals` and `away` are what goes wrong next."""

    def __init__(self, public_key: Path) -> None:
        self._public_key = public_key
        self.orders: list[Order] = []
        self.grants: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.refusals: list[tuple[int, dict[str, Any]]] = []
        self.away = False
        self.drop_after_order = 0
        self.minted: list[str] = []
        self.ended: list[tuple[str, str, str]] = []
        self._news = asyncio.Event()

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_post("/v1/grants", self._order)
        app.router.add_post("/v1/grants/{id}/tickets", self._mint)
        app.router.add_delete("/v1/grants/{id}", self._end)
        app.router.add_get("/v1/events", self._feed)
        app.router.add_get("/v1/recordings/{id}", self._recording)
        return app

    def happens(self, type: str, grant: str | None, **data: Any) -> None:
        """Append an event to the feed."""
        number = len(self.events) + 1
        at = datetime.now(UTC).isoformat()
        event = {"cursor": f"c{number}", "stream": "fake", "seq": number, "at": at, "type": type, "grant": grant}
        self.events.append({**event, "session": None, "data": data})
        self._news.set()

    def close(self, grant: str, state: str = "ended", by: str = "alice", **totals: Any) -> None:
        """End a grant as the broker would."""
        self.grants[grant]["state"] = state
        self.happens(f"grant.{state}", grant, by=by, state=state)
        told = {"statements": 3, "denied": 1, "sessions": 1, "verified": True, **totals}
        self.happens("grant.closed", grant, **told, masked=1, recording={"lines": 9, "hash": "f00d"})

    def _key(self) -> Ed25519PublicKey:
        key = load_pem_public_key(self._public_key.read_bytes())
        assert isinstance(key, Ed25519PublicKey)
        return key

    def _actor(self, request: web.Request) -> str:
        if self.away:
            raise web.HTTPServiceUnavailable
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            return verify_call(token, request.method, request.path, self._key(), datetime.now(UTC))
        except OrderInvalid as error:
            raise web.HTTPUnauthorized(reason=str(error)) from None

    async def _order(self, request: web.Request) -> web.Response:
        if self.away:
            raise web.HTTPServiceUnavailable
        order = verify_order((await request.json())["order"], self._key(), datetime.now(UTC))
        self.orders.append(order)
        if self.refusals:
            status, problem = self.refusals.pop(0)
            return web.json_response(problem, status=status)
        known = next((grant for grant in self.grants.values() if grant["order"] == order.id), None)
        grant = known or self._open(order)
        if self.drop_after_order:
            self.drop_after_order -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response(grant, status=201)

    def _open(self, order: Order) -> dict[str, Any]:
        now = datetime.now(UTC)
        grant = GrantView.model_validate(
            {
                "id": f"g{len(self.grants) + 1:08d}",
                "request": order.request,
                "person": order.requester,
                "resource": order.resource,
                "role": order.role,
                "state": "active",
                "opened_at": now,
                "expires_at": now + timedelta(seconds=order.seconds),
            }
        ).model_dump(mode="json")
        grant["order"] = order.id
        self.grants[grant["id"]] = grant
        facts = {key: grant[key] for key in ("request", "order", "person", "resource", "role", "expires_at")}
        self.happens("grant.opened", grant["id"], **facts, policy=order.policy_hash)
        return grant

    async def _mint(self, request: web.Request) -> web.Response:
        actor = self._actor(request)
        grant = self.grants[request.match_info["id"]]
        if grant["state"] != "active":
            return web.json_response({"code": "over", "message": "this access is over"}, status=409)
        secret = f"secret-{len(self.minted) + 1:04d}"
        self.minted.append(secret)
        user = f"{actor}.k3f{len(self.minted)}"
        place = f"host=127.0.0.1 port=5433 dbname={grant['resource']} user={user} sslmode=require"
        ticket = TicketView(
            id=f"t{len(self.minted)}",
            grant=grant["id"],
            protocol="postgres",
            host="127.0.0.1",
            port=5433,
            user=user,
            password=secret,
            database=grant["resource"],
            line=f'PGPASSWORD={secret} psql "{place}"',
            expires_at=datetime.fromisoformat(grant["expires_at"]),
        )
        return web.json_response(ticket.model_dump(mode="json"), status=201)

    async def _end(self, request: web.Request) -> web.Response:
        actor = self._actor(request)
        grant = request.match_info["id"]
        kind = request.query.get("kind", "end")
        self.ended.append((grant, actor, kind))
        if self.grants[grant]["state"] == "active":
            self.close(grant, "ended" if kind == "end" else "revoked", actor)
        return web.json_response({**self.grants[grant], "verified": True})

    async def _feed(self, request: web.Request) -> web.Response:
        self._actor(request)
        after = request.query.get("after", "")
        start = int(after.removeprefix("c") or 0)
        deadline = asyncio.get_running_loop().time() + min(float(request.query.get("wait", "0")), 2)
        while len(self.events) <= start and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                break
        lines = "".join(json.dumps(event) + "\n" for event in self.events[start:])
        return web.Response(text=lines, content_type="application/x-ndjson")

    async def _recording(self, request: web.Request) -> web.Response:
        self._actor(request)
        if request.query["format"] == "json":
            return web.Response(text='{"type": "statement.allowed"}\n', content_type="application/x-ndjson")
        return web.Response(text=f"transcript of {request.match_info['id']}\n")


@asynccontextmanager
async def fake_broker(public_key: Path) -> AsyncIterator[tuple[FakeBroker, str]]:
    """Serve a fake broker on a free port; gives it and its address."""
    broker = FakeBroker(public_key)
    runner = web.AppRunner(broker.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield broker, f"http://{host}:{port}"
    finally:
        await runner.cleanup()
