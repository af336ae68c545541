"""Checkpoints of T5X are read, bit for bit, and damage is told."""

import hashlib
import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from flax import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from augdistill.checkpoints import t5x_checkpoint
from augdistill.checkpoints.t5x_checkpoint import is_t5x, t5x_arrays
from augdistill.errors import UsageError

PARAMS = {
  "encoder": {
    "layers_0": {"mlp": {"wo": {"kernel": np.float32([[1, 2, 3], [4, 5, 6]])}}},
    "encoder_norm": {"scale": np.arange(5, dtype=np.float32)},
  },
  "token_embedder": {
    "embedding": np.arange(12).reshape(6, 2).astype(ml_dtypes.bfloat16)
  },
}
FLAT = {
  "encoder/layers_0/mlp/wo/kernel": PARAMS["encoder"]["layers_0"]["mlp"]["wo"][
    "kernel"
  ],
  "encoder/encoder_norm/scale": PARAMS["encoder"]["encoder_norm"]["scale"],
  "token_embedder/embedding": PARAMS["token_embedder"]["embedding"],
}


def write(folder, version=3, chunk=2, inline=(), params=PARAMS):
  """A checkpoint as T5X's native format has it."""

  def leaf(path, array):
    bits = array
    if version == 2 and array.dtype == ml_dtypes.bfloat16:
      bits = array.view(np.uint16)
    if path.split(".")[-1] in inline:
      return bits
    metadata = {
      "chunks": [min(chunk, n) for n in array.shape],
      "compressor": {"id": "gzip", "level": 1},
      "shape": list(array.shape),
    }
    dtype = "bfloat16" if bits.dtype == ml_dtypes.bfloat16 else bits.dtype.name
    spec = {"driver": "zarr", "dtype": dtype, "metadata": metadata}
    place = {"driver": "file", "path": f"{folder}/{path}/"}
    tensorstore.open(spec | {"kvstore": place}, create=True).result().write(
      bits
    ).result()
    return spec | {"kvstore": {"driver": "file", "path": f"{path}/"}}

  def tree(path, node):
    if isinstance(node, dict):
      return {key: tree(f"{path}.{key}", value) for key, value in node.items()}
    return leaf(path, node)

  folder.mkdir(parents=True, exist_ok=True)
  content = {
    "version": version,
    "optimizer": {"target": tree("target", params), "state": {"step": 3}},
  }
  (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(content))
  return str(folder)


def same(arrays):
  assert set(arrays) == set(FLAT)
  for name, array in arrays.items():
    read = array.read()
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    assert read.dtype == FLAT[name].dtype
    np.testing.assert_array_equal(read, FLAT[name])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("inline", [(), ("scale", "embedding")])
def test_all_that_the_native_format_knows_is_read(
  tmp_path, version, chunk, inline
):
  path = write(tmp_path / "checkpoint_7", version, chunk, inline)
  assert is_t5x(path)
  same(t5x_arrays(path))
  same(t5x_arrays(path + "/"))


def test_what_a_file_says_of_other_places_is_not_followed(tmp_path):
  path = write(tmp_path / "a")
  tree = serialization.msgpack_restore((tmp_path / "a/checkpoint").read_bytes())
  scale = tree["optimizer"]["target"]["encoder"]["encoder_norm"]["scale"]
  scale["kvstore"] = {"driver": "http", "base_url": "http://127.0.0.1:9/"}
  (tmp_path / "a/checkpoint").write_bytes(serialization.msgpack_serialize(tree))
  same(t5x_arrays(path))


@pytest.mark.parametrize("version", [0, 1, 4, "3"])
def test_another_version_is_refused(tmp_path, version):
  path = write(tmp_path / "a", version)
  with pytest.raises(UsageError, match=f"version 2 or 3, got {version!r}"):
    t5x_arrays(path)


def test_a_directory_of_something_else_is_refused(tmp_path):
  for path in (str(tmp_path), str(tmp_path / "gone")):
    assert not is_t5x(path)
    with pytest.raises(UsageError, match="must be a checkpoint of T5X"):
      t5x_arrays(path)


def test_a_chunk_that_is_gone_is_no_zeros(tmp_path):
  path = write(tmp_path / "a")
  (tmp_path / "a/target.encoder.encoder_norm.scale/1").unlink()
  array = t5x_arrays(path)["encoder/encoder_norm/scale"]
  with pytest.raises(UsageError, match="1 of its files too few"):
    array.read()


def test_a_chunk_that_is_cut_is_told_or_still_whole(tmp_path):
  path = write(tmp_path / "a")
  chunk = tmp_path / "a/target.encoder.encoder_norm.scale/1"
  content, told = chunk.read_bytes(), 0
  for length in range(len(content)):
    chunk.write_bytes(content[:length])
    array = t5x_arrays(path)["encoder/encoder_norm/scale"]
    try:  # gzip's last bytes are a checksum of what is there already.
      np.testing.assert_array_equal(array.read(), np.arange(5))
    except UsageError as error:
      assert "scale must hold an array, but" in str(error)
      told += 1
  assert told >= len(content) - 9


def test_an_array_of_another_shape_than_announced_is_told(tmp_path):
  path = write(tmp_path / "a")
  other = {"encoder": {"encoder_norm": {"scale": np.float32([1, 2])}}}
  write(tmp_path / "b", params=other)
  name = "target.encoder.encoder_norm.scale"
  shutil.rmtree(tmp_path / "a" / name)
  shutil.copytree(tmp_path / "b" / name, tmp_path / "a" / name)
  array = t5x_arrays(path)["encoder/encoder_norm/scale"]
  with pytest.raises(UsageError, match=r"float32\[5\].*got float32\[2\]"):
    array.read()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_tree_is_an_error_of_use_or_reads(tmp_path_factory, data):
  folder = tmp_path_factory.getbasetemp() / "damaged_tree"
  if not folder.exists():
    write(folder, inline=("kernel",))
    shutil.copy(folder / "checkpoint", folder / "whole")
  content = bytearray((folder / "whole").read_bytes())
  for _ in range(data.draw(st.integers(0, 3))):
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
  (folder / "checkpoint").write_bytes(
    content[: data.draw(st.integers(1, len(content)))]
  )
  try:
    for array in t5x_arrays(str(folder)).values():
      array.read()
  except UsageError:
    pass


@pytest.mark.parametrize(
  "fixture",
  [
    *("t5_1_0", "t5_1_1", "t5_1_1_bf16", "t5_1_1_scan"),
    *("t5_1_1_native_1layer", "t5_1_1_orbax_1layer"),
  ],
)
def test_what_t5x_wrote_is_read_bit_for_bit(shared_data, fixture):
  root = pathlib.Path(shared_data) / "t5x_checkpoints"
  arrays = t5x_arrays(str(root / fixture / "checkpoint_5"))
  # The Orbax one has the arrays of its native twin.
  twin = fixture.replace("orbax", "native")
  text = (root / twin / "expected.json").read_text()
  expected = {
    name.removeprefix("target/"): value
    for name, value in json.loads(text).items()
    if name.startswith("target/")
  }
  assert set(arrays) == set(expected)
  for name, array in arrays.items():
    read = array.read()
    digest = hashlib.sha256(np.ascontiguousarray(read).tobytes()).hexdigest()
    assert digest[:16] == expected[name]["sha256"]
    assert read.dtype.name == array.dtype.name == expected[name]["dtype"]
    assert list(read.shape) == list(array.shape) == expected[name]["shape"]


@pytest.mark.parametrize("damage", ["cut", "gone", "junk"])
def test_a_damaged_checkpoint_of_orbax_is_told(shared_data, tmp_path, damage):
  root = pathlib.Path(shared_data) / "t5x_checkpoints"
  copy = tmp_path / "checkpoint_5"
  shutil.copytree(root / "t5_1_1_orbax_1layer" / "checkpoint_5", copy)
  if damage == "junk":
    (copy / "state" / "_METADATA").write_text("{")
  else:
    for file in (copy / "state").rglob("*"):
      if file.is_file() and file.parent.name == "d":
        file.unlink() if damage == "gone" else file.write_bytes(b"x")
  with pytest.raises(UsageError, match="must"):
    for array in t5x_arrays(str(copy)).values():
      array.read()


SCALE = "target.encoder.encoder_norm.scale"


def test_a_checkpoint_of_orbax_is_read_by_a_relative_path(
  tmp_path, monkeypatch
):
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "checkpoint_1" / "state", {"target": PARAMS})
  monkeypatch.chdir(tmp_path)
  same(t5x_arrays("checkpoint_1"))


def test_a_file_of_another_name_is_no_part_of_an_array(tmp_path):
  path = write(tmp_path / "a")
  (tmp_path / "a" / SCALE / "1").rename(tmp_path / "a" / SCALE / "9")
  array = t5x_arrays(path)["encoder/encoder_norm/scale"]
  with pytest.raises(UsageError, match="1 of its files too few"):
    array.read()


@pytest.mark.parametrize(
  "change, said",
  [
    ({"shape": [10**12]}, r"got float32\[1000000000000\]"),
    ({"chunks": [10**9]}, r"got parts of shape \[1000000000\]"),
    ({"chunks": [0]}, "must hold an array, but"),
    ({"shape": [-1]}, "must hold an array, but"),
    ({"dtype": "<f8"}, r"got float64\[5\]"),
    ({"compressor": {"id": "unknown"}}, "must hold an array, but"),
  ],
)
def test_an_absurd_array_is_told_and_not_read(tmp_path, change, said):
  path = write(tmp_path / "a")
  file = tmp_path / "a" / SCALE / ".zarray"
  file.write_text(json.dumps(json.loads(file.read_text()) | change))
  array = t5x_arrays(path)["encoder/encoder_norm/scale"]
  with pytest.raises(UsageError, match=said) as told:
    array.read()
  assert "source locations" not in str(told.value)


@pytest.mark.parametrize(
  "target", [5, "x", [], {"a": None}, {"a": "x" * 9999}, {"a": [1]}]
)
def test_a_target_that_is_no_tree_of_arrays_is_told(tmp_path, target):
  content = {"version": 3, "optimizer": {"target": target}}
  (tmp_path / "checkpoint").write_bytes(
    serialization.msgpack_serialize(content)
  )
  with pytest.raises(
    UsageError, match=r"must be T5X's tree|must say where a is"
  ):
    t5x_arrays(str(tmp_path))


@pytest.mark.parametrize("shape", [[-1], ["x"], [float("inf")], 3, [[1]]])
def test_a_shape_that_is_none_is_told(tmp_path, shape):
  leaf = {"driver": "zarr", "dtype": "float32", "metadata": {"shape": shape}}
  content = {"version": 3, "optimizer": {"target": {"a": leaf}}}
  (tmp_path / "checkpoint").write_bytes(
    serialization.msgpack_serialize(content)
  )
  with pytest.raises(UsageError, match="must say where a is, but has"):
    t5x_arrays(str(tmp_path))


def test_a_bucket_that_does_not_answer_is_given_up(monkeypatch):
  class Silent:
    def result(self, timeout):
      assert 0 < timeout <= 60
      raise TimeoutError

  class Bucket:
    read = open = lambda *_: Silent()

  monkeypatch.setattr(tensorstore, "KvStore", Bucket())
  said = "cannot read gs://a/b: no answer in time.*gcloud auth"
  with pytest.raises(UsageError, match=said):
    is_t5x("gs://a/b")


# --- written -----------------------------------------------------------------


def test_what_is_written_is_read_bit_for_bit(tmp_path, monkeypatch):
  # In several files where an array is large.
  monkeypatch.setattr(t5x_checkpoint, "_CHUNK", 4)
  weights = {name: np.float32(array) for name, array in FLAT.items()}
  t5x_checkpoint.write_t5x(tmp_path / "checkpoint_0", weights)
  found = t5x_arrays(str(tmp_path / "checkpoint_0"))
  assert set(found) == set(weights)
  for name, array in weights.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name].read(), array)
  folder = tmp_path / "checkpoint_0" / "target.token_embedder.embedding"
  assert {p.name for p in folder.iterdir()} == {
    *(".zarray", "0.0", "1.0", "2.0")
  }


def test_what_is_written_says_what_t5x_asks_for(tmp_path):
  weights = {name: np.float32(array) for name, array in FLAT.items()}
  t5x_checkpoint.write_t5x(tmp_path / "checkpoint_0", weights)
  content = (tmp_path / "checkpoint_0" / "checkpoint").read_bytes()
  tree = serialization.msgpack_restore(content)
  assert (tree["version"], tree["optimizer"]["state"]) == (3, {"step": 0})
  # T5X follows the place that is said; the reader above makes it of the name.
  spec = tree["optimizer"]["target"]["encoder"]["encoder_norm"]["scale"]
  there = "target.encoder.encoder_norm.scale/"
  assert spec["kvstore"] == {"driver": "file", "path": there}
  assert (spec["driver"], spec["dtype"]) == ("zarr", "float32")
  assert (tmp_path / "checkpoint_0" / there).is_dir()


def test_the_latest_checkpoint_of_a_run_is_found_by_its_number(tmp_path):
  assert t5x_checkpoint.latest_t5x(str(tmp_path)) is None
  weights = {"a/b": np.zeros(2, np.float32)}
  for name in ("checkpoint_9", "checkpoint_10", "checkpoint_11.tmp"):
    t5x_checkpoint.write_t5x(tmp_path / name, weights)
  newest = str(tmp_path / "checkpoint_10")
  assert t5x_checkpoint.latest_t5x(str(tmp_path)) == newest
  assert t5x_checkpoint.latest_t5x(newest) == newest
