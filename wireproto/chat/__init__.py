"""The reference application: a durable chat service with accounts, live delivery and undelivered queues.

``wireproto.chat.contract`` is what a client needs; it loads neither SQL nor password code. ``wireproto.chat.handlers``
has ``open_chat``, which is what a server needs.
"""
