"""Slack's published limits on messages, views and Block Kit, as one table.

Longer than other files because it is a table. Source: Block Kit reference and `@slack/types` 3.2.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100
MESSAGE_BLOCK_CHARACTERS = 13_200
MESSAGE_TEXT_KEPT = 40_000
UPDATE_TEXT = 4_000
VIEW_BYTES = 250_000
STACK_DEPTH = 3
TRIGGER_SECONDS = 3.0
ACK_SECONDS = 3.0
RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60
MARKDOWN_CHARACTERS = 12_000
METADATA_BYTES = 8_000
SOCKETS = 10


@dataclass(frozen=True, slots=True)
class Text:
    """A text object; `kinds` are the types it may have."""

    most: int
    kinds: tuple[str, ...] = ("plain_text", "mrkdwn")
    least: int = 1


@dataclass(frozen=True, slots=True)
class Str:
    """A bare string."""

    most: int
    least: int = 0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer in a range."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Many:
    """A list of one kind of thing."""

    of: "Rule"
    most: int
    least: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """An object with known attributes."""

    needs: Mapping[str, "Rule"] = field(default_factory=dict)
    may: Mapping[str, "Rule"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Typed:
    """An object whose `type` chooses its record; `family` names the table below, `only` narrows it."""

    family: str
    only: tuple[str, ...] = ()


Rule = Text | Str | Flag | Whole | Many | Record | Typed

PLAIN = ("plain_text",)
URL = Str(3000, 1)
ACTION_ID = Str(255)
OPTION_VALUE = 150

CONFIRM = Record(
    needs={"title": Text(100, PLAIN), "text": Text(300), "confirm": Text(30, PLAIN), "deny": Text(30, PLAIN)},
    may={"style": Str(10, choices=("primary", "danger"))},
)
OPTION = Record(needs={"text": Text(75), "value": Str(OPTION_VALUE, 1)}, may={"description": Text(75), "url": URL})
PLAIN_OPTION = Record(
    needs={"text": Text(75, PLAIN), "value": Str(OPTION_VALUE, 1)}, may={"description": Text(75, PLAIN), "url": URL}
)
OPTION_GROUP = Record(needs={"label": Text(75, PLAIN), "options": Many(PLAIN_OPTION, 100)})
DISPATCH = Record(may={"trigger_actions_on": Many(Str(30, choices=("on_enter_pressed", "on_character_entered")), 2)})

_PLACEHOLDER = Text(150, PLAIN)
_COMMON: dict[str, Rule] = {"action_id": ACTION_ID, "confirm": CONFIRM, "focus_on_load": Flag()}
_SELECT: dict[str, Rule] = {**_COMMON, "placeholder": _PLACEHOLDER}
_MULTI: dict[str, Rule] = {**_SELECT, "max_selected_items": Whole(1, 100)}
_FIELD: dict[str, Rule] = {
    "action_id": ACTION_ID,
    "placeholder": _PLACEHOLDER,
    "focus_on_load": Flag(),
    "dispatch_action_config": DISPATCH,
    "initial_value": Str(3000),
}
_FILTER = Record(
    may={
        "include": Many(Str(20, choices=("im", "mpim", "private", "public")), 4),
        "exclude_external_shared_channels": Flag(),
        "exclude_bot_users": Flag(),
    }
)
_LISTS: dict[str, Rule] = {"options": Many(PLAIN_OPTION, 100), "option_groups": Many(OPTION_GROUP, 100)}
_IDS = Many(Str(30, 1), 100)

ELEMENTS: Mapping[str, Record] = {
    "button": Record(
        needs={"text": Text(75, PLAIN)},
        may={
            "action_id": ACTION_ID,
            "url": URL,
            "value": Str(2000),
            "style": Str(10, choices=("primary", "danger")),
            "confirm": CONFIRM,
            "accessibility_label": Str(75),
        },
    ),
    "image": Record(needs={"alt_text": Str(2000, 1)}, may={"image_url": URL}),
    "overflow": Record(needs={"options": Many(PLAIN_OPTION, 5)}, may={"action_id": ACTION_ID, "confirm": CONFIRM}),
    "static_select": Record(may={**_SELECT, **_LISTS, "initial_option": PLAIN_OPTION}),
    "multi_static_select": Record(may={**_MULTI, **_LISTS, "initial_options": Many(PLAIN_OPTION, 100)}),
    "external_select": Record(may={**_SELECT, "initial_option": PLAIN_OPTION, "min_query_length": Whole(0, 3000)}),
    "users_select": Record(may={**_SELECT, "initial_user": Str(30)}),
    "multi_users_select": Record(may={**_MULTI, "initial_users": _IDS}),
    "channels_select": Record(may={**_SELECT, "initial_channel": Str(30), "response_url_enabled": Flag()}),
    "conversations_select": Record(
        may={
            **_SELECT,
            "initial_conversation": Str(30),
            "default_to_current_conversation": Flag(),
            "response_url_enabled": Flag(),
            "filter": _FILTER,
        }
    ),
    "datepicker": Record(may={**_SELECT, "initial_date": Str(10)}),
    "timepicker": Record(may={**_SELECT, "initial_time": Str(5), "timezone": Str(100)}),
    "datetimepicker": Record(may={**_COMMON, "initial_date_time": Whole(0, 9_999_999_999)}),
    "radio_buttons": Record(needs={"options": Many(OPTION, 10)}, may={**_COMMON, "initial_option": OPTION}),
    "checkboxes": Record(needs={"options": Many(OPTION, 10)}, may={**_COMMON, "initial_options": Many(OPTION, 10)}),
    "plain_text_input": Record(
        may={**_FIELD, "multiline": Flag(), "min_length": Whole(0, 3000), "max_length": Whole(1, 3000)}
    ),
    "email_text_input": Record(may=_FIELD),
    "url_text_input": Record(may=_FIELD),
    "number_input": Record(
        needs={"is_decimal_allowed": Flag()}, may={**_FIELD, "min_value": Str(30), "max_value": Str(30)}
    ),
}

SECTION_ACCESSORIES = tuple(
    name for name in ELEMENTS if name not in ("plain_text_input", "email_text_input", "url_text_input", "number_input")
)
ACTION_ELEMENTS = tuple(name for name in SECTION_ACCESSORIES if name != "image")
INPUT_ELEMENTS = tuple(name for name in ELEMENTS if name not in ("button", "image", "overflow"))

_STYLE = Record(
    may={"bold": Flag(), "italic": Flag(), "strike": Flag(), "code": Flag(), "underline": Flag(), "highlight": Flag()}
)
_ANY_LENGTH = 1_000_000

INLINE: Mapping[str, Record] = {
    "text": Record(needs={"text": Str(_ANY_LENGTH, 1)}, may={"style": _STYLE}),
    "link": Record(needs={"url": URL}, may={"text": Str(_ANY_LENGTH), "unsafe": Flag(), "style": _STYLE}),
    "user": Record(needs={"user_id": Str(30, 1)}, may={"style": _STYLE}),
    "usergroup": Record(needs={"usergroup_id": Str(30, 1)}, may={"style": _STYLE}),
    "channel": Record(needs={"channel_id": Str(30, 1)}, may={"style": _STYLE}),
    "emoji": Record(needs={"name": Str(100, 1)}, may={"unicode": Str(100), "skin_tone": Whole(1, 6), "style": _STYLE}),
    "date": Record(
        needs={"timestamp": Whole(0, 9_999_999_999), "format": Str(1000, 1)},
        may={"url": URL, "fallback": Str(1000), "style": _STYLE},
    ),
    "broadcast": Record(needs={"range": Str(20, choices=("here", "channel", "everyone"))}, may={"style": _STYLE}),
    "color": Record(needs={"value": Str(20, 1)}, may={"style": _STYLE}),
    "team": Record(needs={"team_id": Str(30, 1)}, may={"style": _STYLE}),
}
_RUN = Many(Typed("inline"), 1000, 0)
_BORDER = Whole(0, 1)

RICH: Mapping[str, Record] = {
    "rich_text_section": Record(needs={"elements": _RUN}),
    "rich_text_preformatted": Record(
        needs={"elements": Many(Typed("inline", ("text", "link")), 1000, 0)},
        may={"border": _BORDER, "language": Str(100)},
    ),
    "rich_text_quote": Record(needs={"elements": _RUN}, may={"border": _BORDER}),
    "rich_text_list": Record(
        needs={
            "style": Str(10, choices=("bullet", "ordered")),
            "elements": Many(Typed("rich", ("rich_text_section",)), 1000),
        },
        may={"indent": Whole(0, 8), "offset": Whole(0, 1000), "border": _BORDER},
    ),
}

_BLOCK: dict[str, Rule] = {"block_id": Str(255)}

BLOCKS: Mapping[str, Record] = {
    "section": Record(
        may={
            **_BLOCK,
            "text": Text(3000),
            "fields": Many(Text(2000), 10),
            "accessory": Typed("element", SECTION_ACCESSORIES),
            "expand": Flag(),
        }
    ),
    "header": Record(needs={"text": Text(150, PLAIN)}, may=_BLOCK),
    "divider": Record(may=_BLOCK),
    "context": Record(needs={"elements": Many(Typed("context"), 10)}, may=_BLOCK),
    "actions": Record(needs={"elements": Many(Typed("element", ACTION_ELEMENTS), 25)}, may=_BLOCK),
    "image": Record(needs={"alt_text": Str(2000, 1)}, may={**_BLOCK, "image_url": URL, "title": Text(2000, PLAIN)}),
    "markdown": Record(needs={"text": Str(MARKDOWN_CHARACTERS, 1)}, may=_BLOCK),
    "rich_text": Record(needs={"elements": Many(Typed("rich"), 1000)}, may=_BLOCK),
    "input": Record(
        needs={"label": Text(2000, PLAIN), "element": Typed("element", INPUT_ELEMENTS)},
        may={**_BLOCK, "hint": Text(2000, PLAIN), "optional": Flag(), "dispatch_action": Flag()},
    ),
}

CONTEXT: Mapping[str, Record | Text] = {
    "plain_text": Text(3000, PLAIN),
    "mrkdwn": Text(3000, ("mrkdwn",)),
    "image": ELEMENTS["image"],
}

FAMILIES: Mapping[str, Mapping[str, Record | Text]] = {
    "block": BLOCKS,
    "element": ELEMENTS,
    "context": CONTEXT,
    "rich": RICH,
    "inline": INLINE,
}

MODAL_BLOCKS = Many(Typed("block"), VIEW_BLOCKS, 0)
_VIEW: dict[str, Rule] = {
    "private_metadata": Str(3000),
    "callback_id": Str(255),
    "external_id": Str(255),
}
VIEWS: Mapping[str, Record] = {
    "modal": Record(
        needs={"title": Text(24, PLAIN), "blocks": MODAL_BLOCKS},
        may={
            **_VIEW,
            "submit": Text(24, PLAIN),
            "close": Text(24, PLAIN),
            "clear_on_close": Flag(),
            "notify_on_close": Flag(),
            "submit_disabled": Flag(),
        },
    ),
    "home": Record(needs={"blocks": MODAL_BLOCKS}, may=_VIEW),
}
