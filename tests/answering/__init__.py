"""Tests of what runs the calls of a peer."""
