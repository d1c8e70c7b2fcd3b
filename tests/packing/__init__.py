"""Packed payloads over real sockets: both sides, every shape, and peers that mean no good."""
