"""For Flask: views that log what they answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from telltale_client.endpoints import answered
from telltale_client.logger import Logger

View = TypeVar("View", bound=Callable[..., Any])


def logged(
    logger: Logger,
    *,
    features: Callable[..., object],
    prediction: Callable[[Any], object] = lambda answer: answer,
    prediction_id: Callable[..., object] = lambda **_: None,
) -> Callable[[View], View]:
    """Log every call of a view, ``def`` or ``async def``, with its time. Put it below the route's decorator.

    features
        Makes the features of what the view is called with; ``flask.request`` is there.
    prediction
        Makes the prediction of what the view returned; all of it, if left out.
    prediction_id
        Makes the id that a label will name, called as ``features`` is; a new one, if left out.

    An ``HTTPException`` below 500, such as ``abort(404)`` raises, refuses the request and is not logged. Whatever else
    the view raises is logged as an error and goes on.
    """

    def decorate(view: View) -> View:
        from flask import current_app

        @functools.wraps(view)
        def call(**values: Any) -> Any:
            with answered(logger, features, prediction, prediction_id, values, _refusal) as done:
                return done(current_app.ensure_sync(view)(**values))

        return call  # type: ignore[return-value]  # called as the view is

    return decorate


def _refusal(error: BaseException) -> bool:
    from werkzeug.exceptions import HTTPException

    return isinstance(error, HTTPException) and (error.code or 500) < 500
