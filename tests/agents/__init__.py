"""Tests of calls that the server makes and its clients answer."""
