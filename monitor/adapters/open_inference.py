"""The Open Inference Protocol V2, which MLServer, Triton and KServe speak: a request and its response, as JSON.

Neither server ships them. What stands between (a gateway, a middleware, the client) sends exchanges, an object each:
``{"timestamp": ..., "request": {...}, "response": {...}, "server": ..., "latency_ms": ...}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monitor.adapters import WIDEST_ROW, Adapter, AdapterSettings, RefusedError, Sender, Translated, known, read_json
from monitor.decode import split_lines

SCORE_WORDS = ("prob", "score", "confidence")
"""An output beside others whose name has one of these is a score, not the answer."""
MOST_ROWS = 100_000
Row = dict[str, Any]


class OpenInference(Adapter):
    """Reads exchanges. Every row of a batch becomes a prediction with the id ``ID:ROW``, rows counting from 0."""

    def __init__(self, settings: AdapterSettings) -> None:
        self._settings = settings

    def translate(self, body: bytes, headers: Mapping[str, str], sender: Sender, now: float) -> Translated:
        """One exchange, an array, or NDJSON. The same bytes are the same batch."""
        del headers, now
        translated = Translated(sender)
        for record, raw in enumerate(split_lines(body)):
            if raw and not raw.isspace():
                translated.add(record, self._events(raw, sender), raw)
        return translated

    def _events(self, raw: bytes, sender: Sender) -> Iterator[Row]:
        exchange = read_json(raw, "the exchange")
        if not isinstance(exchange, dict) or not isinstance(exchange.get("request"), dict):
            raise RefusedError(
                "not_an_object", 'an exchange is {"timestamp": ..., "request": {...}, "response": {...}}'
            )
        request, response = exchange["request"], exchange.get("response")
        if not isinstance(response, dict):
            raise RefusedError("missing_key", 'response is missing; of a failed request send {"error": "..."}')
        model = known(
            sender.model or response.get("model_name") or exchange.get("model"), "model", "send it as ?model=NAME"
        )
        version = sender.version or response.get("model_version") or exchange.get("version")
        common = {
            "type": "prediction",
            "environment": sender.environment or exchange.get("environment"),
            "model": model,
            "version": known(version, "version", "the response has no model_version; send it as ?version=NAME"),
            "server": known(sender.server or exchange.get("server"), "server", "send it as ?server=NAME"),
            "timestamp": known(exchange.get("timestamp"), "timestamp", "say when the request came"),
            "latency_ms": exchange.get("latency_ms"),
            "trace_id": exchange.get("trace_id"),
        }
        name = known(response.get("id") or request.get("id"), "id", "neither request nor response has one")
        if not isinstance(name, str):
            raise RefusedError("bad_field", "id is not a text")
        features = feature_rows(request, self._settings.feature_names.get(str(model), ()))
        if "error" in response:
            common |= {"status": "error", "error": response["error"]}
            answers: list[Any] = [None] * len(features)
        else:
            answers = answer_rows(response, self._settings.class_names.get(str(model), ()))
        yield from paired(common, name, features, answers)


def paired(common: Row, name: str, features: Sequence[Row], answers: Sequence[Any]) -> Iterator[Row]:
    """A prediction event for each row. Raises RefusedError where request and response have not as many rows."""
    if len(features) != len(answers):
        raise RefusedError(
            "bad_shape", f"the request has {len(features)} rows and the response {len(answers)}; they should be as many"
        )
    for row, (values, answer) in enumerate(zip(features, answers, strict=True)):
        yield {**common, "prediction_id": f"{name}:{row}", "features": values, "prediction": answer}


def feature_rows(request: Row, names: Sequence[str]) -> list[Row]:
    """The features of each row of a V2 request. Raises RefusedError.

    names
        For the columns of a request with one input; its own ``feature_names`` parameter comes first.

    >>> tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    >>> feature_rows({"inputs": [tensor]}, ["age"])
    [{'age': 1, 'x_1': 2}, {'age': 3, 'x_1': 4}]
    """
    tensors = _tensors(request.get("inputs"), "inputs")
    if len(tensors) != 1:
        names = ()
    rows: list[Row] = [{} for _ in next(iter(tensors.values()))]
    for tensor, found in tensors.items():
        given = names
        if len(tensors) == 1:
            given = _named_columns(request["inputs"][0]) or _named_columns(request) or names
        for row, values in zip(rows, found, strict=True):
            add_columns(row, tensor, values, given)
    return rows


def add_columns(row: Row, name: str, values: Sequence[Any], names: Sequence[str] = ()) -> None:
    """Put the values of ``columns`` into a row. Raises RefusedError where it has one of that name."""
    found = columns(name, values, names)
    if shared := row.keys() & found.keys():
        raise _shared(min(shared))
    row.update(found)


def columns(name: str, values: Sequence[Any], names: Sequence[str]) -> Row:
    """The values of a row by column: by their own names as far as there are any, else ``name`` or ``name_0``, ...

    Raises RefusedError where two have one name.

    >>> columns("x", [1, 2], []), columns("x", [1], [])
    ({'x_0': 1, 'x_1': 2}, {'x': 1})
    """
    if len(values) > WIDEST_ROW:
        return {}
    if len(values) == 1:
        return {names[0] if names else name: values[0]}
    found = {names[i] if i < len(names) else f"{name}_{i}": value for i, value in enumerate(values)}
    if len(found) < len(values):
        raise _shared(max(names, key=list(names).count))
    return found


def answer_rows(response: Row, classes: Sequence[str]) -> list[Any]:
    """The answer of each row of a V2 response, as the contract has it. Raises RefusedError."""
    tensors = _tensors(response.get("outputs"), "outputs")
    by_row = zip(*tensors.values(), strict=True)
    return [answer(dict(zip(tensors, values, strict=True)), classes) for values in by_row]


def answer(outputs: Mapping[str, Sequence[Any]], classes: Sequence[str]) -> Any:
    """What a model gave for a row: one value as it is, probabilities by class, or a score and a label.

    >>> answer({"predict": [3.5]}, []), answer({"out": [0.25, 0.75]}, ["no", "yes"])
    (3.5, {'score': {'no': 0.25, 'yes': 0.75}})
    >>> answer({"label": ["yes"], "score": [0.9]}, [])
    {'score': 0.9, 'label': 'yes'}
    """
    score: Any = None
    label: Any = None
    for name, values in outputs.items():
        if len(values) > 1 and _are_probabilities(values):
            score = {classes[i] if i < len(classes) else str(i): p for i, p in enumerate(values)}
        elif len(outputs) > 1 and any(word in name.lower() for word in SCORE_WORDS):
            score = _single(values) if score is None else score
        elif label is None:
            label = _single(values)
    if score is None:
        return label
    return {"score": score} if label is None else {"score": score, "label": label}


def flat(value: Any) -> list[Any]:
    """The values in nested lists, in order.

    >>> flat([[1, [2]], 3]), flat("a")
    ([1, 2, 3], ['a'])
    """
    found: list[Any] = []
    open_lists = [iter([value])]
    while open_lists:
        for inner in open_lists[-1]:
            if isinstance(inner, list):
                open_lists.append(iter(inner))
                break
            found.append(inner)
        else:
            open_lists.pop()
    return found


def _shared(name: str) -> RefusedError:
    return RefusedError("bad_shape", f"two columns are called {name[:60]!r}; give each a name of its own")


def _single(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _are_probabilities(values: Sequence[Any]) -> bool:
    numbers = all(type(v) in (int, float) and 0 <= v <= 1 for v in values)
    return numbers and math.isclose(sum(values), 1, abs_tol=1e-3)


def _named_columns(part: Any) -> Sequence[str]:
    parameters = part.get("parameters") if isinstance(part, dict) else None
    names = parameters.get("feature_names") if isinstance(parameters, dict) else None
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else ()


def _tensors(given: Any, what: str) -> dict[str, list[list[Any]]]:
    """Tensors by name, each as rows of values. All have as many rows."""
    if not isinstance(given, list) or not given:
        raise RefusedError("bad_shape", f"{what} is no list of tensors with name, shape, datatype and data")
    tensors = {}
    for tensor in given:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise RefusedError("bad_shape", f"one of {what} is no object with a name")
        if tensor["name"] in tensors:
            raise RefusedError("bad_shape", f"two of {what} are called {tensor['name'][:60]!r}")
        tensors[tensor["name"]] = _rows(tensor)
    counts = {name: len(rows) for name, rows in tensors.items()}
    if len(set(counts.values())) != 1:
        raise RefusedError("bad_shape", f"the {what} have different numbers of rows: {str(counts)[:100]}")
    return tensors


def _rows(tensor: Row) -> list[list[Any]]:
    name = tensor["name"][:60]
    if "data" not in tensor:
        raise RefusedError("bad_shape", f"tensor {name!r} has no data; binary tensors cannot be read, send JSON")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise RefusedError(
            "bad_shape", f"tensor {name!r} has the shape {str(shape)[:60]}; it should be a list of sizes"
        )
    values = flat(tensor["data"])
    if len(values) != math.prod(shape):
        raise RefusedError("bad_shape", f"tensor {name!r} has {len(values)} values; its shape is {str(shape)[:60]}")
    count = shape[0] if shape else 1
    if not 0 < count <= MOST_ROWS:
        raise RefusedError("bad_shape", f"tensor {name!r} has {count} rows; send 1 to {MOST_ROWS}")
    if not values:
        raise RefusedError("bad_shape", f"tensor {name!r} has rows without a value: its shape is {str(shape)[:60]}")
    if tensor.get("datatype") == "BOOL":
        values = [bool(v) if v in (0, 1) else v for v in values]
    width = len(values) // count
    return [values[i * width : (i + 1) * width] for i in range(count)]
