"""What turns a database of an earlier release into one of this release, a step at a time: alembic's revisions.

``versions`` holds them, each named by the schema version that it makes. A revision says what it does in full and
imports nothing of ours, because what it once did must not change with our code. ``maintenance.upgrade`` runs them.
"""
