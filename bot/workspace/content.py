"""What a message may consist of, checked against Slack's limits before it is posted or edited."""

import json
from typing import Any

from .checks import characters, check_blocks, length
from .errors import SlackError
from .limits import MESSAGE_BLOCK_CHARACTERS, MESSAGE_TEXT_KEPT, METADATA_BYTES


def read_json(value: Any, refusal: str) -> Any:
    """Takes an argument that may be JSON text or already decoded."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise SlackError(refusal) from error


def read_content(args: dict[str, Any], *, files: bool = False) -> dict[str, Any]:
    """Gives the checked `text`, `blocks` and `metadata` of a message."""
    if args.get("attachments") not in (None, [], "[]"):
        raise SlackError("invalid_attachments")
    text = args.get("text")
    if text is not None and not isinstance(text, str):
        raise SlackError("invalid_arguments", ["[ERROR] must be a string [json-pointer:/text]"])
    blocks = read_blocks(args.get("blocks"))
    if not (text or "").strip() and not blocks and not files:
        raise SlackError("no_text")
    body: dict[str, Any] = {"text": (text or "")[:MESSAGE_TEXT_KEPT]}
    if blocks:
        body["blocks"] = blocks
    metadata = read_metadata(args.get("metadata"))
    if metadata is not None:
        body["metadata"] = metadata
    return body


def read_blocks(value: Any) -> list[dict[str, Any]]:
    """Gives the checked blocks of a message, empty when there are none."""
    blocks = read_json(value, "invalid_blocks_format")
    if blocks in (None, []):
        return []
    if not isinstance(blocks, list):
        raise SlackError("invalid_blocks_format")
    problems = check_blocks(blocks)
    if problems:
        lines = [problem.line("/blocks") for problem in problems]
        raise SlackError("invalid_blocks", lines, errors=[line.removeprefix("[ERROR] ") for line in lines])
    if characters(blocks) > MESSAGE_BLOCK_CHARACTERS:
        raise SlackError("msg_blocks_too_long")
    copied: list[dict[str, Any]] = json.loads(json.dumps(blocks))
    return copied


def read_metadata(value: Any) -> dict[str, Any] | None:
    """Gives checked message metadata; None when it was not given."""
    metadata = read_json(value, "invalid_metadata_format")
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise SlackError("invalid_metadata_format")
    if metadata and (
        not isinstance(metadata.get("event_type"), str) or not isinstance(metadata.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_schema")
    if length(json.dumps(metadata)) > METADATA_BYTES:
        raise SlackError("metadata_too_large")
    return metadata
