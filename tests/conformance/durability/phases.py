"""Where a process can be stopped: the phases of the spool, each with places in it, wrapped from outside.

To stop in a place is to write a note and to stop the whole process (SIGSTOP), so that whoever kills it knows where it
was. The bytes of a frame, a header or a mark are stored by one call each; a kill may come in its middle, when some of
them are there: such a place is *torn*.
"""

import os
import signal
import time

from moengage_personalize.core import buffer
from moengage_personalize.spool import _format, _inheritance, _journal, _keeper, _segment


class Fuse:
    """Stops the process when it has been asked `left` times.

    Args:
        phase: For the note.
        left: How often.
        share: In [0, 1): how much of a torn store is done.
        note: Writes a note.
    """

    def __init__(self, phase, left, share, note):
        self._phase, self._left, self._share, self._note = phase, left, share, note

    def burns_down(self):
        self._left -= 1
        return self._left == 0

    def stop(self, where):
        self._note(stopped=self._phase, at=where)
        os.kill(os.getpid(), signal.SIGSTOP)
        while True:  # in the spool's thread, it is the other one that the signal stops first
            time.sleep(60)

    def tear(self, what, mapped, at, stored):
        """Stores a part of it, and stops."""
        done = int(self._share * (len(stored) + 1))
        mapped[at : at + done] = stored[:done]
        self.stop(f"{what}, {done} of {len(stored)} bytes")


def before(owner, name, only=lambda *_: True):
    def install(fuse):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            if only(*args) and fuse.burns_down():
                fuse.stop(f"before {name}")
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)

    return install


def after(owner, name, only=lambda *_: True, worthy=lambda _: True):
    def install(fuse):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            counts = only(*args)
            answer = original(*args, **kwargs)
            if counts and worthy(answer) and fuse.burns_down():
                fuse.stop(f"after {name}")
            return answer

        setattr(owner, name, wrapped)

    return install


class Torn:
    """Stands for one of `_segment`'s structs."""

    def __init__(self, what, struct, fuse):
        self._what, self._struct, self._fuse = what, struct, fuse
        self.size, self.unpack_from = struct.size, struct.unpack_from

    def pack_into(self, mapped, at, *values):
        if self._fuse.burns_down():
            self._fuse.tear(self._what, mapped, at, self._struct.pack(*values))
        self._struct.pack_into(mapped, at, *values)


def torn(what):
    name = what.upper()
    return lambda fuse: setattr(_segment, name, Torn(what, getattr(_segment, name), fuse))


def torn_header(fuse):
    original = _segment.Segment.activate

    def activate(segment, header):
        if fuse.burns_down():
            fuse.tear("header", segment.map, 0, _format.header_area(header))
        original(segment, header)

    _segment.Segment.activate = activate


def has_retired(keeper):
    return bool(keeper.journal.retired)


def is_some(answer):
    return answer is not None


PHASES = {  # each place with how many times it may be passed before
    "append": [(torn("frame"), 150)],
    "rotation": [
        (torn_header, 12),
        (after(_segment.Segment, "activate"), 12),
        (after(_journal.Journal, "_rotated", worthy=is_some), 12),
    ],
    "settling": [
        (torn("mark"), 100),
        (before(_journal.Journal, "settle", only=lambda _, tickets: bool(tickets)), 4),
        (before(_journal.Journal, "_retire"), 8),
        (before(_keeper.Keeper, "_sweep", only=has_retired), 8),
        (after(_keeper.Keeper, "_sweep", only=has_retired), 8),
    ],
    "adoption": [
        (before(_inheritance, "adopt_segment"), 6),
        (after(_inheritance, "adopt_segment"), 6),
        (after(_inheritance.Inheritance, "read_page", worthy=is_some), 3),
        (before(_journal.Journal, "take"), 3),
        (after(_journal.Journal, "take"), 3),
        (before(buffer.Buffer, "recover"), 60),
        (after(buffer.Buffer, "recover"), 60),
    ],
}


def install(phase, turn, rng, note):
    """Prepares to stop in a phase, in each of its places in turn."""
    place, most = PHASES[phase][turn % len(PHASES[phase])]
    place(Fuse(phase, rng.randint(1, most), rng.random(), note))
