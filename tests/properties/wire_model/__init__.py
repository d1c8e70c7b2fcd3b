"""A model of calls between two sides: the judge of the state table, written from the text of the wire alone.

    frames    what is sent, and the ways in which a side ends a connection
    rules     the states of a call as one table, every other rule as a switch, and the sizes of a small wire
    sides     one side of a connection: it judges what it receives by the rules, and sends what they allow
    programs  what runs above a side: callers that begin calls, and handlers that answer them
    exchange  two programs with a queue of frames in each direction, and what holds when all has settled

A program reaches its side through the methods of ``WireSide`` alone, so that another implementation of the wire can
take the place of a ``ModelSide``.
"""
