"""Telltale: watches models in production, names the version and server at fault, and proves a rollback."""
