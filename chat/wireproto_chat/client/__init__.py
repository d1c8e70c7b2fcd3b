"""The chat's client without its terminal: commands, answers, messages, and the connection that comes back."""
