"""Values as SQL text, the same for every engine. A value never becomes SQL, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from monitor.store import Parameter

INTEGERS = {"Int64": range(-(2**63), 2**63), "UInt64": range(2**64)}
TYPES = ("String", *INTEGERS, "Float64", "Array(UInt64)", "DateTime64(3, 'UTC')")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOKEN = re.compile(
    r"""'(?:[^'\\]|\\.)*' | `(?:[^`\\]|\\.)*` | "(?:[^"\\]|\\.)*"  # what stands in quotes is no placeholder
    | --[^\n]* | /\*.*?\*/
    | \{(?P<name>\w+):(?P<type>[^{}]+)\}""",
    re.VERBOSE | re.DOTALL,
)


def render(sql: str, parameters: Mapping[str, Parameter]) -> str:
    r"""The statement with values in place of its ``{name:Type}`` placeholders; values it does not name are left out.

    Raises ValueError for a placeholder without a value, and for a value that is not of its type.

    >>> render("SELECT {text:String}, {n:Int64}, '{n:Int64}'", {"text": "it's {n:Int64}", "n": -5})
    "SELECT 'it\\'s {n:Int64}', CAST('-5' AS Int64), '{n:Int64}'"
    """

    def value_or_text(found: re.Match[str]) -> str:
        name, kind = found["name"], found["type"]
        if name is None:
            return found[0]
        if name not in parameters:
            raise ValueError(f"the statement needs a value for {{{name}:{kind}}}")
        return _typed(name, kind, parameters[name])

    return TOKEN.sub(value_or_text, sql)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return "`" + _escaped(name, "`") + "`"


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + _escaped(text, "'") + "'"


def _escaped(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\0", "\\0")


def _typed(name: str, kind: str, value: Parameter) -> str:
    match kind, value:
        case "String", str():
            return literal(value)
        case "Int64" | "UInt64", int() if not isinstance(value, bool) and value in INTEGERS[kind]:
            return f"CAST('{value}' AS {kind})"
        case "Float64", int() | float() if not isinstance(value, bool):
            return f"toFloat64({float(value)!r})"
        case "Array(UInt64)", list() | tuple() if all(n in INTEGERS["UInt64"] for n in value):
            return f"[{', '.join(map(str, value))}]" if value else "CAST([] AS Array(UInt64))"
        case "DateTime64(3, 'UTC')", datetime() if value.tzinfo is not None:
            return f"fromUnixTimestamp64Milli({(value - EPOCH) // timedelta(milliseconds=1)}, 'UTC')"
    if kind in TYPES:
        raise ValueError(f"{name} is {value!r:.100}, which is not a value of type {kind}")
    raise ValueError(f"{name} has the type {kind}; a parameter is of type {', '.join(TYPES[:-1])} or {TYPES[-1]}")
