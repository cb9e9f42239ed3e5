"""Secrets, which are never in the configuration itself: it names a file or an environment variable."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from monitor.config import Config, ConfigError


def read_secret(env: str | None, file: Path | None) -> str:
    """A secret from the environment or a file. Raises ConfigError that names the place and never the secret."""
    if env is not None:
        value = os.environ.get(env, "")
        if not value:
            raise ConfigError(f"the environment variable {env} is not set; it should hold a secret")
        return value
    if file is None:
        raise ConfigError("a secret needs an environment variable or a file")
    try:
        value = file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file}: the secret cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: the secret is not UTF-8 text") from None
    if not value:
        raise ConfigError(f"{file}: the secret is empty")
    return value


def missing_secrets(config: Config) -> Iterator[str]:
    """The secrets that the configuration names and that are not there: where, and what is wrong."""
    for place, env, file in _named(config, ""):
        try:
            read_secret(env, Path(file) if file is not None else None)
        except ConfigError as error:
            yield f"{place}: {error}"


def _named(part: Any, place: str) -> Iterator[tuple[str, str | None, str | Path | None]]:
    """Every secret in a part of the configuration: a pair of fields NAME_env and NAME_file of which one is set."""
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(part, BaseModel):
        inside = [(f".{name}", value) for name, value in part]
    elif dataclasses.is_dataclass(part):
        inside = [(f".{f.name}", getattr(part, f.name)) for f in dataclasses.fields(part)]
    elif isinstance(part, dict):
        inside = [(f".{name}", value) for name, value in part.items()]
    elif isinstance(part, tuple):
        inside = [(f"[{i}]", value) for i, value in enumerate(part)]
    fields = dict(inside)
    for name, value in fields.items():
        secret = name.removesuffix("_env")
        if secret != name and (value or fields[f"{secret}_file"]):
            yield place.removeprefix("."), value, fields[f"{secret}_file"]
        yield from _named(value, place + name)
