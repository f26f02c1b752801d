"""Arbitrary bytes in; records that were written, or nothing, out."""

import pytest
from hypothesis import given, settings, strategies as st
from spool.helpers import entry

from moengage_personalize.spool import DeadLetter, Entry, _format as f

MARKER = b"\xa1\x07\xff\x00mark"
texts = st.text(max_size=20)
entries = st.builds(
    Entry,
    event_uuid=st.uuids(version=4).map(str),
    customer=st.binary(max_size=40),
    impression=st.booleans(),
    payload=st.binary(max_size=200),
    attributes=st.binary(max_size=40),
    timezone_offset=st.none() | st.integers(-(2**31), 2**31 - 1),
    accepted_at=st.floats(allow_nan=False),
)


def image(bodies, marker=MARKER, room=64):
    """The record area of a file: frames, then zeros."""
    return b"".join(f.framed(body, marker) for body in bodies) + bytes(room)


def read(data, *, window=None, limit=1000):
    """All frames, read in windows as a segment is."""
    frames, at, skipped, size = [], 0, 0, window or len(data) or 1
    while at < len(data):
        page = f.scan(data[at : at + size], MARKER, base=at, size=len(data), limit=limit)
        frames += page.frames
        skipped += page.skipped
        if page.next > at:
            at, size = page.next, window or len(data)
        else:
            size *= 2
    return frames, skipped


def decoded(data, **options):
    return [f.decode_entry(frame.body) for frame in read(data, **options)[0]]


@given(entries)
def test_an_entry_comes_back_as_it_was(made):
    assert f.decode_entry(f.encode_entry(made)) == made


@given(entries, texts, st.none() | st.integers(0, 999), st.floats(allow_nan=False))
def test_a_dead_letter_comes_back_as_it_was(made, reason, status, at):
    letter = DeadLetter(entry=made, reason=reason, status=status, buried_at=at)
    assert f.decode_letter(f.encode_letter(letter)) == letter


def test_a_tombstone_comes_back_as_it_was():
    assert f.decode_tombstone(f.encode_tombstone(b"0123456789abcdef", 7.5)) == (b"0123456789abcdef", 7.5)


@given(st.binary(max_size=200))
def test_the_decoders_are_total(data):
    for decode in (f.decode_entry, f.decode_letter, f.decode_tombstone, f.read_header):
        decode(data)


@given(st.binary(max_size=400), st.integers(1, 64), st.integers(1, 5))
def test_no_record_is_read_from_arbitrary_bytes(data, window, limit):
    assert read(data.replace(MARKER, b""), window=window, limit=limit)[0] == []


@given(st.lists(st.binary(max_size=60).map(lambda junk: MARKER + junk), max_size=8).map(b"".join))
def test_markers_alone_make_no_record(data):
    assert read(data)[0] == []


@given(st.lists(entries, max_size=8), st.integers(8, 600).map(f.padded), st.integers(1, 5))
def test_records_come_back_in_order_through_windows_and_pages_of_any_size(made, window, limit):
    assert decoded(image(map(f.encode_entry, made)), window=window, limit=limit) == made


@pytest.mark.parametrize("last", [0, 1, 77])
def test_a_tail_torn_at_any_byte_costs_the_last_record_only(last):
    made = [entry(1), entry(2), entry(3, size=last)]
    data = image(map(f.encode_entry, made), room=0)
    whole = len(image([f.encode_entry(made[0]), f.encode_entry(made[1])], room=0))
    end = whole + f.FRAME_SIZE + len(f.encode_entry(made[2]))
    for length in range(whole, len(data) + 1):
        expected = made if length >= end else made[:2]
        assert decoded(data[:length]) == expected
        assert decoded(data[:length].ljust(len(data), b"\0") + bytes(16)) == expected or length >= end - 1


def test_a_flipped_bit_anywhere_costs_one_record_at_most_and_makes_none():
    made = [entry(1, size=9), entry(2, size=9), entry(3, size=9)]
    data = image(map(f.encode_entry, made))
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found = decoded(bytes(damaged))
        assert all(one in made for one in found)
        assert len(found) >= 2


def test_no_flipped_bit_settles_a_pending_record():
    data = image([f.encode_entry(entry(1))])
    for bit in range(f.MARK_AT * 8, (f.MARK_AT + 4) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (frame,), _ = read(bytes(damaged))
        assert not frame.settled


def test_a_settled_record_says_so():
    data = bytearray(image([f.encode_entry(entry(1))]))
    f.MARK.pack_into(data, f.MARK_AT, f.SETTLED)
    (frame,), _ = read(bytes(data))
    assert frame.settled


def test_a_record_inside_a_payload_is_not_read_even_when_its_carrier_is_damaged():
    # Whoever wrote the payload did not know this file's marker.
    forged = image([f.encode_entry(entry(66))], marker=b"forged!!")
    carrier = entry(1)
    body = f.encode_entry(Entry(**{**{a: getattr(carrier, a) for a in Entry.__slots__[:7]}, "payload": forged}))
    data = bytearray(image([body, f.encode_entry(entry(2))]))
    data[f.FRAME_SIZE] ^= 255  # its length
    assert decoded(bytes(data)) == [entry(2)]


def test_damage_is_counted_once_for_each_place():
    made = [entry(number) for number in range(6)]
    bodies = [f.encode_entry(one) for one in made]
    data = bytearray(image(bodies))
    for broken in (1, 4):
        at = len(image(bodies[:broken], room=0)) + f.FRAME_SIZE + 60
        data[at] ^= 1
    frames, skipped = read(bytes(data))
    assert len(frames) == 4
    assert skipped == 2


def test_zeros_are_not_damage():
    assert read(bytes(5000)) == ([], 0)


def test_a_header_survives_any_flipped_bit():
    header = f.Header(f.Kind.ENTRY, MARKER, 7, 1.5)
    area = f.header_area(header)
    for bit in range(len(area) * 8):
        damaged = bytearray(area)
        damaged[bit // 8] ^= 1 << bit % 8
        assert f.read_header(bytes(damaged)) == header


@pytest.mark.parametrize(
    ("area", "fault"),
    [
        (b"", f.HeaderFault.BLANK),
        (bytes(256), f.HeaderFault.BLANK),
        (b"#!/bin/sh\n" * 26, f.HeaderFault.DAMAGED),
        (f.header_area(f.Header(f.Kind.ENTRY, MARKER))[:60], f.HeaderFault.DAMAGED),
    ],
)
def test_what_is_no_header_is_named(area, fault):
    assert f.read_header(area) is fault


def newer(area):
    """The same header with the next version, as its first 64 bytes will always be laid out."""
    copy = bytearray(area[:60])
    copy[8:10] = (f.VERSION + 1).to_bytes(2, "little")
    copy += f.crc32(bytes(copy)).to_bytes(4, "little")
    return bytes(copy) + bytes(64) + bytes(copy) + bytes(64)


def test_a_newer_version_is_told_from_damage():
    assert f.read_header(newer(f.header_area(f.Header(f.Kind.ENTRY, MARKER)))) is f.HeaderFault.NEWER


@settings(deadline=None)
@given(st.binary(min_size=0, max_size=20_000))
def test_the_checksum_in_pieces_is_the_checksum(data):
    assert f.checksum(data) == f.crc32(data)
