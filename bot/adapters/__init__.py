"""The bot's ports made real."""
