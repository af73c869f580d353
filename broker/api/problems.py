"""Answers that are not successes: Problem as JSON, whatever went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from broker.errors import AirlockError, RecordingFailed
from broker.sessions.services import Refusal
from workflows.wire import Problem

STATUS = {
    "bad_request": 400,
    "bad_cursor": 400,
    "unauthorized": 401,
    "order_invalid": 401,
    "denied": 403,
    "not_found": 404,
    "more_reviews": 409,
    "already": 409,
    "over": 409,
    "refused": 409,
    "too_many": 429,
    "recording": 503,
    "no_order_key": 503,
    "unavailable": 503,
}
"""The status of each code that a Refusal may carry."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = structlog.get_logger("api")


def problem(status: int, found: Problem) -> web.Response:
    """Answer with a problem."""
    text = found.model_dump_json(exclude_none=True)
    return web.Response(status=status, text=text, content_type="application/json", headers=HEADERS)


def refused(refusal: Refusal) -> web.Response:
    """Answer with what a service refused."""
    needs = [need.facts() for need in refusal.needs] or None
    found = Problem(code=refusal.code, message=refusal.message, hint=refusal.hint, needs=needs)
    return problem(STATUS.get(refusal.code, 500), found)


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into a problem; what nobody foresaw says nothing of its inside."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return refused(refusal)
    except web.HTTPException as error:
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status, "bad_request")
        return problem(error.status, Problem(code=code, message=error.reason.lower()))
    except RecordingFailed as error:
        return problem(503, Problem(code="recording", message=f"nothing can be recorded: {error}"))
    except AirlockError as error:
        _log.error("a call failed", path=request.path, error=type(error).__name__)
        return problem(503, Problem(code="unavailable", message=str(type(error).__doc__), hint="try again"))
    except Exception:  # noqa: BLE001  the rim: anything else would be answered with a page of HTML
        _log.exception("a call failed", path=request.path)
        return problem(500, Problem(code="error", message="something went wrong inside the broker"))
