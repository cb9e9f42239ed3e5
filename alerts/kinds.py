"""Finds what can be extended: one file is one kind, and the file's name is the kind that the configuration names."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def kinds_in(package: ModuleType) -> dict[str, type]:
    """The class of every kind in a package: of the file ``some_name.py``, the class ``SomeName``.

    Raises AttributeError for a file without that class.

    >>> import alerts.notifiers
    >>> kinds_in(alerts.notifiers)["webhook"].__name__
    'Webhook'
    """
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: getattr(module, name.title().replace("_", "")) for name, module in modules.items()}
