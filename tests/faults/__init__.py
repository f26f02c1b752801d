"""Servers and networks that misbehave on purpose, and count what reaches them.

What a client claims about itself is worth little; what its peer saw is evidence. So every helper here counts
on the far side:

- `server`: an HTTP/2 (and HTTP/1.1) server over TLS or cleartext, whose paths (`behaviours`) are faults; in a
  thread or in a process.
- `relay`: a TCP relay with toxics: latency, black hole, reset, slicer, bandwidth.
- `nginx`, `node`, `granian_server`: the real servers, started for a test and skipped with a reason where they
  are not installed.
- `certificates`: a certificate authority made on the spot, and the certificates that a client must refuse.
"""
