"""The Web API: one file per family of methods, each method in a table with the scopes it needs."""

from . import auth, blocks, chat, conversations, files, groups, reactions, users, views
from .table import METHODS

__all__ = ["METHODS", "auth", "blocks", "chat", "conversations", "files", "groups", "reactions", "users", "views"]
