"""Dashboards into a running Grafana, over its HTTP API. Whatever speaks to Grafana is in this file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from dashboards.grafana.panels import DATASOURCE, TAG, Json

FOLDER = {"uid": "telltale", "title": "Telltale"}
TIMEOUT_SECONDS = 10.0
NATIVE_PORT, NATIVE_TLS_PORT = 9000, 9440
ABSENT, FORBIDDEN, TAKEN = 404, 403, (409, 412)
LONGEST_MESSAGE = 300
HINTS = {
    401: "it does not know the token; make one for a service account with the role Editor",
    403: "the token may not do that; its service account needs the role Editor, and Admin to make a data source",
    404: "give Grafana's own address, with the path under which it is served if there is one",
    409: "rename what has that name in Grafana, or remove it",
    412: "somebody changed it meanwhile, or another one has this name; look there, then push again",
}
"""What to do, by the status that Grafana answers with."""


class GrafanaError(Exception):
    """Grafana refused or did not answer. The message says where and what to do, and never holds the token."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Pushed(NamedTuple):
    """What became of one thing: ``created``, ``updated``, ``unchanged``, or a sentence."""

    what: str
    outcome: str


def push(dashboards: Iterable[Json], url: str, token: str, source: Json | None = None) -> Iterator[Pushed]:
    """Bring Grafana's dashboards up to date, each known by its uid; doing it again changes nothing.

    They are made in the folder Telltale, and left where people have moved them. A dashboard without the tag
    ``telltale`` is somebody else's and left alone. Nothing is ever removed.

    source
        The data source to make if it is not there, from ``clickhouse_source``.

    Raises GrafanaError.
    """
    with _connected(url, token) as grafana:
        if grafana.found(grafana.face.folder.get_folder, FOLDER["uid"]) is None:
            yield Pushed(f"folder {FOLDER['title']}", _make_folder(grafana))
        if source is not None:
            yield Pushed(f"data source {source['name']}", _make_source(grafana, source))
        for dashboard in dashboards:
            yield Pushed(dashboard["title"], _put(grafana, dashboard))
        yield Pushed("its data source", _health(grafana))


def clickhouse_source(url: str, password: str = "") -> Json:
    """The data source for a ClickHouse server, as Grafana's plugin wants it. ``clickhouses://`` speaks TLS.

    Raises GrafanaError.

    >>> clickhouse_source("clickhouse://grafana@10.0.0.5/telltale")["jsonData"]["port"]
    9000
    """
    parts = _split(url)
    if parts is None or parts.scheme not in {"clickhouse", "clickhouses"} or parts.password is not None:
        raise GrafanaError(
            "the address of ClickHouse is not the URL of such a server, without a password; "
            "write one such as clickhouse://grafana@10.0.0.5:9000/telltale"
        )
    secure = parts.scheme == "clickhouses"
    return {
        "name": "Telltale",
        "access": "proxy",
        **DATASOURCE,
        "jsonData": {
            "host": parts.hostname,
            "port": parts.port or (NATIVE_TLS_PORT if secure else NATIVE_PORT),
            "protocol": "native",
            "secure": secure,
            "username": parts.username or "default",
            "defaultDatabase": parts.path.strip("/") or "default",
        },
        "secureJsonData": {"password": password},
    }


class _Grafana:
    """One Grafana, whose refusals are told as GrafanaError."""

    def __init__(self, face: GrafanaFace, origin: str) -> None:
        self.face = face
        self._origin = origin

    def ask(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except GrafanaException as error:
            status, message = error.status_code, _message(error.response)
            hint = f"; {HINTS[status]}" if status in HINTS else ""
            raise GrafanaError(f"Grafana at {self._origin} answered {status}{message}{hint}", status) from None
        except requests.TooManyRedirects:
            raise GrafanaError(f"{self._origin} leads elsewhere; give the address that it leads to") from None
        except requests.JSONDecodeError:
            raise self._not_grafana() from None
        except requests.RequestException as error:
            why = f"{type(error).__name__}; is the address right, and does it run?"
            raise GrafanaError(f"Grafana at {self._origin} does not answer: {why}") from None
        except TypeError:  # of the library, when an error's body is JSON without being an object
            raise self._not_grafana() from None

    def found(self, call: Callable[..., Any], *given: Any) -> Json | None:
        """What Grafana has, or nothing."""
        try:
            answer = self.ask(call, *given)
        except GrafanaError as error:
            if error.status == ABSENT:
                return None
            raise
        if not isinstance(answer, dict):
            raise self._not_grafana()
        return answer

    def _not_grafana(self) -> GrafanaError:
        return GrafanaError(f"{self._origin} answers, but not as Grafana does; {HINTS[ABSENT]}")


@contextlib.contextmanager
def _connected(url: str, token: str) -> Iterator[_Grafana]:
    parts = _split(url)
    if parts is None or parts.scheme not in {"http", "https"} or "@" in parts.netloc or parts.query or parts.fragment:
        raise GrafanaError(
            "the address of Grafana is not a URL without user, password and query; "
            "write one such as https://grafana.example or http://10.0.0.5:3000/grafana"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise GrafanaError("the token holds characters that no token of Grafana has; look into where it is kept")
    path = parts.path.strip("/")
    face = GrafanaFace(
        token,
        host=parts.netloc,
        protocol=parts.scheme,
        url_path_prefix=f"{path}/" if path else "",
        timeout=TIMEOUT_SECONDS,
    )
    face.api.s.max_redirects = 0  # following one would make a GET of a POST
    with face.api.s:
        yield _Grafana(face, f"{parts.scheme}://{parts.netloc}")


def _make_folder(grafana: _Grafana) -> str:
    try:
        grafana.ask(grafana.face.folder.create_folder, **FOLDER)
    except GrafanaError as error:
        if error.status in TAKEN and grafana.found(grafana.face.folder.get_folder, FOLDER["uid"]):
            return "unchanged"  # another push made it meanwhile
        raise
    return "created"


def _make_source(grafana: _Grafana, source: Json) -> str:
    if grafana.found(grafana.face.api.GET, f"/datasources/uid/{source['uid']}") is not None:
        return "unchanged"
    grafana.ask(grafana.face.datasource.create_datasource, source)
    return "created"


def _put(grafana: _Grafana, dashboard: Json) -> str:
    there = grafana.found(grafana.face.dashboard.get_dashboard, dashboard["uid"])
    if there is None:
        _save(grafana, dashboard, FOLDER["uid"], overwrite=False)
        return "created"
    theirs = there.get("dashboard") or {}
    if TAG not in (theirs.get("tags") or ()):
        return f"left alone: the dashboard with the uid {dashboard['uid']} has not the tag {TAG}"
    if _holds(theirs, {key: value for key, value in dashboard.items() if key != "id"}):
        return "unchanged"
    _save(grafana, dashboard, (there.get("meta") or {}).get("folderUid", ""), overwrite=True)
    return "updated"


def _save(grafana: _Grafana, dashboard: Json, folder: str, *, overwrite: bool) -> None:
    """Overwriting is by uid; a new one must not overwrite another that has its title."""
    body = {"dashboard": dashboard, "folderUid": folder, "overwrite": overwrite, "message": "telltale dashboards push"}
    grafana.ask(grafana.face.dashboard.update_dashboard, body)


def _holds(theirs: Any, ours: Any) -> bool:
    """Whether all that we would send is there; what Grafana adds by itself makes no difference."""
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(k in theirs and _holds(theirs[k], v) for k, v in ours.items())
    if isinstance(ours, list):
        alike = isinstance(theirs, list) and len(theirs) == len(ours)
        return alike and all(map(_holds, theirs, ours))
    return bool(theirs == ours)


def _health(grafana: _Grafana) -> str:
    uid = DATASOURCE["uid"]
    try:
        found = grafana.found(grafana.face.api.GET, f"/datasources/uid/{uid}/health")
    except GrafanaError as error:
        return "not asked: the token may not" if error.status == FORBIDDEN else f"does not work: {error}"
    return "works" if found else f"not there: without a ClickHouse data source with the uid {uid} the panels stay empty"


def _message(response: Any) -> str:
    """Grafana's own words, if these are its."""
    said = response.get("message") if isinstance(response, dict) else None
    return f": {' '.join(str(said).split())[:LONGEST_MESSAGE]}" if said else ""


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that names a host."""
    try:
        parts = urlsplit(url.strip())
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None
