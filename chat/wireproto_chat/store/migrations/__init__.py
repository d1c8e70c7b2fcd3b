"""What turns a database of an earlier release into one of this release, a step at a time: alembic's revisions, named
by the schema version that they make. They say what they do in full and import nothing of ours, for what they once did
must not change with it. ``maintenance.upgrade`` runs them."""
