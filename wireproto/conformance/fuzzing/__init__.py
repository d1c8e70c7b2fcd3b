"""Traffic nobody would send on purpose, against a server that runs: what ``wireproto fuzz`` does.

It needs nothing beyond the standard library and the framework; every choice comes from one seeded generator.
"""
