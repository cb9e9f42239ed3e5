"""Things to ask for. A file per kind; its name is the ``kind`` in the configuration. See ``alerts.kinds``."""
