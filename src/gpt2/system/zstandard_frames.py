"""Reading what Zstandard has compressed, to its end: the package's own reader does not say that a file is cut."""

import io
from collections.abc import Iterator
from typing import BinaryIO

LONGEST_WINDOW = 2**31  # of `zstd --long=31`, as archives of the field are made
FRAME_BYTES = 2**12  # compressed bytes that are taken at once: they may stand for ten thousand times as many


def decompressed(raw: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a file's frames. Raises EOFError where the last is cut, and zstandard.ZstdError."""
    import zstandard

    frame = None
    while chunk := raw.read(FRAME_BYTES):
        while chunk:
            if frame is None:
                frame = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW).decompressobj()
            if part := frame.decompress(chunk):
                yield part
            frame, chunk = (None, frame.unused_data) if frame.eof else (frame, b'')
    if frame is not None:
        raise EOFError('its last frame is not whole')


class Decompressed(io.RawIOBase):
    """A file of what another one's frames hold, to be read as decompressed() yields it."""

    def __init__(self, raw: BinaryIO) -> None:
        self.pieces, self.rest = decompressed(raw), b''

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.rest = self.rest or next(self.pieces, b'')
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count
