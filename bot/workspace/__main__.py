"""Starts the workspace from the command line."""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web

from .manifest import ManifestBroken, load_manifest
from .progress import GuideBroken
from .server import make_app
from .workspace import Settings, Workspace, write_atomically

LOOPBACK = "127.0.0.1"


def main() -> int:
    """Reads the arguments and serves until told to stop."""
    args = _arguments()
    try:
        manifest = load_manifest(args.manifest)
        guide = json.loads(args.guide.read_text("utf-8")) if args.guide else {}
    except (ManifestBroken, OSError, ValueError) as error:
        sys.stderr.write(f"workspace: {error}\n")
        return 2
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, args.port))
    except OSError as error:
        sys.stderr.write(f"workspace: port `{args.port}` cannot be used: {error}\n")
        return 2
    settings = Settings(args.state, listener.getsockname()[1], manifest, guide, args.psql)
    try:
        asyncio.run(serve(settings, listener, args.ready))
    except GuideBroken as error:
        sys.stderr.write(f"workspace: {error}\n")
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot.workspace", description="A local workspace for one app.")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where messages and tokens are kept")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the app's manifest, JSON")
    parser.add_argument("--guide", type=Path, metavar="FILE", help="what to try next, JSON")
    parser.add_argument("--psql", type=Path, metavar="FILE", help="the psql program of the terminal pane")
    parser.add_argument("--ready", type=Path, metavar="FILE", help="written when it listens")
    return parser.parse_args()


async def serve(settings: Settings, listener: socket.socket, ready: Path | None) -> None:
    """Serves until SIGTERM or SIGINT."""
    space = Workspace(settings)
    runner = web.AppRunner(make_app(space), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    space.write_app_file()
    if ready is not None:
        body = {"url": settings.origin, "pid": os.getpid(), "app": str(space.app_file)}
        write_atomically(ready, body)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await space.close()
    await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
