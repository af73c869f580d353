"""files.*"""

from typing import Any

from ..content import read_content, read_json
from ..errors import SlackError
from ..files import LARGEST
from ..posting import by_app
from ..workspace import Workspace
from .table import Args, channel_of, joined_channel, method, need


@method("files.getUploadURLExternal", "files:write")
def upload_url(space: Workspace, args: Args) -> dict[str, Any]:
    """Reserves a file and gives the address its bytes go to."""
    name = need(args, "filename")
    try:
        size = int(args.get("length") or 0)
    except (TypeError, ValueError) as error:
        raise SlackError("invalid_arguments", ["[ERROR] length must be a number"]) from error
    if size <= 0:
        raise SlackError("invalid_arguments", ["[ERROR] length must be more than 0"])
    if size > LARGEST:
        raise SlackError("file_upload_size_restricted")
    file_id, upload = space.files.reserve(name, size)
    return {"upload_url": f"{space.settings.origin}/upload/{upload}", "file_id": file_id}


@method("files.completeUploadExternal", "files:write")
def complete(space: Workspace, args: Args) -> dict[str, Any]:
    """Ends an upload and shares the files into a channel or thread."""
    wanted = read_json(args.get("files"), "invalid_arguments")
    if not isinstance(wanted, list) or not wanted or not all(isinstance(entry, dict) for entry in wanted):
        raise SlackError("invalid_arguments", ["[ERROR] missing required field: files"])
    for entry in wanted:
        record = space.files.record(entry.get("id"))
        if record is None or not record.get("filled"):
            raise SlackError("file_not_found")
    channel = None
    if args.get("channel_id"):
        if args["channel_id"] not in space.directory.channels:
            raise SlackError("channel_not_found")
        channel = joined_channel(space, args, "channel_id")
    thread_ts = args.get("thread_ts")
    if thread_ts and channel is None:
        raise SlackError("invalid_arguments", ["[ERROR] thread_ts needs channel_id"])
    if thread_ts and channel and space.messages.find(channel.id, thread_ts) is None:
        raise SlackError("thread_not_found")
    target = channel.id if channel else None
    origin = space.settings.origin
    done = [
        space.files.as_api(space.files.complete(entry["id"], entry.get("title"), target), origin) for entry in wanted
    ]
    if channel is not None:
        comment = {"text": args.get("initial_comment") or "", "blocks": args.get("blocks")}
        body = by_app(space, read_content(comment, files=True))
        space.messages.post(channel.id, {**body, "files": done, "upload": False}, thread_ts=thread_ts)
    return {"files": done}


@method("files.info", "files:read")
def info(space: Workspace, args: Args) -> dict[str, Any]:
    """Describes a file."""
    record = space.files.record(args.get("file"))
    if record is None or record.get("upload"):
        raise SlackError("file_not_found")
    file = space.files.as_api(record, space.settings.origin)
    shares: dict[str, list[dict[str, Any]]] = {}
    for name in record["channels"]:
        channel = channel_of(space, {"channel": name})
        every = [m for m in space.messages.everything(channel.id) if _carries(m.body, record["id"])]
        shares[channel.id] = [{"ts": m.ts, "thread_ts": m.thread_ts, "channel_name": channel.name} for m in every]
    return {"file": {**file, "shares": {"public": shares}}, "comments": []}


def _carries(body: dict[str, Any], file_id: str) -> bool:
    return any(file["id"] == file_id for file in body.get("files", []))
