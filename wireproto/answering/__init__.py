"""What runs the calls of a peer, on either side of a connection: their handlers, their streams, and the threads.

A server uses it for the calls of its clients, over TCP and over gRPC, and a client with handlers for those of its
server. ``pool.py`` has the threads, ``call.py`` one call, ``pump.py`` what goes out of it and ``intake.py`` what comes.
"""
