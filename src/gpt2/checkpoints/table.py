"""A table of sorted keys and their values, as TensorFlow keeps the index of a checkpoint: LevelDB's file format.

A table is blocks, each followed by a byte that says how it is compressed and by a checksum; the last
48 bytes are a footer with the place of the block that lists the blocks. A block is entries, each as
the bytes it does not share with the key before it, then the offsets at which keys stand whole.
"""

import struct
from itertools import pairwise, takewhile

import google_crc32c

MAGIC = struct.pack('<Q', 0xDB4775248B80FB57)
FOOTER_BYTES = 48
TRAILER = struct.Struct('<BI')  # compression, checksum
UNCOMPRESSED = 0
KEYS_BETWEEN_WHOLE_ONES = 16


class TableError(ValueError):
    """Bytes that are no table."""


def masked_checksum(data: bytes) -> int:
    """CRC-32C, turned and shifted, since data that holds checksums of its own would weaken a plain one."""
    return mask(google_crc32c.value(data))


def mask(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    """A number in sevens of bits, the lowest first; the highest bit of a byte says that another follows."""
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*result, number])


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """(number, the place after it)."""
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            break
        number |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] <= 0x7F:
            return number, place
    raise TableError('a number is cut')


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table. Raises TableError where anything is amiss."""
    if data[-len(MAGIC) :] != MAGIC or len(data) < FOOTER_BYTES:
        raise TableError('not a table, or cut')
    footer = data[-FOOTER_BYTES:]
    place = 0
    for _ in range(2):
        _, place = read_varint(footer, place)
    entries = {}
    for handle in read_block(data, footer[place:]).values():
        entries.update(read_block(data, handle))
    return entries


def read_block(data: bytes, handle: bytes) -> dict[bytes, bytes]:
    """Entries of the block to which a handle points."""
    offset, place = read_varint(handle, 0)
    size, _ = read_varint(handle, place)
    end = offset + size
    if end + TRAILER.size > len(data):
        raise TableError('a block lies beyond the end')
    compression, checksum = TRAILER.unpack_from(data, end)
    if masked_checksum(data[offset : end + 1]) != checksum:
        raise TableError('a checksum does not match')
    if compression != UNCOMPRESSED:
        raise TableError('it is compressed')
    return read_entries(data[offset:end])


def read_entries(block: bytes) -> dict[bytes, bytes]:
    if len(block) < 4:
        raise TableError('a block is too short')
    end = len(block) - 4 * (1 + struct.unpack_from('<I', block, len(block) - 4)[0])
    entries, key, place = {}, b'', 0
    while place < end:
        shared, place = read_varint(block, place)
        unshared, place = read_varint(block, place)
        length, place = read_varint(block, place)
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        entries[key] = block[place : place + length]
        place += length
    return entries


def write_table(entries: dict[bytes, bytes]) -> bytes:
    """The table of entries, byte for byte as TensorFlow writes one of up to 256 KB: in one block."""
    entries = dict(sorted(entries.items()))
    table = bytearray()

    def append(block: bytes) -> bytes:
        handle = varint(len(table)) + varint(len(block))
        table.extend(block + TRAILER.pack(UNCOMPRESSED, masked_checksum(block + bytes([UNCOMPRESSED]))))
        return handle

    values = append(write_entries(entries))
    names = append(write_entries({}))  # of nothing: filters, which no checkpoint has
    blocks = append(write_entries({key_after(max(entries)): values}))
    return bytes(table + (names + blocks).ljust(FOOTER_BYTES - len(MAGIC), b'\0') + MAGIC)


def key_after(key: bytes) -> bytes:
    """The shortest key above one whose first byte is not 255."""
    return bytes([key[0] + 1])


def write_entries(entries: dict[bytes, bytes]) -> bytes:
    block, whole_keys = bytearray(), [0]
    for index, (before, key) in enumerate(pairwise([b'', *entries])):
        shared = shared_bytes(before, key)
        if index and index % KEYS_BETWEEN_WHOLE_ONES == 0:
            whole_keys.append(len(block))
            shared = 0
        value = entries[key]
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
    return bytes(block) + struct.pack(f'<{len(whole_keys) + 1}I', *whole_keys, len(whole_keys))


def shared_bytes(first: bytes, second: bytes) -> int:
    """Length of the beginning that two keys share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))
