"""The HTTP server: routes, and the guard at the door."""

from pathlib import Path

from aiohttp import web

from .api.serve import WORKSPACE, call, respond, upload
from .files import LARGEST
from .local import clicking, looking, running, submitting, talking
from .local.live import live
from .local.terminal import terminal
from .local.wire import Handler, posted, read
from .workspace import Workspace

STATIC = Path(__file__).parent / "static"
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

POSTS = {
    "command": talking.command,
    "message": talking.message,
    "home": talking.open_home,
    "read": talking.mark_read,
    "click": clicking.click,
    "shortcut": clicking.shortcut,
    "suggest": clicking.suggest,
    "submit": submitting.submit,
    "close": submitting.close,
    "faults": running.arm,
    "guide": running.change_guide,
    "people": running.change_person,
    "groups": running.change_group,
}
READS = {
    "messages": looking.messages,
    "views": looking.views,
    "users": looking.users,
    "channels": looking.channels,
    "workspace": looking.overview,
    "journal": running.journal,
    "faults": running.faults,
}


def make_app(space: Workspace) -> web.Application:
    """Builds the server around a workspace."""
    app = web.Application(middlewares=[guard], client_max_size=LARGEST + 1024)
    app[WORKSPACE] = space
    app.router.add_route("*", "/api/{method}", call)
    app.router.add_get("/socket", space.sockets.serve)
    app.router.add_post("/upload/{upload}", upload)
    app.router.add_post("/response/{secret}", respond)
    app.router.add_get("/files/{file}/{name}", looking.file)
    for name, act in POSTS.items():
        app.router.add_post(f"/local/{name}", posted(act))
    for name, look in READS.items():
        app.router.add_get(f"/local/{name}", read(look))
    app.router.add_get("/local/live", live)
    app.router.add_get("/local/terminal", terminal)
    app.router.add_get("/archives/{channel}/{message}", permalink)
    app.router.add_get("/", page)
    app.router.add_static("/static/", STATIC)
    return app


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses foreign hosts and origins (DNS rebinding, cross-site requests) and sets the page's headers."""
    port = request.app[WORKSPACE].settings.port
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
    if request.host not in hosts:
        raise web.HTTPForbidden(text="wrong host")
    origin = request.headers.get("Origin")
    if origin is not None and origin not in {f"http://{host}" for host in hosts}:
        raise web.HTTPForbidden(text="wrong origin")
    response = await handler(request)
    if not response.prepared:
        response.headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-store")
    return response


async def page(request: web.Request) -> web.StreamResponse:
    """Gives the page."""
    return web.FileResponse(STATIC / "index.html")


async def permalink(request: web.Request) -> web.StreamResponse:
    """Leads from a permanent link to the message in the page."""
    digits = request.match_info["message"].removeprefix("p")
    if not digits.isascii() or not digits.isdigit() or len(digits) < 7:
        raise web.HTTPNotFound(text="no such message")
    channel = request.app[WORKSPACE].directory.channel(request.match_info["channel"])
    if channel is None:
        raise web.HTTPNotFound(text="no such channel")
    raise web.HTTPFound(f"/#{channel.id}/{digits[:-6]}.{digits[-6:]}")
