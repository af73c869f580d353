"""Receives calls: arguments merged from query, form and JSON, token and scopes checked, faults met."""

import asyncio
import json
from typing import Any

from aiohttp import web

from ..errors import SlackError
from ..faults import CallFault
from ..posting import respond as carry_out
from ..workspace import Workspace
from . import METHODS
from .table import Args, Method

WORKSPACE: web.AppKey[Workspace] = web.AppKey("workspace", Workspace)


async def call(request: web.Request) -> web.StreamResponse:
    """Answers one Web API call."""
    space = request.app[WORKSPACE]
    name = request.match_info["method"]
    args = await _arguments(request)
    fault = space.faults.for_call(name) or space.faults.too_fast(name, str(args.get("channel", "")))
    if fault is not None and (fault.status != 200 or fault.drop == "before"):
        space.journal.note("from_app", name, args, {"fault": fault.status, "drop": fault.drop})
        return await _fail(request, fault)
    answer = _answer(space, request, name, args)
    told = answer if fault is None else {**answer, "drop": fault.drop}
    space.journal.note("from_app", name, {k: v for k, v in args.items() if k != "token"}, told)
    if fault is not None and fault.drop == "after":
        return await _fail(request, fault)
    scopes = ",".join(sorted(space.manifest.scopes or ()))
    return web.json_response(answer, headers={"X-OAuth-Scopes": scopes})


async def _fail(request: web.Request, fault: CallFault) -> web.StreamResponse:
    if fault.drop is not None:
        if request.transport is not None:
            request.transport.abort()
        await asyncio.sleep(0)
        return web.Response(status=500)
    if fault.status == 429:
        headers = {"Retry-After": str(fault.retry_after)}
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
    return web.json_response({"ok": False, "error": "internal_error"}, status=fault.status)


def _answer(space: Workspace, request: web.Request, name: str, args: Args) -> dict[str, Any]:
    method = METHODS.get(name)
    try:
        if method is None:
            raise SlackError("unknown_method", req_method=name)
        _authorize(space, request, method, args)
        return {"ok": True, **method.run(space, args)}
    except SlackError as refusal:
        return refusal.answer()


def _authorize(space: Workspace, request: web.Request, method: Method, args: Args) -> None:
    if method.bearer == "none":
        return
    header = request.headers.get("Authorization", "")
    token = header.removeprefix("Bearer ").strip() if header else str(args.get("token", ""))
    if not token:
        raise SlackError("not_authed")
    if token not in (space.bot_token, space.app_token):
        raise SlackError("invalid_auth")
    if token != (space.bot_token if method.bearer == "bot" else space.app_token):
        raise SlackError("not_allowed_token_type")
    provided = space.manifest.scopes
    if method.scopes and provided is not None and not provided & set(method.scopes):
        raise SlackError("missing_scope", needed=method.scopes[0], provided=",".join(sorted(provided)))


async def _arguments(request: web.Request) -> Args:
    args: Args = dict(request.query)
    if request.content_type == "application/json":
        raw = await request.text()
        try:
            body = json.loads(raw) if raw else {}
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict):
            args |= body
    elif request.can_read_body:
        args |= {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    return args


async def upload(request: web.Request) -> web.Response:
    """Takes the bytes of a file."""
    space = request.app[WORKSPACE]
    if not space.files.fill(request.match_info["upload"], await request.read()):
        return web.Response(status=404, text="unknown upload")
    return web.Response(text="OK")


async def respond(request: web.Request) -> web.Response:
    """Takes what the app sends to a response URL."""
    space = request.app[WORKSPACE]
    try:
        wish = json.loads(await request.text())
        if not isinstance(wish, dict):
            raise SlackError("invalid_payload")
        carry_out(space, space.response_urls.use(request.match_info["secret"]), wish)
    except (ValueError, RecursionError):
        return web.json_response({"ok": False, "error": "invalid_payload"}, status=400)
    except SlackError as refusal:
        status = 404 if refusal.name in ("expired_url", "used_url") else 400
        space.journal.note("from_app", "response_url", wish, refusal.answer())
        return web.json_response(refusal.answer(), status=status)
    space.journal.note("from_app", "response_url", wish, {"ok": True})
    return web.Response(text="ok")
