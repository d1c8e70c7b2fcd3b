"""Coverage-guided fuzzing of everything that reads a peer's bytes; ``make fuzz``, docs/testing.md."""
