"""Reads a folder of policy files into one Policy; an error names file, line and key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from policies.engine.model import Policy, problems

Path_ = tuple[str | int, ...]
_SECTIONS = frozenset(Policy.model_fields)


class PolicyUnreadable(Exception):
    """the policy files do not load"""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class _Reader:
    """Turns YAML nodes into plain values and remembers where each key stood."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Path_, _Place] = {}
        self.findings: list[str] = []
        self._loader = yaml.SafeLoader("")

    def read(self, text: str) -> Any:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            self.findings.append(f"{self.file}:{line}: not YAML: {getattr(error, 'problem', None) or error}")
            return {}
        return {} if node is None else self._value(node, ())

    def _value(self, node: yaml.Node, path: Path_) -> Any:
        self.places.setdefault(path, _Place(self.file, node.start_mark.line + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._loader.construct_object(node, deep=True)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._loader.construct_object(key_node, deep=True)
            place = _Place(self.file, key_node.start_mark.line + 1)
            if key in values:
                self.findings.append(f"{place}: {_dotted((*path, key))}: written twice")
            self.places[(*path, key)] = place
            values[key] = self._value(value_node, (*path, key))
        return values


def read_texts(texts: dict[str, str]) -> Policy:
    """Read named YAML texts as one policy; raises PolicyUnreadable with every finding."""
    merged: dict[str, Any] = {}
    places: dict[Path_, _Place] = {}
    findings: list[str] = []
    for file, text in sorted(texts.items()):
        reader = _Reader(file)
        content = reader.read(text)
        findings += reader.findings
        if not isinstance(content, dict):
            findings.append(f"{file}:1: a policy file is a mapping with keys of {', '.join(sorted(_SECTIONS))}")
            continue
        _merge(merged, places, content, reader, findings)
    if findings:
        raise PolicyUnreadable(findings)
    try:
        policy = Policy.model_validate(merged)
    except ValidationError as error:
        raise PolicyUnreadable(
            [_finding(places, problem["loc"], problem["msg"]) for problem in error.errors()]
        ) from None
    if found := [_finding(places, path, message) for path, message in problems(policy)]:
        raise PolicyUnreadable(found)
    return policy


def load(folder: Path) -> Policy:
    """Read every `*.yaml` directly in a folder; raises PolicyUnreadable, also where there is none."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise PolicyUnreadable([f"{folder}: no policy files (*.yaml) here"])
    try:
        return read_texts({file.name: file.read_text(encoding="utf-8") for file in files})
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # Values that YAML cannot make, and nesting without end, are findings like any other.
        raise PolicyUnreadable([f"{folder}: {error}"]) from None


def _merge(
    merged: dict[str, Any], places: dict[Path_, _Place], content: dict[Any, Any], reader: _Reader, findings: list[str]
) -> None:
    for section, value in content.items():
        shift = 0
        if section in merged and isinstance(value, list) and isinstance(merged[section], list):
            shift = len(merged[section])
            merged[section] = merged[section] + value
        elif section in merged and isinstance(value, dict) and isinstance(merged[section], dict):
            findings += [
                f"{reader.places[(section, key)]}: {section}.{key}: also in {places[(section, key)]}"
                for key in value
                if key in merged[section]
            ]
            merged[section] = {**merged[section], **value}
        else:
            merged[section] = value
        for path, place in reader.places.items():
            if path and path[0] == section:
                moved = (section, path[1] + shift, *path[2:]) if len(path) > 1 and isinstance(path[1], int) else path
                places.setdefault(moved, place)


def _finding(places: dict[Path_, _Place], loc: Path_, message: str) -> str:
    path = loc
    while path and path not in places:
        path = path[:-1]
    place = places.get(path)
    return f"{place or 'policies'}: {_dotted(loc)}: {message.removeprefix('Value error, ')}"


def _dotted(path: Path_) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
