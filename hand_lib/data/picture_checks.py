"""Whether the bytes of a JPEG or PNG are whole, which no decoder at hand tells.

OpenCV, Pillow and torchvision paint something over a damaged stretch and go on; libjpeg's warning
reaches stderr at best. Here the entropy code of a baseline JPEG (ITU-T T.81) is read through
without making pixels: every code must exist, every block must end within its 64 coefficients,
every mean grey must stay in range, and the blocks must use the data up. PNGs carry checksums.
"""

import zlib
from functools import lru_cache

import numba
import numpy as np

SPARE_BYTES = 4
"""Bytes that may be left between the last block and the next marker; some webcams leave them."""

BRIGHTEST = 1200
"""Largest mean of a block that passes, in eighths of a grey level about 128; black is -1024."""

_LONGEST_BLOCK = 256
"""No block takes more bytes: 64 codes of 16 bits with values of 15."""

_SHORT = 12
"""Codes up to this length are found in a table that stays in the fastest cache."""

_BASELINE, _OTHER_FRAMES = (0xC0, 0xC1), (0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC),
                                          *range(0xCD, 0xD0))  # fmt: skip
_PROBLEMS = {
    1: "its picture data ends too early",
    2: "picture data is left over",
    3: "a restart marker is missing or misplaced",
    4: "a code that its tables do not have",
    5: "a block with more than 64 coefficients",
    6: "a brightness out of range",
}


def picture_problem(data: bytes) -> str | None:
    """What is wrong with a picture's bytes, or None where nothing is found.

    data: of a JPEG or PNG; anything else passes. Progressive and other rare kinds of JPEG are
    checked for their segments alone, and damage that leaves a valid code stays unseen.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg_problem(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_problem(data)
    return None


def _png_problem(data: bytes) -> str | None:
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"damaged: the checksum at byte {end} is wrong"
        if data[at + 4 : at + 8] == b"IEND":
            return None
        at = end + 4
    return f"cut off ({len(data)} bytes, no end marker)"


def _jpeg_problem(data: bytes) -> str | None:
    at, head, painted = 2, b"", False
    cut = f"cut off ({len(data)} bytes, no end marker)"
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 2 > len(data):
            return cut
        marker = data[at + 1]
        if marker == 0xD9:
            return None if painted else "damaged: it ends before its picture"
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            return cut
        if marker < 0xE0:  # neither a comment nor a program's own segment
            head += data[at + 1 : end]
        at = end
        if marker == 0xDA:
            try:
                plan = _scan_plan(head)
            except (KeyError, IndexError, ValueError, ZeroDivisionError):
                return f"damaged: the segments before byte {at} make no sense"
            painted = True
            if plan is not None:
                status, at = _read(np.frombuffer(data, np.uint8), at, *plan)
                if status:
                    return (
                        cut if at >= len(data) - 1 else f"damaged: {_PROBLEMS[status]} (byte {at})"
                    )


@lru_cache(maxsize=16)
def _scan_plan(head: bytes):
    """What ``_read`` needs for the scan at the end of these segments; None where it cannot read it.

    head: all segments so far without their leading 0xff, each a marker, two bytes of length, body.
    """
    at, codes, quantisers, frame, interval = 0, {}, {}, None, 0
    while True:
        marker, end = head[at], at + 1 + int.from_bytes(head[at + 1 : at + 3], "big")
        body, at = head[at + 3 : end], end
        if marker == 0xC4:
            codes |= _code_tables(body)
        elif marker == 0xDB:
            quantisers |= _dc_quantisers(body)
        elif marker == 0xDD:
            interval = int.from_bytes(body[:2], "big")
        elif marker in _BASELINE and body[0] == 8:
            frame = _Frame(body)
        elif marker in _OTHER_FRAMES or marker in _BASELINE:
            return None
        elif at >= len(head):
            return (*_scan_tables(frame, body, codes, quantisers), interval)


class _Frame:
    """Size and components of a baseline frame.   body: of its SOF segment."""

    def __init__(self, body: bytes):
        self.height, self.width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
        rows = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
        self.components = {row[0]: (row[1] >> 4, row[1] & 15, row[2]) for row in rows}
        self.widest = max(h for h, _, _ in self.components.values())
        self.tallest = max(v for _, v, _ in self.components.values())


def _code_tables(body: bytes) -> dict:
    """Class and number of each table -> its 16 counts and its symbols, as bytes."""
    tables, at = {}, 0
    while at + 17 <= len(body):
        end = at + 17 + sum(body[at + 1 : at + 17])
        if end > min(len(body), at + 273):
            raise IndexError("more codes than a table holds")
        tables[body[at] >> 4, body[at] & 15] = body[at + 1 : end]
        at = end
    return tables


def _dc_quantisers(body: bytes) -> dict:
    """Number of each table -> its first entry."""
    tables, at = {}, 0
    while at < len(body):
        wide = body[at] >> 4
        tables[body[at] & 15] = int.from_bytes(body[at + 1 : at + 2 + wide], "big")
        at += 1 + 64 * (1 + wide)
    return tables


def _scan_tables(frame, body, codes, quantisers):
    """Code tables, order of blocks and number of groups of blocks of a scan.   body: its header."""
    if frame is None:
        raise ValueError("no size before the picture")
    chosen = [body[1 + 2 * i : 3 + 2 * i] for i in range(body[0])]
    keys, plan = [], []
    for number, (name, tables) in enumerate(chosen):
        across, down, quantiser = frame.components[name]
        pair = [codes[0, tables >> 4], codes[1, tables & 15]]
        keys += [key for key in pair if key not in keys]
        row = [number, keys.index(pair[0]), keys.index(pair[1]), quantisers[quantiser]]
        plan += [row] * (1 if len(chosen) == 1 else across * down)
    if len(chosen) == 1:  # not interleaved: a row of its own blocks, not of whole units
        across, down, _ = frame.components[chosen[0][0]]
        wide, high = 8 * frame.widest // across, 8 * frame.tallest // down
    else:
        wide, high = 8 * frame.widest, 8 * frame.tallest
    units = -(-frame.width // wide) * -(-frame.height // high)
    packed = np.zeros((len(keys), 272), np.uint8)
    for row, key in zip(packed, keys, strict=True):
        row[: len(key)] = np.frombuffer(key, np.uint8)
    return *_lookup(packed), np.array(plan), units


@numba.njit(cache=True)
def _lookup(keys):
    """Code tables for fast reading.   keys: (T, 272) counts of each length, then symbols.

    An entry holds the bits that code and value take together, 256 times the value's bits, and 65536
    times how many coefficients it goes on: run + 1, 64 for the end of a block. 0 is no code.
    codes: per table the last code of each length, what to add to one for its place, the entries.
    """
    count, width = len(keys), 1 << _SHORT
    short, codes = np.zeros((count, width), np.int32), np.zeros((count, 3, 256), np.int32)
    for table in range(count):
        code, place = 0, 0
        for length in range(1, 17):
            codes[table, 1, length] = place - code
            for _ in range(keys[table, length - 1]):
                symbol = np.int32(keys[table, 16 + place])
                value, run = symbol & 15, (symbol >> 4) + 1 if symbol else 64
                entry = length + value + (value << 8) + (run << 16)
                codes[table, 2, place] = entry
                if length <= _SHORT:
                    low = code << (_SHORT - length)
                    short[table, low : low + (1 << (_SHORT - length))] = entry
                code, place = code + 1, place + 1
            codes[table, 0, length] = code - 1 if keys[table, length - 1] else -1
            code <<= 1
    return short, codes


@numba.njit(cache=True, nogil=True)
def _long_entry(codes, peek):
    """The entry of a code above 12 bits.   peek: the next 16 bits."""
    for length in range(1, 17):
        code = peek >> (16 - length)
        if code <= codes[0, length] and 0 <= code + codes[1, length] < 256:
            return codes[2, code + codes[1, length]]
    return 0


@numba.njit(cache=True, nogil=True, inline="always")
def _more(plain, taken, bits):
    """Four more bytes behind the bits at hand."""
    word = np.uint64(plain[taken]) << np.uint64(24) | np.uint64(plain[taken + 1]) << np.uint64(16)
    word |= np.uint64(plain[taken + 2]) << np.uint64(8) | np.uint64(plain[taken + 3])
    return bits << np.uint64(32) | word


@numba.njit(cache=True, nogil=True)
def _read(data, at, short, codes, plan, units, interval):
    """Read ``units`` groups of blocks; rows of plan: component, two code tables, quantiser."""
    plain = np.empty(len(data) - at + _LONGEST_BLOCK, np.uint8)
    means = np.zeros(256, np.int64)
    restart, done = 0, 0
    while True:
        size = 0
        while at < len(data):  # the stretch up to the next marker, without its stuffed zeros
            byte = data[at]
            if byte == 255:
                if at + 1 < len(data) and data[at + 1] == 0:
                    at += 1
                else:
                    break
            plain[size] = byte
            size += 1
            at += 1
        plain[size : size + _LONGEST_BLOCK] = 0
        means[:] = 0
        bits, count, taken = np.uint64(0), 0, 0
        due = units - done if interval == 0 else min(interval, units - done)
        for unit in range(due * len(plan)):
            block = unit % len(plan)
            if taken - (count >> 3) > size:
                return 1, at
            if count < 32:
                bits, count, taken = _more(plain, taken, bits), count + 32, taken + 4
            table = plan[block, 1]
            peek = (bits >> np.uint64(count - 16)) & np.uint64(65535)
            entry = short[table, peek >> np.uint64(16 - _SHORT)]
            if entry == 0:
                entry = _long_entry(codes[table], np.int64(peek))
            count -= entry & 255
            value = (entry >> 8) & 255
            if entry == 0 or value > 11:
                return (1 if taken - (count >> 3) >= size else 4), at
            if value:
                step = np.int64(bits >> np.uint64(count)) & ((1 << value) - 1)
                if step < 1 << (value - 1):
                    step -= (1 << value) - 1
                component, quantiser = plan[block, 0], plan[block, 3]
                means[component] += step
                if abs(means[component]) * quantiser > BRIGHTEST + quantiser:
                    return 6, at
            index, table = 1, plan[block, 2]
            near, far = short[table], codes[table]
            while index < 64:
                if count < 32:
                    bits, count, taken = _more(plain, taken, bits), count + 32, taken + 4
                peek = (bits >> np.uint64(count - 16)) & np.uint64(65535)
                entry = near[peek >> np.uint64(16 - _SHORT)]
                if entry == 0:
                    entry = _long_entry(far, np.int64(peek))
                    if entry == 0:
                        return (1 if taken - (count >> 3) >= size else 4), at
                count -= entry & 255
                index += entry >> 16
            if index > 64 and entry >> 16 < 64:
                return 5, at
        used = taken - (count >> 3)
        if used > size:
            return 1, at
        if size - used > SPARE_BYTES:
            return 2, at
        done += due
        if done == units:
            return 0, at
        while at + 1 < len(data) and data[at] == 255 and data[at + 1] == 255:
            at += 1
        if at + 1 >= len(data) or data[at + 1] != 208 + restart:
            return 3, at
        at, restart = at + 2, (restart + 1) & 7
