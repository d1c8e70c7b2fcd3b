"""Alembic's revisions, one a module."""
