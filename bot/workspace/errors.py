"""What the Web API answers when it refuses."""

from typing import Any


class SlackError(Exception):
    """A method refuses with one of Slack's own error names.

    `messages` become `response_metadata.messages`; `more` is merged into the answer.
    """

    def __init__(self, name: str, messages: list[str] | None = None, **more: Any) -> None:
        super().__init__(name)
        self.name = name
        self.messages = messages
        self.more = more

    def answer(self) -> dict[str, Any]:
        """Gives the JSON body of the refusal."""
        body: dict[str, Any] = {"ok": False, "error": self.name, **self.more}
        if self.messages:
            body["response_metadata"] = {"messages": self.messages}
        return body
