"""Why something did not reach Slack, in words: Slack's own codes say little to who reads them."""

from __future__ import annotations

import re

_TOKEN = "Slack does not take the app's token any more"  # noqa: S105  words, no token
_WORDS = {
    "account_inactive": "Slack has turned the app off",
    "channel_not_found": "there is no such channel, or the app is not in it",
    "file_uploads_disabled": "the workspace takes no files",
    "invalid_auth": _TOKEN,
    "invalid_blocks": "Slack does not take the message as it is",
    "is_archived": "the channel is archived",
    "missing_scope": "the app lacks a permission; `airlock doctor slack` names it",
    "msg_blocks_too_long": "Slack finds the message too long",
    "msg_too_long": "Slack finds the message too long",
    "not_in_channel": "the app is not in the channel, and has to be invited",
    "ratelimited": "Slack asks to wait",
    "restricted_action": "the workspace does not let the app post there",
    "token_expired": _TOKEN,
    "token_revoked": _TOKEN,
}


def failure_words(error: str) -> str:
    """Return an outcome's error as part of a sentence, with the code that an operator looks up."""
    if error in _WORDS:
        return f"{_WORDS[error]} ({error})"
    if re.fullmatch(r"[a-z]+(_[a-z]+)*", error):
        return f"Slack says {error}"
    if re.fullmatch(r"([A-Z][a-z]+)+", error):
        return f"Slack does not answer ({error})"
    return error
