"""The files of BentoML's default monitor: for each monitor and worker a schema file, and data files of JSON lines.

A body is the lines of the schema file, then lines of its data file. ``telltale import --format bentoml`` sends such.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from monitor.adapters import Adapter, AdapterSettings, RefusedError, Sender, Translated, known, read_json
from monitor.adapters.open_inference import Row, add_columns, answer, flat

RESERVED = ("timestamp", "request_id", "trace_id")
"""BentoML's own columns. A column that a service calls so is logged with a ``_`` at its end."""
NOTHING = ("", "None", "0")
"""What stands for an id outside of a request."""
REQUEST = re.compile(rb'"request_id": ?"([^"\\]*)"')
LONGEST_ID = 40
"""In decimal digits; the longest, a trace's, has 128 bits."""
NO_VERSION = ("", "not available")


class Bentoml(Adapter):
    """Reads a schema and records. Records of one request get the ids ``REQUEST:0``, ``REQUEST:1``, ...

    The request's id is the one that its response carries as ``X-BentoML-Request-ID``.

    A column of the role ``target`` becomes a label, known when the record was written.
    """

    def __init__(self, settings: AdapterSettings) -> None:
        self._timezone = settings.bentoml.timezone
        self._class_names = settings.class_names

    def translate(self, body: bytes, headers: Mapping[str, str], sender: Sender, now: float) -> Translated:
        """Lines of a schema file, to which each start of a service adds one, then of its data file."""
        del headers, now
        translated = Translated(sender)
        lines = body.split(b"\n")
        schemas, rows = _leading_schemas(lines)
        try:
            common, roles = _common(schemas, sender)
        except RefusedError as refusal:
            translated.refuse(0, refusal, body)
            return translated
        translated.heading = rows
        numbers: Counter[str] = Counter()
        for record, raw in enumerate(lines[rows:], rows):
            if raw and not raw.isspace():
                translated.add(record, self._events(raw, numbers, common, roles), raw)
        return translated

    def _events(self, raw: bytes, numbers: Counter[str], common: Row, roles: Mapping[str, str]) -> Iterator[Row]:
        record = read_json(raw, "the record")
        if not isinstance(record, dict):
            raise RefusedError("not_an_object", "the record is JSON but no object")
        beyond, lacking = record.keys() - roles.keys() - set(RESERVED), roles.keys() - record.keys()
        if beyond and lacking:
            raise RefusedError(
                "bad_shape",
                f"the record has {min(beyond)[:60]!r}, but not {min(lacking)[:60]!r} as in the schema: it is another "
                "monitor's. BentoML writes all monitors of a process to one file; give each a service of its own",
            )
        name = _hexadecimal(record.get("request_id"), 16) or hashlib.sha256(raw).hexdigest()[:16]
        named = {
            "environment": common["environment"],
            "model": common["model"],
            "prediction_id": f"{name}:{numbers[name]}",
            "timestamp": self._moment(record.get("timestamp")),
        }
        numbers[name] += 1
        outputs = {n: flat(record[n]) for n, role in roles.items() if role == "prediction" and n in record}
        features: Row = {}
        for column, value in record.items():
            if column not in RESERVED and roles.get(column, "feature") == "feature":
                add_columns(features, _own_name(column), flat(value))
        yield {
            **common,
            **named,
            "type": "prediction",
            "features": features,
            "prediction": answer(outputs, self._class_names.get(str(common["model"]), ())),
            "trace_id": _hexadecimal(record.get("trace_id"), 32),
        }
        for column, role in roles.items():
            if role == "target" and record.get(column) is not None:
                yield {**named, "type": "label", "label": record[column]}

    def _moment(self, text: object) -> str:
        try:
            moment = datetime.fromisoformat(str(text))
            aware = moment if moment.tzinfo else moment.replace(tzinfo=self._timezone)
            return aware.isoformat()
        except (ValueError, OverflowError):
            raise RefusedError("bad_timestamp", f"timestamp is {str(text)[:60]!r}; BentoML writes local ISO") from None


def import_folder(service: Any, folder: Path, sender: Sender, chunk_bytes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Take all monitors below a folder in, in chunks, and give the bytes done and the answer for each.

    A chunk is known by its place and by the first lines of its file and of itself, as in ``import_file``. It never
    ends inside of the records of one request, which are numbered. The model is called as the monitor if not given.
    """
    done = 0
    for path in data_files(folder):
        monitor = path.parent.parent
        described = monitor / "schema" / f"schema.{path.name.split('.')[1]}.log"
        schema = described.read_bytes().rstrip(b"\n") + b"\n" if described.is_file() else b""
        given = {"model": sender.model or monitor.name, "version": sender.version, "server": sender.server}
        given["environment"] = sender.environment
        first_line, offset, line = b"", 0, 1
        for chunk in chunks(path, chunk_bytes):
            first_line = first_line or chunk.partition(b"\n")[0]
            told = repr(sorted(given.items())).encode()
            key = b"\x1f".join((told, b"%d" % offset, first_line, chunk.partition(b"\n")[0]))
            receipt = service.import_foreign("bentoml", schema + chunk, hashlib.sha256(key).hexdigest()[:32], given)
            for rejected in receipt["rejected"]:
                rejected["line"] += line - 1 - schema.count(b"\n")
            offset += len(chunk)
            line += chunk.count(b"\n")
            yield done + offset, receipt
        done += offset


def data_files(folder: Path) -> list[Path]:
    """The data files of all monitors below a folder, those that were rotated away too."""
    return sorted(p for p in folder.rglob("data.*.log*") if p.parent.name == "data" and p.is_file())


def chunks(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    """A data file in pieces that end where the records of a request end."""
    with path.open("rb") as file:
        chunk: list[bytes] = []
        size, request = 0, b""
        for line in file:
            before, request = request, _request(line)
            if size >= chunk_bytes and (not request or request != before):
                yield b"".join(chunk)
                chunk, size = [], 0
            chunk.append(line)
            size += len(line)
        if chunk:
            yield b"".join(chunk)


def _request(raw: bytes) -> bytes:
    """What the records of one request share, as BentoML writes its own columns last; empty in what is no record.

    Outside of a request those of one moment: what is the same in all columns is numbered too.
    """
    at = raw.rfind(b'"timestamp"')
    own = raw[at:].strip() if at >= 0 else b""
    found = REQUEST.search(own)
    return found[1] if found and found[1].decode("utf-8", "replace") not in NOTHING else own


def _leading_schemas(lines: list[bytes]) -> tuple[list[Row], int]:
    schemas: list[Row] = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict) or not isinstance(value.get("columns"), list) or "meta_data" not in value:
            break
        schemas.append(value)
    return schemas, len(schemas)


def _common(schemas: list[Row], sender: Sender) -> tuple[Row, Mapping[str, str]]:
    """What all records of a file share, and the role of each column. Raises RefusedError."""
    if not schemas:
        raise RefusedError("missing_key", "there is no schema; send the lines of the schema file first")
    roles: dict[str, str] = {}
    versions: dict[str, None] = {}
    name: object = ""
    for schema in schemas:
        meta = schema["meta_data"] if isinstance(schema["meta_data"], dict) else {}
        version = meta.get("bento_version")
        versions |= {version: None} if isinstance(version, str) and version not in NO_VERSION else {}
        name = meta.get("bento_name") or name
        columns = [c for c in schema["columns"] if isinstance(c, dict)]
        roles |= {c["name"]: str(c.get("role")) for c in columns if isinstance(c.get("name"), str)}
    if len(versions) > 1 and not sender.version:
        told = ", ".join(versions)[:100]
        raise RefusedError("missing_key", f"the schema file names the versions {told}; say which with ?version=NAME")
    where = "send it as ?{}=NAME, or with --{} where a folder is imported"
    common = {
        "environment": sender.environment or None,
        "model": known(sender.model or name, "model", where.format("model", "model")),
        "version": known(sender.version or next(iter(versions), None), "version", where.format("version", "version")),
        "server": known(sender.server, "server", where.format("server", "server")),
    }
    return common, roles


def _hexadecimal(number: object, digits: int) -> str | None:
    """An id as BentoML tells it everywhere but in these files; None outside of a request.

    >>> _hexadecimal("12606787650181587205", 16), _hexadecimal("None", 16), _hexadecimal("mine", 16)
    ('aef44e92ffdae105', None, 'mine')
    """
    if not isinstance(number, str) or number in NOTHING:
        return None
    return f"{int(number):0{digits}x}" if number.isdecimal() and len(number) < LONGEST_ID else number


def _own_name(column: str) -> str:
    return column[:-1] if column[:-1] in RESERVED and column.endswith("_") else column
