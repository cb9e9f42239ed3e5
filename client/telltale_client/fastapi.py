"""For FastAPI: endpoints that log what they answer, and a last flush when the application ends."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from telltale_client.endpoints import answered
from telltale_client.logger import Logger

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def logged(
    logger: Logger,
    *,
    features: Callable[..., object],
    prediction: Callable[[Any], object] = lambda answer: answer,
    prediction_id: Callable[..., object] = lambda **_: None,
) -> Callable[[Endpoint], Endpoint]:
    """Log every call of an endpoint, ``def`` or ``async def``, with its time. Put it below the route's decorator.

    features
        Makes the features of what the endpoint was called with, by the same names.
    prediction
        Makes the prediction of what the endpoint returned; all of it, if left out.
    prediction_id
        Makes the id that a label will name, called as ``features`` is; a new one, if left out.

    An ``HTTPException`` below 500 refuses the request and says nothing of the model: it is not logged. Whatever else
    the endpoint raises is logged as an error and goes on.
    """

    def decorate(endpoint: Endpoint) -> Endpoint:
        def watching(values: dict[str, Any]) -> Any:
            return answered(logger, features, prediction, prediction_id, values, _refusal)

        if inspect.iscoroutinefunction(endpoint):

            @functools.wraps(endpoint)
            async def call(**values: Any) -> Any:
                with watching(values) as done:
                    return done(await endpoint(**values))
        else:

            @functools.wraps(endpoint)
            def call(**values: Any) -> Any:
                with watching(values) as done:
                    return done(endpoint(**values))

        return call  # type: ignore[return-value]  # called as the endpoint is

    return decorate


def close_with(app: FastAPI, logger: Logger) -> None:
    """Close the logger when the application ends. uvicorn ends by a signal, without ``atexit``."""
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(given: Any) -> AsyncIterator[Any]:
        try:
            async with inner(given) as state:
                yield state
        finally:
            await run_in_threadpool(logger.close)

    app.router.lifespan_context = lifespan


def _refusal(error: BaseException) -> bool:
    return isinstance(error, HTTPException) and error.status_code < 500
