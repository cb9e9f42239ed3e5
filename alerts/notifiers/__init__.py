"""Ways to tell someone. A file per kind; its name is the ``kind`` in the configuration. See ``alerts.kinds``."""
