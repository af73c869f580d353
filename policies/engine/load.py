"""Reads a folder of policy files into one Policy; an error names file, line and key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from policies.engine.hints import unknown_key
from policies.engine.model import Policy
from policies.engine.problems import problems
from policies.engine.values import SHAPES

Path_ = tuple[str | int, ...]
MAX_DEPTH = 40
MAX_NODES = 100_000
"""Values in one file, aliases counted each time they are used."""
_SECTIONS = frozenset(Policy.model_fields)
_MESSAGES = {
    "missing": "is required",
    "dict_type": "should be a mapping",
    "model_type": "should be a mapping",
    "list_type": "should be a list",
    "string_type": "should be a text",
}
_KINDS = frozenset({"dict_type", "model_type", "list_type"})

Stamp = tuple[tuple[str, int, int, int], ...]
"""What tells files apart from others, without their content."""


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
        self._nodes = 0

    def read(self, text: str) -> Any:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            self.findings.append(f"{self.file}:{line}: not YAML: {getattr(error, 'problem', None) or error}")
            return {}
        except RecursionError:
            self.findings.append(f"{self.file}:1: nested too deeply")
            return {}
        return {} if node is None else self._value(node, ())

    def _value(self, node: yaml.Node, path: Path_) -> Any:
        place = _Place(self.file, node.start_mark.line + 1)
        self.places.setdefault(path, place)
        self._nodes += 1
        if len(path) > MAX_DEPTH or self._nodes > MAX_NODES:
            # An alias may name what it is in, and a few lines of aliases stand for millions of values.
            what = "nested too deeply" if len(path) > MAX_DEPTH else f"more than {MAX_NODES} values"
            if self._nodes <= MAX_NODES + 1:
                self.findings.append(f"{place}: {_dotted(path[:4])}: {what}")
            self._nodes = MAX_NODES + 1
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        """Return what a plain value or a key is; one that cannot be made is a finding."""
        try:
            return self._loader.construct_object(node, deep=True)
        except Exception as error:  # noqa: BLE001  PyYAML's constructors raise whatever their conversions do
            said = getattr(error, "problem", None) or str(error)
            self.findings.append(f"{_Place(self.file, node.start_mark.line + 1)}: {_dotted(path) or self.file}: {said}")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            place = _Place(self.file, key_node.start_mark.line + 1)
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self.findings.append(f"{place}: {_dotted(path) or self.file}: a key is a text; put it in quotes")
                continue
            if key in values:
                self.findings.append(f"{place}: {_dotted((*path, key))}: written twice")
            self.places[(*path, key)] = place
            values[key] = self._value(value_node, (*path, key))
        return values


@lru_cache(16)
def _read(file: str, text: str) -> tuple[Any, _Reader]:
    """Read one file; of a folder that is read again, most have not changed. What is returned is never changed."""
    reader = _Reader(file)
    return reader.read(text), reader


def read_texts(texts: dict[str, str]) -> Policy:
    """Read named YAML texts as one policy; raises PolicyUnreadable with every finding."""
    merged: dict[str, Any] = {}
    places: dict[Path_, _Place] = {}
    findings: list[str] = []
    for file, text in sorted(texts.items()):
        content, reader = _read(file, text)
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
        raise PolicyUnreadable(_strict_findings(places, merged, error)) from None
    if found := [_finding(places, path, message) for path, message in problems(policy)]:
        raise PolicyUnreadable(found)
    return policy


def stamp(folder: Path) -> Stamp:
    """Return what changes when a file of a folder is written, replaced, added or removed."""
    found: list[tuple[str, int, int, int]] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def load(folder: Path) -> Policy:
    """Read every `*.yaml` directly in a folder; raises PolicyUnreadable, also where there is none."""
    files = sorted(folder.glob("*.yaml"))
    # A file that would be passed over may hold the deny that somebody counts on.
    findings = [
        f"{file.name}: a policy file's name ends in `.yaml`"
        for file in sorted(folder.glob("*"))
        if file.suffix.lower() in (".yml", ".yaml") and file not in files
    ]
    if not files:
        what = "no policy files (*.yaml) here" if folder.is_dir() else "no such folder"
        findings.append(
            f"{folder}: {what}; another one is named with AIRLOCK_POLICIES, or --policies where a command takes it"
        )
    texts: dict[str, str] = {}
    for file in files:
        try:
            texts[file.name] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            line = file.read_bytes()[: error.start].count(b"\n") + 1
            findings.append(f"{file.name}:{line}: not UTF-8: {error.reason}")
        except OSError as error:
            findings.append(f"{file.name}: {error.strerror}")
    if findings:
        raise PolicyUnreadable(findings)
    return read_texts(texts)


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
            if section in merged:
                # Only one of the two would count, and what the other says would be lost without a word.
                findings.append(f"{reader.places[(section,)]}: {section}: of another kind in {places[(section,)]}")
            merged[section] = value
        for path, place in reader.places.items():
            if path and path[0] == section:
                moved = (section, path[1] + shift, *path[2:]) if len(path) > 1 and isinstance(path[1], int) else path
                places.setdefault(moved, place)


def _strict_findings(places: dict[Path_, _Place], merged: dict[str, Any], error: ValidationError) -> list[str]:
    """Say what the models refuse in the files' words: one finding a place, without the models' own names."""
    found: dict[Path_, str] = {}
    kinds: set[Path_] = set()
    for problem in error.errors():
        path = _path_in(merged, problem["loc"], missing=problem["type"] == "missing")
        message = _MESSAGES.get(problem["type"], problem["msg"]).replace("Input should be", "should be")
        if problem["type"] == "string_pattern_mismatch":
            message = SHAPES.get(problem["ctx"]["pattern"], message)
        if problem["type"] == "extra_forbidden":
            message = unknown_key(path)
        found.setdefault(path, _finding(places, path, message))
        if problem["type"] in _KINDS:
            kinds.add(path)
    # What may be a list or a mapping is a fault of both where something in it is: what is in it says more.
    inside = {path[:length] for path in found for length in range(len(path))}
    return [text for path, text in found.items() if path not in kinds & inside]


def _path_in(merged: Any, loc: Path_, missing: bool) -> Path_:
    """Leave out the parts of a location that are not in the files, such as the branch of a union."""
    path: Path_ = ()
    here: Any = merged
    for index, part in enumerate(loc):
        inside = part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int)
        if inside:
            here = here[part]
            path = (*path, part)
        elif missing and index == len(loc) - 1:
            path = (*path, part)
    return path


def _finding(places: dict[Path_, _Place], loc: Path_, message: str) -> str:
    path = loc
    while path and path not in places:
        path = path[:-1]
    place = places.get(path)
    return (
        f"{place or next(iter(places.values()), 'policies')}: {_dotted(loc)}: {message.removeprefix('Value error, ')}"
    )


def _dotted(path: Path_) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
