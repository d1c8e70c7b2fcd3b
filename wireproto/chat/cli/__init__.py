"""The chat's commands: `chat` talks to a server, `db` is what an operator does to a database."""
