"""Reads ``telltale.yaml``, with errors a person can act on: the path in the file, the problem, what would be right."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Protocol, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from monitor.config import Config, ConfigError, OneOf, Rules, unknown_word

WANTED = {"tuple_type": "write a list such as [a, b]", "model_type": "write a section with keys of its own"}
"""In words of YAML, where the validator's own are of Python."""
SENT_RULES = "the configuration to try"


class _Whole(Protocol):
    """What a file may hold."""

    @classmethod
    def model_validate(cls, obj: Any) -> Self: ...

    def problems(self) -> Iterator[str]: ...


Whole = TypeVar("Whole", bound=_Whole)


def load(path: Path) -> Config:
    """The configuration in a YAML file; paths in it are taken relative to its folder.

    Raises ConfigError with one line a problem.
    """
    return loads(read_text(path), path)


def loads(text: str, path: Path) -> Config:
    """Like ``load``, of a text that stands for the file at ``path``."""
    resolved: Config = _resolved(checked(Config, sections(text, path), path), path.parent)
    return resolved


def rules_to_send(path: Path) -> bytes:
    """The models and policies of a configuration file, for ``read_rules``. Raises ConfigError, as ``load`` does."""
    load(path)
    raw = sections(read_text(path), path)
    return json.dumps({name: raw[name] for name in Rules.model_fields if name in raw}, default=str).encode()


def read_rules(sent: bytes) -> Rules:
    """Models and policies as ``rules_to_send`` gives them. Raises ConfigError."""
    try:
        raw = json.loads(sent)
    except (ValueError, RecursionError):
        raise ConfigError(f"{SENT_RULES}: not JSON; send an object with models and policies") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{SENT_RULES}: holds a {type(raw).__name__}; send an object with models and policies")
    return checked(Rules, raw, SENT_RULES)


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; name another file") from None


def sections(text: str, path: Path) -> dict[str, Any]:
    """The sections of a YAML file. Raises ConfigError."""
    try:
        raw = yaml.load(text, _Loader) or {}  # noqa: S506 - a safe loader that refuses keys that are there twice
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]} {_mark(error)}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds a {type(raw).__name__}; write sections such as store, models and policies")
    return raw


def checked(kind: type[Whole], raw: dict[str, Any], origin: Path | str) -> Whole:
    """What some sections hold. Raises ConfigError with one line a problem, each with where they are from."""
    try:
        whole = kind.model_validate(raw)
    except ValidationError as error:
        lines = [f"{origin}: {_line(kind, e)}" for e in _innermost(error.errors(include_url=False))]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    problems = [f"{origin}: {problem}" for problem in whole.problems()]
    if problems:
        raise ConfigError("\n".join(problems))
    return whole


def _resolved(part: Any, folder: Path) -> Any:
    """A part of the configuration, with every path in it taken relative to a folder."""
    if isinstance(part, Path):
        return folder / part
    if isinstance(part, BaseModel):
        return part.model_copy(update={name: _resolved(value, folder) for name, value in part})
    if isinstance(part, dict):
        return {name: _resolved(value, folder) for name, value in part.items()}
    if isinstance(part, tuple):
        return tuple(_resolved(value, folder) for value in part)
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        files = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name.endswith("_file")}
        return dataclasses.replace(part, **{name: str(folder / file) for name, file in files.items() if file})
    return part


class _Loader(yaml.SafeLoader):
    """Refuses keys that are there twice, of which only the last would count."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, before any other is merged into it."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            named = isinstance(key, yaml.ScalarNode)
            if named and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value if named else id(key))
        return node


def _mark(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"(line {mark.line + 1}, column {mark.column + 1})" if mark else ""


def _innermost(errors: Sequence[Any]) -> list[Any]:
    """Errors without those that only follow from an error further inside."""
    places = [e["loc"] for e in errors]
    return [e for e in errors if not any(len(p) > len(e["loc"]) and p[: len(e["loc"])] == e["loc"] for p in places)]


def _line(kind: type, error: Any) -> str:
    path, section = _walk(kind, error["loc"])
    at = _shown(path)
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            parent = _shown(path[:-1]) or "the file"
            return f"{at}: {unknown_word(str(path[-1]), f'key of {parent}', _keys(section))}"
        case "literal_error":
            return f"{at}: {error['input']!r} is not known; use {error['ctx']['expected']}"
        case "union_tag_invalid":
            return f"{at}.kind: {error['input']['kind']!r} is not known; use {_either(error['ctx']['expected_tags'])}"
        case "union_tag_not_found":
            return f"{at}.kind: is missing; add it"
        case "missing" | "missing_argument":
            return f"{at}: is missing; add it"
        case "value_error":
            return f"{at}: {error['ctx']['error']}"
        case _:
            shown = "what stands here" if path[-1:] == ["url"] else repr(error["input"])[:60]  # it may be a secret
            wanted = WANTED.get(error["type"]) or f"{error['msg'][:1].lower()}{error['msg'][1:]}"
            return f"{at}: {shown} does not fit: {wanted}"


def _shown(path: Sequence[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def _either(words: str) -> str:
    return " or ".join(words.rsplit(", ", 1))


def _walk(kind: type, location: Sequence[str | int]) -> tuple[list[str | int], Any]:
    """The path in the file that an error's location stands for, and the type of the section that its end is in."""
    path: list[str | int] = []
    section: Any = None
    here: Any = kind
    for part in location:
        if isinstance(here, OneOf):  # the location also says which kind the section is
            here = here.kinds[str(part)]
        else:
            path.append(part)
            section, here = here, _inside(here, part)
    return path, section


def _inside(kind: Any, part: str | int) -> Any:
    """The type of a part of a value of some type; None where that is not known."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        kind = next((f.annotation for name, f in kind.model_fields.items() if part in (name, f.alias)), None)
    else:
        kind = next((a for a in get_args(kind) if a is not Ellipsis and a is not str), None)
    while get_origin(kind) in (Annotated, Union, UnionType):
        chosen = next((a for a in get_args(kind) if isinstance(a, OneOf)), None)
        kind = chosen or next(a for a in get_args(kind) if a is not NoneType)
    return kind


def _keys(section: Any) -> tuple[str, ...]:
    """The keys that are right in a section of some type."""
    if dataclasses.is_dataclass(section):
        return tuple(f.name for f in dataclasses.fields(section))
    return tuple(field.alias or name for name, field in section.model_fields.items())
