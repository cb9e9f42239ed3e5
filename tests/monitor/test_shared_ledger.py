"""A service whose ledger is shared with others, on a server that asks for a password."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from postgres import Postgres, shown
from sqlalchemy import make_url

from alerts.ledger import Claim, Ledger, LedgerError
from detectors.finding import Finding, Window
from monitor.config_file import load
from monitor.judge import Judge
from monitor.registry import Model
from monitor.service import LEASE, Service

HOUR = timedelta(hours=1)
MODELS = {"m": {"windows": ["1h"]}}


@pytest.fixture
def store(ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The section of the configuration, with the password where it belongs."""
    url = make_url(ledger_url)
    section: dict[str, Any] = {"path": tmp_path / "data", "ledger": shown(url._replace(password=None))}
    if url.password is not None:
        monkeypatch.setenv("LEDGER_PASSWORD", str(url.password))
        section |= {"ledger_password_env": "LEDGER_PASSWORD"}
    return section


def test_a_judge_whose_lease_runs_out_while_it_measures_leaves_the_window_to_the_other(
    make_service: ServiceMaker,
    clock: StillClock,
    store: Mapping[str, Any],
    ledger_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = make_service(store=store, models=MODELS)
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    clock.at = NOON + HOUR + timedelta(minutes=5)
    theirs = Claim("production", "m", "traffic:3600s", NOON, NOON + HOUR, "another judge")
    other = Ledger(ledger_url)
    measure = Judge.traffic

    def measure_slowly(judge: Judge, model: Model, window: Window, now: datetime) -> list[Finding]:
        assert other.claim(theirs, now + LEASE, LEASE)
        return measure(judge, model, window, now)

    monkeypatch.setattr(Judge, "traffic", measure_slowly)
    assert service.judge_due(clock.at) == 0
    assert other.last_finished("production", "m", "traffic:3600s") is None, "it is the other's to finish"
    with other.writing() as book:
        assert book.finish(theirs, clock.at)
    assert service.judge_due(clock.at) == 0
    other.close()


def test_a_service_reads_the_password_of_its_ledger_from_a_file(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        password = str(url.password)
        (tmp_path / "password").write_text(password + "\n")
        file = tmp_path / "telltale.yaml"
        place = shown(url._replace(password=None))
        file.write_text(f"store: {{path: data, ledger: '{place}', ledger_password_file: password}}\n")
        config = load(file)
        with Service(config, StillClock()) as service:
            service.tick(NOON)
            service.check()
            assert service.alerts() == {"firing": [], "timeline": []}
            assert password not in f"{config!r}{vars(service.ledger)}"
        (tmp_path / "password").write_text("not-" + password)
        with pytest.raises(LedgerError, match=f"the ledger at {place} cannot be used") as refused:
            Service(config, StillClock())
        assert password not in str(refused.value)
