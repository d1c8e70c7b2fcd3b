"""The protocol without a socket: frames, the handshake, the table of states, and the connection that follows them."""
