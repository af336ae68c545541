"""Tensors are read from torch's files, and nothing in them is run."""

import os
import pathlib
import pickle
import shutil
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augdistill.checkpoints.torch_file import torch_arrays
from augdistill.errors import UsageError

FOLDER = pathlib.Path(__file__).parent / "golden"
GOLDEN, OLD = FOLDER / "tensors.bin", FOLDER / "tensors_old.bin"
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("file", [GOLDEN, OLD])
def test_every_tensor_is_read(file):
  arrays = torch_arrays(str(file))
  read = {name: array.read() for name, array in arrays.items()}
  np.testing.assert_array_equal(read["matrix"], MATRIX)
  np.testing.assert_array_equal(read["turned"], MATRIX.T)
  np.testing.assert_array_equal(read["window"], np.float32([2, 3, 4]))
  assert read["half"].dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(read["half"].astype(np.float32), [0.5, 2])
  np.testing.assert_array_equal(read["parameter"], np.float32([1.5]))
  assert read["count"] == 7 and read["count"].shape == ()
  assert read["empty"].shape == (0, 4)
  for name, array in arrays.items():
    assert (array.shape, array.dtype) == (read[name].shape, read[name].dtype)
    assert read[name].flags.c_contiguous


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_itself_agrees(tmp_path, zipped):
  torch = pytest.importorskip("torch")
  tensors = {
    str(dtype): torch.arange(24).reshape(2, 3, 4).to(dtype).permute(2, 0, 1)
    for dtype in (torch.float64, torch.float16, torch.int32, torch.uint8)
  }
  torch.save(tensors, tmp_path / "t.bin", _use_new_zipfile_serialization=zipped)
  arrays = torch_arrays(str(tmp_path / "t.bin"))
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(arrays[name].read(), tensor.numpy())


class Evil:
  def __reduce__(self):
    return os.mkdir, ("was_run",)


def write(path, value, pickled=None):
  with zipfile.ZipFile(path, "w") as archive:
    content = pickle.dumps(value) if pickled is None else pickled
    archive.writestr("archive/data.pkl", content)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / "m.bin", {"w": Evil()})
  with pytest.raises(UsageError, match=r"asks for (posix|nt)\.mkdir"):
    torch_arrays("m.bin")
  assert not (tmp_path / "was_run").exists()


def test_a_dictionary_alone_is_no_way_to_call_anything(tmp_path):
  # builtins.getattr and eval are as far away as anything else.
  for call in (b"cbuiltins\neval\n(V1+1\ntR.", b"cbuiltins\ngetattr\n."):
    write(tmp_path / "m.bin", None, call)
    with pytest.raises(UsageError, match="asks for builtins"):
      torch_arrays(str(tmp_path / "m.bin"))


@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_an_old_file_runs_code(tmp_path, monkeypatch, place):
  monkeypatch.chdir(tmp_path)
  parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
  parts[place] = Evil()
  content = b"".join(pickle.dumps(part, protocol=2) for part in parts)
  (tmp_path / "m.bin").write_bytes(content)
  with pytest.raises(UsageError, match="mkdir, which could run code"):
    torch_arrays("m.bin")
  assert not (tmp_path / "was_run").exists()


def test_an_old_file_that_is_cut_or_no_such_file_is_told(tmp_path):
  content = OLD.read_bytes()
  for cut in (content[:-1], content[:200], content + b"x", content[12:]):
    (tmp_path / "m.bin").write_bytes(cut)
    with pytest.raises(UsageError, match=r"must be a file of torch\.save"):
      torch_arrays(str(tmp_path / "m.bin"))


@pytest.mark.parametrize("value", [[1, 2], "text", {3: "x"}])
def test_what_holds_no_dictionary_of_names_is_refused(tmp_path, value):
  write(tmp_path / "m.bin", value)
  with pytest.raises(UsageError, match="must hold a dictionary"):
    torch_arrays(str(tmp_path / "m.bin"))


def rebuilt(offset, shape, strides, size=6):
  """A file with a tensor of these numbers over a storage of `size` floats."""
  return (
    b"}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuI%d\ntQI%d\n(%s(%sI00\n}tRs."
    % (
      size,
      offset,
      b"".join(b"I%d\n" % n for n in shape) + b"t",
      b"".join(b"I%d\n" % n for n in strides) + b"t",
    )
  )


@pytest.mark.parametrize(
  "offset, shape, strides, fits",
  [
    (0, (2, 3), (3, 1), True),
    (0, (2, 3), (0, 1), True),  # Rows that are one row, as expand makes them.
    (1, (2, 3), (3, 1), False),
    (0, (3, 3), (3, 1), False),
    (-1, (2,), (1,), False),
    (5, (2,), (-1,), False),
  ],
)
def test_a_tensor_lies_inside_its_storage(
  tmp_path, offset, shape, strides, fits
):
  path = tmp_path / "m.bin"
  write(path, None, rebuilt(offset, shape, strides))
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("archive/data/0", MATRIX.tobytes())
  if fits:
    assert torch_arrays(str(path))["w"].read().shape == shape
  else:
    with pytest.raises(UsageError, match="inside its storage"):
      torch_arrays(str(path))


def test_a_storage_that_is_cut_is_told_when_it_is_read(tmp_path):
  path = tmp_path / "m.bin"
  write(path, None, rebuilt(0, (2, 3), (3, 1)))
  with pytest.raises(UsageError, match="must hold w"):
    torch_arrays(str(path))["w"].read()
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("archive/data/0", MATRIX.tobytes()[:-1])
  with pytest.raises(UsageError, match="24 bytes of w, got 23"):
    torch_arrays(str(path))["w"].read()


def test_bytes_of_the_other_order_are_turned(tmp_path):
  path = tmp_path / "m.bin"
  write(path, None, rebuilt(0, (2, 3), (3, 1)))
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("archive/data/0", MATRIX.byteswap().tobytes())
    archive.writestr("archive/byteorder", "big")
  np.testing.assert_array_equal(torch_arrays(str(path))["w"].read(), MATRIX)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error_of_use_or_reads(tmp_path_factory, data):
  path = tmp_path_factory.getbasetemp() / "damaged.bin"
  shutil.copy(data.draw(st.sampled_from([GOLDEN, OLD])), path)
  content = bytearray(path.read_bytes())
  for _ in range(data.draw(st.integers(1, 4))):
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
  path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
  try:
    for array in torch_arrays(str(path)).values():
      array.read()
  except UsageError:
    pass


def text(name):
  return b"X" + len(name).to_bytes(4, "little") + name.encode()


MKDIR = b"cos\nmkdir\n"
ARGUMENT = b"Vwas_run\n"


@pytest.mark.parametrize(
  "pickled, said",
  [
    (b"(" + ARGUMENT + b"ios\nmkdir\n.", "asks for the instruction INST"),
    (b"(" + MKDIR + ARGUMENT + b"o.", "asks for the instruction OBJ"),
    (MKDIR + ARGUMENT + b"\x85\x81.", "asks for the instruction NEWOBJ"),
    (MKDIR + ARGUMENT + b"\x85}\x92.", "asks for the instruction NEWOBJ_EX"),
    (b"\x82\x01.", "asks for the instruction EXT1"),
    (MKDIR + ARGUMENT + b"\x85R.", r"asks for os\.mkdir"),
    (text("os") + text("mkdir") + b"\x93.", r"asks for os\.mkdir"),
    (text("os.mkdir") + b"Q.", "asks for a reference that is no tensor's"),
    (b"Pos.mkdir\n.", "asks for the instruction PERSID"),
    (b"ctorch\nFloatStorage\n(I9\ntR.", "not callable"),
    (
      b"}" + text("w") + b"ctorch._utils\n_rebuild_parameter\n(I3\ntRs.",
      "be a",
    ),
    # 2^31 places of a memory, a tuple of 2^40 parts, more bytes than there are.
    (b"}r\xff\xff\xff\x7f.", "is beyond its size"),
    (b"})q\x00h\x00h\x00\x86q\x01h\x01h\x01\x86I1\ns.", "a tuple twice"),
    (b"})2\x86I1\ns.", "asks for the instruction DUP"),
    (b"\x8e" + b"\xff" * 7 + b"\0x.", "but only 2 remain"),
  ],
)
def test_what_torch_does_not_write_is_refused(
  tmp_path, monkeypatch, pickled, said
):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / "m.bin", None, pickled)
  with pytest.raises(UsageError, match=said):
    torch_arrays("m.bin")
  assert not (tmp_path / "was_run").exists()


def test_what_is_larger_than_its_file_is_not_read(tmp_path):
  path = tmp_path / "m.bin"
  write(path, None, rebuilt(0, (10**12, 3), (0, 1)))
  with pytest.raises(UsageError, match="inside its storage"):
    torch_arrays(str(path))
  # A thousand zeros take a few bytes, and so do a million times as many.
  for names in ("archive/data.pkl",), ("archive/data/0",):
    with zipfile.ZipFile(path, "w") as archive:
      for name, content in (
        ("archive/data.pkl", rebuilt(0, (2, 3), (3, 1))),
        ("archive/data/0", MATRIX.tobytes()),
      ):
        kind = zipfile.ZIP_DEFLATED if name in names else zipfile.ZIP_STORED
        archive.writestr(name, content, kind)
    with pytest.raises(UsageError, match=f"{names[0]} is compressed"):
      torch_arrays(str(path))["w"].read()
