"""TensorBoard's event files, without TensorFlow.

An event file is a sequence of records, each framed by its length and by two
checksums; a record is a protocol buffer `Event`. For scalars that is little
enough to write by hand, and importing TensorFlow for it would take seconds.

References:
  tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto,
  tensorflow/core/lib/io/record_writer.h.
"""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType


class EventFile:
  """Writes scalars for TensorBoard into a new file.

  Args:
    directory: where event files of the run lie; each start adds one.
    start: steps done before. TensorBoard forgets what an earlier, killed
      start has reported of later steps.
  """

  def __init__(self, directory: str | os.PathLike, start: int = 0):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    now = time.time_ns()
    host = socket.gethostname()
    name = f"events.out.tfevents.{now // 10**9}.{host}.{os.getpid()}.{now}"
    self._file = open(directory / name, "wb")  # noqa: SIM115
    self._write(0, _bytes(3, b"brain.Event:2"))  # Event.file_version
    session_start = _varint(1, 1)  # SessionLog.status = START
    self._write(start + 1, _bytes(7, session_start))  # Event.session_log

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds one event with these scalars."""
    values = [
      # Summary.value; its tag and simple_value
      _bytes(1, _bytes(1, tag.encode()) + _float(2, value))
      for tag, value in scalars.items()
    ]
    self._write(step, _bytes(5, b"".join(values)))  # Event.summary

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def __enter__(self) -> "EventFile":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close()

  def _write(self, step: int, what: bytes) -> None:
    wall_time = struct.pack("<Bd", 1 << 3 | 1, time.time())
    record = wall_time + _varint(2, step) + what
    length = struct.pack("<Q", len(record))
    parts = (length, _checksum(length), record, _checksum(record))
    self._file.write(b"".join(parts))
    self._file.flush()


def _varint(field: int, value: int) -> bytes:
  return bytes([field << 3]) + _base128(value)


def _bytes(field: int, value: bytes) -> bytes:
  return bytes([field << 3 | 2]) + _base128(len(value)) + value


def _float(field: int, value: float) -> bytes:
  return struct.pack("<Bf", field << 3 | 5, value)


def _base128(value: int) -> bytes:
  digits = []
  while value > 127:
    digits.append(value & 127 | 128)
    value >>= 7
  return bytes([*digits, value])


def _crc_table() -> list[int]:
  table = []
  for value in range(256):
    for _ in range(8):
      value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    table.append(value)
  return table


_CRC_TABLE = _crc_table()


def _checksum(data: bytes) -> bytes:
  """The masked CRC-32C of a record."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 255]
  crc ^= 0xFFFFFFFF
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  return struct.pack("<I", masked)
