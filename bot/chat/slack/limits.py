"""Slack's limits on what this bot sends, as one table (Block Kit reference, `@slack/types` 3.2.0)."""

from __future__ import annotations

MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100
MESSAGE_CHARACTERS = 12_000
"""Of all blocks together; Slack refuses somewhere above 13,000."""
HOME_CHARACTERS = 60_000
"""Of all blocks of a home; Slack counts bytes, and refuses 250,000."""
BUTTON_URL = 3_000
FALLBACK = 3_900
HEADER = 150
SECTION = 3_000
FIELDS = 10
FIELD = 2_000
CONTEXT_ELEMENTS = 10
ACTION_ELEMENTS = 25
BUTTON_TEXT = 75
BUTTON_VALUE = 2_000
BUTTON_LABEL = 75
CONFIRM_TITLE = 100
CONFIRM_TEXT = 300
CONFIRM_BUTTON = 30
ACTION_ID = 255
BLOCK_ID = 255
VIEW_TITLE = 24
PRIVATE_METADATA = 3_000
CALLBACK_ID = 255
INPUT_LABEL = 2_000
INPUT_TEXT = 3_000
VIEW_BYTES = 250_000
METADATA_BYTES = 8_000
ID_PATTERN = r"^[A-Z][A-Z0-9]{5,30}$"
