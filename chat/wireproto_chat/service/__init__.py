"""The chat's server side: one handler for each method, and the jobs that it gives to the store."""
