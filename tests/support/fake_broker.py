"""A broker's API without a broker behind it: obeys signed orders, keeps events, and misbehaves on request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from policies.engine.decisions import Need, Requirement
from policies.engine.load import load
from policies.engine.model import Policy
from workflows.holds import HoldEvent, HoldState, moved
from workflows.orders import HoldAnswer, Order, OrderInvalid, verify_call, verify_hold_answer, verify_order
from workflows.reviews import Missing, Refused, tally
from workflows.wire import EstimateView, GrantView, HoldView, ShapeView, TicketView

POLICIES = Path(__file__).resolve().parents[2] / "policies"
_OVER = {HoldEvent.TIME_OUT: "timed_out", HoldEvent.ABANDON: "abandoned", HoldEvent.CONSUME: "consumed"}


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
        self.unreadable = 0
        """The status with which recordings are refused."""
        self.minted: list[str] = []
        self.extended: list[str] = []
        self.elapsed = timedelta()
        """How long ago a grant opens that opens now."""
        self.ended: list[tuple[str, str, str]] = []
        self.holds: dict[str, HoldView] = {}
        self.recorded: dict[tuple[str, str], HoldView] = {}
        """By grant and hold, what only the record knows any more."""
        self.shapes: dict[str, ShapeView] = {}
        self.answers: list[HoldAnswer] = []
        self.answered_at: list[float] = []
        self.drop_after_answer = 0
        self.won: dict[str, str] = {}
        """The id of the answer that decided a hold."""
        self.runs = True
        """Whether a released statement runs at once."""
        self._policy: Policy | None = None
        self._news = asyncio.Event()

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_post("/v1/grants", self._order)
        app.router.add_post("/v1/grants/{id}/tickets", self._mint)
        app.router.add_get("/v1/grants/{id}", self._grant)
        app.router.add_delete("/v1/grants/{id}", self._end)
        app.router.add_get("/v1/events", self._feed)
        app.router.add_get("/v1/recordings/{id}", self._recording)
        app.router.add_get("/v1/holds/{id}", self._hold)
        app.router.add_post("/v1/holds/{id}/answers", self._answer)
        app.router.add_get("/v1/shapes/{id}", self._shape)
        app.router.add_delete("/v1/shapes/{id}", self._shape)
        return app

    def hold(self, grant: str, text: str = "UPDATE orders SET total = 0 WHERE id = 7", **more: Any) -> str:
        """Hold a statement under a grant; gives the hold's id."""
        id = f"h{len(self.holds) + 1:08d}"
        now = datetime.now(UTC)
        view = HoldView(
            **{
                "id": id,
                "grant": grant,
                "session": "s00000001",
                "statement": "st000001",
                **{key: self.grants[grant][key] for key in ("person", "resource", "role")},
                "state": "waiting",
                "digest": hashlib.sha256(f"{id}{text}".encode("utf-8", "surrogatepass")).hexdigest(),
                "text": text,
                "effects": ["write"],
                "relations": ["public.orders"],
                "rules": ["prod-writes"],
                "needs": [{"count": 1, "groups": ["dbas"]}],
                "opened_at": now,
                "expires_at": now + timedelta(minutes=10),
                **more,
            }
        )
        self.holds[id] = view
        keys = {"digest", "rules", "needs", "relations", "effects", "waits", "expires_at"}
        told = view.model_dump(mode="json", include=keys)
        self.happens(
            "hold.opened",
            grant,
            session=view.session,
            hold=id,
            statement=view.statement,
            text="UPDATE ...",
            verb="UPDATE",
            **told,
        )
        return id

    def estimate(self, hold: str, **found: Any) -> None:
        """Say what the upstream says of a held statement, as the broker would."""
        estimate = EstimateView(**found)
        self.holds[hold] = self.holds[hold].model_copy(update={"estimate": estimate})
        self.happens("hold.estimated", self.holds[hold].grant, hold=hold, **estimate.model_dump(mode="json"))

    def over(self, hold: str, event: HoldEvent, **data: Any) -> None:
        """End a hold as the broker would."""
        self._move(hold, event)
        self.happens(f"hold.{_OVER[event]}", self.holds[hold].grant, hold=hold, **data)

    def _move(self, hold: str, event: HoldEvent) -> None:
        view = self.holds[hold]
        state = moved(HoldState(view.state), event)
        self.holds[hold] = view.model_copy(update={"state": state.value})

    def happens(self, type: str, grant: str | None, session: str | None = None, **data: Any) -> None:
        """Append an event to the feed."""
        number = len(self.events) + 1
        at = datetime.now(UTC).isoformat()
        event = {"cursor": f"c{number}", "stream": "fake", "seq": number, "at": at, "type": type, "grant": grant}
        self.events.append({**event, "session": session, "data": data})
        self._news.set()

    def close(self, grant: str, state: str = "ended", by: str = "alice", reason: str = "", **totals: Any) -> None:
        """End a grant as the broker would."""
        self.grants[grant]["state"] = state
        self.happens(f"grant.{state}", grant, by=by, state=state, reason=reason)
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
        if order.extends is not None:
            return self._extend(order)
        grant = known or self._open(order)
        if self.drop_after_order:
            self.drop_after_order -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response(grant, status=201)

    def _open(self, order: Order) -> dict[str, Any]:
        now = datetime.now(UTC) - self.elapsed
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
        facts = {
            key: grant[key] for key in ("request", "order", "person", "resource", "role", "opened_at", "expires_at")
        }
        self.happens("grant.opened", grant["id"], **facts, policy=order.policy_hash)
        return grant

    def _extend(self, order: Order) -> web.Response:
        grant = self.grants[str(order.extends)]
        if order.id not in self.extended:
            if grant["state"] != "active":
                message = f"this access is over ({grant['state']}), so it was not extended"
                hint = f"ask again: /access {grant['resource']} {grant['role']}"
                return web.json_response({"code": "over", "message": message, "hint": hint}, status=409)
            before = grant["expires_at"]
            until = datetime.fromisoformat(before) + timedelta(seconds=order.seconds)
            grant["expires_at"] = until.isoformat()
            self.extended.append(order.id)
            facts = {"request": order.request, "order": order.id, "seconds": order.seconds, "before": before}
            self.happens("grant.extended", grant["id"], **facts, expires_at=grant["expires_at"], by=[], rules=[])
        return web.json_response(grant, status=201)

    async def _mint(self, request: web.Request) -> web.Response:
        actor = self._actor(request)
        grant = self.grants[request.match_info["id"]]
        if grant["state"] != "active":
            return web.json_response(
                {"code": "over", "message": "this access is over", "hint": f"ask again: /access {grant['resource']}"},
                status=409,
            )
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

    async def _grant(self, request: web.Request) -> web.Response:
        self._actor(request)
        grant = self.grants.get(request.match_info["id"])
        if grant is None:
            return web.json_response({"code": "not_found", "message": "there is no such grant"}, status=404)
        return web.json_response(grant)

    async def _end(self, request: web.Request) -> web.Response:
        actor = self._actor(request)
        grant = request.match_info["id"]
        kind = request.query.get("kind", "end")
        self.ended.append((grant, actor, kind))
        if self.grants[grant]["state"] == "active":
            reason = request.query.get("reason", "")
            self.close(grant, "ended" if kind == "end" else "revoked", actor, reason)
        return web.json_response({**self.grants[grant], "verified": True})

    async def _hold(self, request: web.Request) -> web.Response:
        self._actor(request)
        view = self.holds.get(request.match_info["id"])
        if view is None:
            view = self.recorded.get((request.query.get("grant", ""), request.match_info["id"]))
        if view is None:
            return web.json_response({"code": "unknown", "message": "there is no such hold"}, status=404)
        return web.json_response(view.model_dump(mode="json"))

    async def _answer(self, request: web.Request) -> web.Response:
        self.answered_at.append(asyncio.get_running_loop().time())
        if self.away:
            raise web.HTTPServiceUnavailable
        answer = verify_hold_answer((await request.json())["answer"], self._key(), datetime.now(UTC))
        self.answers.append(answer)
        if self.refusals:
            status, problem = self.refusals.pop(0)
            return web.json_response(problem, status=status)
        view = self.holds[request.match_info["id"]]
        if self.won.get(view.id) == answer.id:
            return web.json_response(view.model_dump(mode="json"))
        if view.state != "waiting":
            return web.json_response({"code": "over", "message": f"the hold is {view.state}"}, status=409)
        if (answer.hold, answer.digest) != (view.id, view.digest):
            return web.json_response({"code": "digest", "message": "the answer is for another statement"}, status=422)
        response = self._tallied(view, answer)
        if self.drop_after_answer:
            self.drop_after_answer -= 1
            assert request.transport is not None
            request.transport.close()
        return response

    def _tallied(self, view: HoldView, answer: HoldAnswer) -> web.Response:
        self._policy = self._policy or load(POLICIES)
        requirement = Requirement(tuple(Need(need["count"], tuple(need["groups"])) for need in view.needs))
        count = tally(self._policy, requirement, view.person, [one.review() for one in answer.reviews])
        if isinstance(count, Missing):
            needs = [{"count": need.count, "groups": list(need.groups)} for need in count.needs]
            problem = {"code": "more_reviews", "message": "more reviews are needed", "needs": needs}
            return web.json_response(problem, status=409)
        self.won[view.id] = answer.id
        if isinstance(count, Refused):
            reason = next(one.reason for one in answer.reviews if one.person == count.by)
            self._move(view.id, HoldEvent.REFUSE)
            self.happens("hold.refused", view.grant, hold=view.id, by=count.by, reason=reason)
        else:
            self._move(view.id, HoldEvent.RELEASE)
            until = self.holds[view.id].model_dump(mode="json", include={"waits", "expires_at"})
            self.happens("hold.released", view.grant, hold=view.id, by=list(count.by), **until)
            if self.runs:
                self.over(view.id, HoldEvent.CONSUME, statement=view.statement)
            self._approve_shape(view, answer, list(count.by))
        return web.json_response(self.holds[view.id].model_dump(mode="json"))

    def _approve_shape(self, view: HoldView, answer: HoldAnswer, by: list[str]) -> None:
        if view.shape is None or not all(one.shape == view.shape.digest for one in answer.reviews):
            return
        id = f"shape-{len(self.shapes) + 1:04d}"
        offered, now = view.shape.model_dump(), datetime.now(UTC)
        facts = {"grant": view.grant, "hold": view.id, "redacted": view.redacted, "by": by, "most": view.most}
        self.shapes[id] = ShapeView(id=id, **offered, **facts, approved_at=now)
        self.happens("shape.approved", view.grant, shape=id, hold=view.id, by=by, most=view.most)

    async def _shape(self, request: web.Request) -> web.Response:
        actor = self._actor(request)
        id = request.match_info["id"]
        if request.method == "DELETE" and self.shapes[id].withdrawn_by is None:
            self.shapes[id] = self.shapes[id].model_copy(update={"withdrawn_by": actor})
            self.happens("shape.withdrawn", self.shapes[id].grant, shape=id, by=actor, reason="")
        return web.json_response(self.shapes[id].model_dump(mode="json"))

    async def _feed(self, request: web.Request) -> web.Response:
        self._actor(request)
        after = request.query.get("after", "")
        start = int(after.removeprefix("c") or 0)
        if start > len(self.events):
            return web.json_response({"code": "bad_cursor", "message": "this broker gave no such cursor"}, status=400)
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
        if self.unreadable:
            found = {"code": "not_found", "message": "there is no such recording"}
            return web.json_response(found, status=self.unreadable)
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
