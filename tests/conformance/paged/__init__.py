"""A server built from the three pages of the protocol and ``docs/conformance.md`` alone, section by section.

Nothing of wireproto is imported, and nothing but the standard library: what the pages do not say, this server does not
know. It serves ``pages.v1.PageService``, with a default of every kind, or ``wireconformance.v1.ConformanceService``.
"""
