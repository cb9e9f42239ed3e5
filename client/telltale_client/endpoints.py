"""What logging an endpoint has in common, whatever the framework."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from telltale_client.encoding import described, feature_values
from telltale_client.logger import Logger

Answer = TypeVar("Answer")


@contextlib.contextmanager
def answered(
    logger: Logger,
    features: Callable[..., object],
    prediction: Callable[[Any], object],
    prediction_id: Callable[..., object],
    values: dict[str, Any],
    refuses: Callable[[BaseException], bool],
) -> Iterator[Callable[[Answer], Answer]]:
    """Log one call of an endpoint with its time: pass what it returns through what this gives.

    A fault in one of the functions is counted as a failed call and disturbs no answer.
    """
    row = logger.guarded(lambda: feature_values(features(**values)))  # before the endpoint, which may change them
    told = logger.guarded(lambda: prediction_id(**values))
    answers: list[Any] = []

    def done(answer: Answer) -> Answer:
        answers.append(answer)
        return answer

    at, started = time.time(), time.perf_counter()

    def log(answer: object, error: str | None) -> None:
        latency_ms = (time.perf_counter() - started) * 1000
        logger.predict(row, answer, latency_ms=latency_ms, prediction_id=told, timestamp=at, error=error)

    try:
        yield done
    except Exception as error:
        if not refuses(error):
            log(None, described(error))
        raise
    if answers:
        log(logger.guarded(lambda: prediction(answers[0])), None)
