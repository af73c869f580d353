"""The routes of the broker's API: a call is a line of the table, and a line says who may make it."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.api.problems import HEADERS, as_problems
from broker.sessions.services import (
    Callers,
    EventFeed,
    Grants,
    HoldDesk,
    Monitor,
    Orders,
    Recordings,
    Refusal,
    ShapeDesk,
    TicketDesk,
)
from workflows.wire import HoldAnswerBody, OrderBody

MAX_BODY_BYTES = 128 * 1024
MAX_WAIT_SECONDS = 30.0
MAX_EVENTS = 5000
_NDJSON = "application/x-ndjson"
Model = TypeVar("Model", bound=BaseModel)
Given = TypeVar("Given")


class Auth(StrEnum):
    """Who may make a call."""

    CALL = "call"
    """Who holds a token that the bot's key signed for this method and path."""
    ORDER = "order"
    """Anybody: the body is a signed order, which authenticates itself."""
    OPEN = "open"
    """Anybody: the answer says nothing of anybody."""
    LOOPBACK = "loopback"
    """Who is on this machine."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the calls are answered with."""

    callers: Callers
    orders: Orders
    grants: Grants
    tickets: TicketDesk
    feed: EventFeed
    recordings: Recordings
    monitor: Monitor
    holds: HoldDesk
    shapes: ShapeDesk


@dataclass(frozen=True, slots=True)
class Call:
    """An authenticated request: `actor` is who it is made for, as the token says."""

    request: web.Request
    services: Services
    actor: str


Answer = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call; `auth` has no default, so that none is forgotten."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    auth: Auth
    answer: Answer


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EndBody(_Body):
    """Of `DELETE /v1/grants/{id}`, as JSON or in the query."""

    by: str = Field(default="", max_length=64)
    reason: str = Field(default="", max_length=2000)
    kind: Literal["end", "revoke"] | None = None


class WithdrawQuery(_Body):
    reason: str = Field(default="", max_length=2000)


class MintBody(_Body):
    by: str = Field(default="", max_length=64)


class EventsQuery(_Body):
    after: str = ""
    wait: float = Field(default=25.0, ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)
    limit: int = Field(default=500, ge=1, le=MAX_EVENTS)
    fold: bool = False


class RequestQuery(_Body):
    request: str = Field(pattern=r"^[A-Za-z0-9_-]{4,64}$")


class HoldQuery(_Body):
    """Of `GET /v1/holds/{id}`: the grant whose recording has a hold that the desk has let go of."""

    grant: str = Field(default="", pattern=r"^([A-Za-z0-9_-]{4,64})?$")


class RecordingQuery(_Body):
    format: Literal["text", "json", "ndjson"] = "text"
    full: bool = False


async def post_grant(call: Call) -> web.StreamResponse:
    body = await _body(call, OrderBody)
    accepted = await call.services.orders.accept(body.order)
    return _json(accepted.grant, 201 if accepted.made else 200)


async def find_grant(call: Call) -> web.StreamResponse:
    return _json(await call.services.grants.of_request(_query(call, RequestQuery).request))


async def get_grant(call: Call) -> web.StreamResponse:
    return _json(await call.services.grants.get(_id(call)))


async def end_grant(call: Call) -> web.StreamResponse:
    body = await _body(call, EndBody) if call.request.can_read_body else _query(call, EndBody)
    return _json(await call.services.grants.end(_id(call), body.by or call.actor, body.reason, body.kind))


async def mint_ticket(call: Call) -> web.StreamResponse:
    body = await _body(call, MintBody) if call.request.can_read_body else _query(call, MintBody)
    return _json(await call.services.tickets.mint(_id(call), body.by or call.actor), 201)


async def get_hold(call: Call) -> web.StreamResponse:
    hold, grant = _id(call, "hold"), _query(call, HoldQuery).grant
    try:
        return _json(await call.services.holds.get(hold))
    except Refusal as refusal:
        if refusal.code != "not_found" or not grant:
            raise
    # Its card still shows it, whatever broker it was that held it.
    return _json(await call.services.recordings.held(grant, hold, call.actor))


async def answer_hold(call: Call) -> web.StreamResponse:
    body = await _body(call, HoldAnswerBody)
    return _json(await call.services.holds.answer(_id(call, "hold"), body.answer))


async def get_shape(call: Call) -> web.StreamResponse:
    return _json(await call.services.shapes.get(_id(call, "shape")))


async def withdraw_shape(call: Call) -> web.StreamResponse:
    reason = _query(call, WithdrawQuery).reason
    return _json(await call.services.shapes.withdraw(_id(call, "shape"), call.actor, reason))


async def get_events(call: Call) -> web.StreamResponse:
    query = _query(call, EventsQuery)
    events = await call.services.feed.read(query.after, query.limit, query.wait, fold=query.fold)
    text = "".join(event.model_dump_json() + "\n" for event in events)
    return web.Response(text=text, content_type=_NDJSON, headers=HEADERS)


async def get_recording(call: Call) -> web.StreamResponse:
    query = _query(call, RecordingQuery)
    recordings = call.services.recordings
    read = recordings.transcript if query.format == "text" else recordings.lines
    chunks = read(_id(call), query.full, call.actor)
    first = await anext(chunks, b"")  # refusals come before there is an answer to spoil
    kind = "text/plain; charset=utf-8" if query.format == "text" else _NDJSON
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": kind})
    await response.prepare(call.request)
    await response.write(first)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


async def get_health(_call: Call) -> web.StreamResponse:
    return web.json_response({"live": True}, headers=HEADERS)


async def get_ready(call: Call) -> web.StreamResponse:
    unready = call.services.monitor.unready()
    return web.json_response(
        {"ready": not unready, "reasons": unready}, status=503 if unready else 200, headers=HEADERS
    )


async def get_metrics(call: Call) -> web.StreamResponse:
    headers = {**HEADERS, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=call.services.monitor.metrics(), headers=headers)


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/grants", Auth.ORDER, post_grant),
    Route("GET", "/v1/grants", Auth.CALL, find_grant),
    Route("GET", "/v1/grants/{id}", Auth.CALL, get_grant),
    Route("DELETE", "/v1/grants/{id}", Auth.CALL, end_grant),
    Route("POST", "/v1/grants/{id}/tickets", Auth.CALL, mint_ticket),
    Route("GET", "/v1/holds/{id}", Auth.CALL, get_hold),
    Route("POST", "/v1/holds/{id}/answers", Auth.ORDER, answer_hold),
    Route("GET", "/v1/shapes/{id}", Auth.CALL, get_shape),
    Route("DELETE", "/v1/shapes/{id}", Auth.CALL, withdraw_shape),
    Route("GET", "/v1/events", Auth.CALL, get_events),
    Route("GET", "/v1/recordings/{id}", Auth.CALL, get_recording),
    Route("GET", "/v1/health", Auth.OPEN, get_health),
    Route("GET", "/v1/ready", Auth.OPEN, get_ready),
    Route("GET", "/metrics", Auth.LOOPBACK, get_metrics),
)


def make_app(services: Services, routes: tuple[Route, ...] = ROUTES) -> web.Application:
    """Make the application; every route goes through its own declaration of who may call."""
    app = web.Application(middlewares=[as_problems], client_max_size=MAX_BODY_BYTES)
    for route in routes:
        app.router.add_route(route.method, route.path, _guarded(route, services))
    return app


def _guarded(route: Route, services: Services) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        call = Call(request, services, _actor(route.auth, request, services))
        return await route.answer(call)

    async def counted(request: web.Request) -> web.StreamResponse:
        response = await as_problems(request, answer)
        services.monitor.called(f"{route.method} {route.path}", response.status)
        return response

    return counted


def _actor(auth: Auth, request: web.Request, services: Services) -> str:
    match auth:
        case Auth.CALL:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise Refusal("unauthorized", "this call needs a signed token", "Authorization: Bearer ...")
            return services.callers.actor(token.strip(), request.method, request.rel_url.raw_path)
        case Auth.LOOPBACK:
            if not request.remote or not ipaddress.ip_address(request.remote.partition("%")[0]).is_loopback:
                raise Refusal("denied", "this is answered on the broker's own machine only")
            return ""
        case Auth.ORDER | Auth.OPEN:
            return ""


def _json(model: BaseModel, status: int = 200) -> web.Response:
    text = model.model_dump_json()
    return web.Response(text=text, status=status, content_type="application/json", headers=HEADERS)


def _id(call: Call, noun: str = "grant") -> str:
    found = call.request.match_info["id"]
    if not (4 <= len(found) <= 64 and found.isascii() and found.replace("-", "").replace("_", "").isalnum()):
        raise Refusal("not_found", f"there is no such {noun}")
    return found


async def _body(call: Call, model: type[Model]) -> Model:
    return _read(model.model_validate_json, await call.request.read())


def _query(call: Call, model: type[Model]) -> Model:
    return _read(model.model_validate, dict(call.request.query))


def _read(validate: Callable[[Given], Model], given: Given) -> Model:
    try:
        return validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refusal("bad_request", f"`{where}`: {first['msg'].lower()}") from None
