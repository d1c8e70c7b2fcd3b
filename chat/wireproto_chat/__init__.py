"""The reference application of wireproto: a durable chat with accounts, live delivery and undelivered queues.

``wireproto_chat.opcodes`` is what a client needs; it loads neither SQL nor password code.
``wireproto_chat.service.handlers`` has ``open_chat``, which is what a server needs.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
