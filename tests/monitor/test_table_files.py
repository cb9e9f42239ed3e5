"""Files of tables: taken in once, whatever wrote them, however often they are imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from arrow import stream, table_of
from given import NOON, ServiceMaker, prediction
from pyarrow import ipc

from monitor import table_files
from monitor.remote import RemoteService
from monitor.running import listening, serve
from monitor.service import Service
from monitor.table_files import import_table, is_table_file
from monitor.tables import BadTableError


def write(path: Path, table: pa.Table, rows: int = 50) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=rows)
    elif path.suffix == ".arrow":
        with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=rows)
    elif path.suffix == ".feather":
        pl.from_arrow(table).write_ipc(path)  # type: ignore[union-attr]  # of a table it makes a frame
    else:
        path.write_bytes(stream(table, rows))
    return path


def events(count: int) -> list[dict[str, Any]]:
    given = [prediction(n, NOON) for n in range(count)]
    given[70]["prediction_id"] = ""
    return given


def wide(count: int) -> pa.Table:
    """Events beside which there is more, as batch jobs have it."""
    table = table_of(events(count)).append_column("picture", pa.array([b"\xff\x00"] * count))
    server = table.schema.get_field_index("server")
    return table.set_column(server, "server", table["server"].dictionary_encode())


def taken(service: Service, path: Path) -> tuple[int, list[int]]:
    answers = [answer for _, answer in import_table(service, path)]
    return sum(a["accepted"] for a in answers), [r["line"] for a in answers for r in a["rejected"]]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows", "t.feather"])
def test_importing_again_changes_nothing(
    make_service: ServiceMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(table_files, "PIECE_ROWS", 30)
    path = write(tmp_path / name, wide(120))
    assert is_table_file(path)
    service = make_service()
    done = import_table(service, path)
    next(done)
    next(done)  # and is interrupted
    for _ in range(2):
        assert taken(service, path) == (119, [71])
    held = service.status()["rows"]
    assert (held["predictions"], held["dead_letters"]) == (119, 1)
    profiled = service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0]
    assert profiled == 119


def test_a_running_service_is_given_the_pieces(make_service: ServiceMaker, tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", wide(120))
    service = make_service()
    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url), RemoteService(url) as remote:
        answers = [answer for _, answer in import_table(remote, path)]
    assert [a["accepted"] for a in answers] == [50, 49, 20]
    assert [r["line"] for a in answers for r in a["rejected"]] == [71]
    assert taken(service, path) == (119, [71])
    assert service.status()["rows"]["predictions"] == 119


def test_tables_of_long_texts_are_cut_into_smaller_pieces(
    make_service: ServiceMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("arrow_stream", "table_events"):
        monkeypatch.setattr(f"monitor.{module}.LARGEST_TABLE", 50_000)
    long = [prediction(n, NOON, error="x" * 1000) for n in range(100)]
    path = write(tmp_path / "t.parquet", table_of(long), rows=100)
    answers = [answer["accepted"] for _, answer in import_table(make_service(), path)]
    assert sum(answers) == 100
    assert len(answers) > 2


def test_a_broken_file_is_told_and_what_came_before_stays(make_service: ServiceMaker, tmp_path: Path) -> None:
    service = make_service()
    path = write(tmp_path / "t.parquet", table_of(events(100)))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + whole[40:])
    with pytest.raises(BadTableError, match=r"t\.parquet: "):
        taken(service, path)
    path = write(tmp_path / "t.arrows", table_of(events(100)))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(BadTableError, match=r"t\.arrows: "):
        taken(service, path)
    assert service.status()["rows"]["predictions"] == 50


def test_lines_are_no_table(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b'{"type":"prediction"}\n')
    assert not is_table_file(path)
