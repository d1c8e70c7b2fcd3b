"""The chat as clients in the field see it: through each of its doors, in each version, through crashes."""
