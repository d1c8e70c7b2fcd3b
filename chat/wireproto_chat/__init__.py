"""The reference application: a durable chat service with accounts, live delivery and undelivered queues.

``wireproto_chat.contract`` is what a client needs; it loads neither SQL nor password code. ``wireproto_chat.service.handlers``
has ``open_chat``, which is what a server needs.
"""
