"""The chat's database: its tables, the one thread that writes, and what an operator does to it."""
