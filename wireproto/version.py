"""The version of the framework, below everything: a module that says it on the wire needs nothing else of the root."""

__version__ = "0.1.0"
