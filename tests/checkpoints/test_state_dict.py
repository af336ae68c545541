"""The weights in a directory of transformers, in all of its formats."""

import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from augdistill.checkpoints.state_dict import state_dict_arrays
from augdistill.errors import UsageError

GOLDEN = pathlib.Path(__file__).parent / "golden" / "tensors.bin"
WEIGHTS = {
  "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
  "a.bias": np.arange(2).astype(ml_dtypes.bfloat16),
  "b.weight": np.arange(4, dtype=np.float16),
}


def same(arrays, wanted=WEIGHTS):
  assert set(arrays) == set(wanted)
  for name, array in arrays.items():
    read = array.read()
    assert array.dtype == read.dtype == wanted[name].dtype
    assert array.shape == read.shape
    np.testing.assert_array_equal(read, wanted[name])


def write_parts(folder, parts, weight_map=None):
  for name, weights in parts.items():
    save_file(weights, folder / name)
  places = {w: name for name, weights in parts.items() for w in weights}
  index = {"metadata": {}, "weight_map": weight_map or places}
  path = folder / "model.safetensors.index.json"
  path.write_text(json.dumps(index))
  return path


def test_one_file_of_safetensors(tmp_path):
  save_file(WEIGHTS, tmp_path / "model.safetensors")
  same(state_dict_arrays(str(tmp_path)))


def test_parts_of_safetensors(tmp_path):
  first = next(iter(WEIGHTS))
  rest = {n: w for n, w in WEIGHTS.items() if n != first}
  write_parts(
    tmp_path,
    {
      "model-00001-of-00002.safetensors": {first: WEIGHTS[first]},
      "model-00002-of-00002.safetensors": rest,
    },
  )
  same(state_dict_arrays(str(tmp_path)))


def test_safetensors_come_before_a_pickle(tmp_path):
  shutil.copy(GOLDEN, tmp_path / "pytorch_model.bin")
  assert "matrix" in state_dict_arrays(str(tmp_path))
  save_file(WEIGHTS, tmp_path / "model.safetensors")
  same(state_dict_arrays(str(tmp_path)))


def test_flax_has_torchs_names_and_layout(tmp_path):
  tree = {
    "encoder": {
      "dense": {
        "kernel": np.arange(6, dtype=np.float32).reshape(3, 2),
        "bias": np.float32([1, 2]),
      },
      "LayerNorm": {"scale": np.float32([3])},
    },
    "shared": {"embedding": np.arange(8, dtype=np.float32).reshape(4, 2)},
  }
  path = tmp_path / "flax_model.msgpack"
  path.write_bytes(serialization.msgpack_serialize(tree))
  wanted = {
    "encoder.dense.weight": tree["encoder"]["dense"]["kernel"].T,
    "encoder.dense.bias": tree["encoder"]["dense"]["bias"],
    "encoder.LayerNorm.weight": tree["encoder"]["LayerNorm"]["scale"],
    "shared.weight": tree["shared"]["embedding"],
  }
  same(state_dict_arrays(str(tmp_path)), wanted)


def test_a_directory_without_weights_says_what_it_must_hold(tmp_path):
  with pytest.raises(UsageError, match=r"model.safetensors, pytorch_model.bin"):
    state_dict_arrays(str(tmp_path))


PART = {"part.safetensors": {"x": np.float32([1])}}


@pytest.mark.parametrize(
  "weight_map, message",
  [
    ({"x": "gone.safetensors"}, "gone.safetensors, which is not there"),
    ({"y": "part.safetensors"}, "names y, which part.safetensors does not"),
    ({"x": "../part.safetensors"}, "another directory"),
    ([1], "which file has which weight"),
  ],
)
def test_an_index_that_does_not_fit_is_explained(tmp_path, weight_map, message):
  write_parts(tmp_path, PART, weight_map)
  with pytest.raises(UsageError, match=message):
    state_dict_arrays(str(tmp_path))


def test_an_index_that_is_no_json_is_explained(tmp_path):
  write_parts(tmp_path, PART).write_text("{")
  with pytest.raises(UsageError, match=r"index\.json must be the JSON"):
    state_dict_arrays(str(tmp_path))


@settings(max_examples=200, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ["model.safetensors", "flax_model.msgpack"])
def test_a_damaged_file_is_an_error_of_use_or_reads(
  tmp_path_factory, name, data
):
  folder = tmp_path_factory.getbasetemp() / f"damaged-{name}"
  folder.mkdir(exist_ok=True)
  path = folder / name
  if name.endswith("msgpack"):
    path.write_bytes(serialization.msgpack_serialize({"a": {"b": WEIGHTS}}))
  else:
    save_file(WEIGHTS, path)
  content = bytearray(path.read_bytes())
  for _ in range(data.draw(st.integers(1, 4))):
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
  path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
  try:
    for array in state_dict_arrays(str(folder)).values():
      array.read()
  except UsageError:
    pass


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/../b"])
def test_an_index_names_files_beside_it_alone(tmp_path, name):
  write_parts(tmp_path, PART, {"x": name})
  with pytest.raises(UsageError, match="which lies in another directory"):
    state_dict_arrays(str(tmp_path))


@pytest.mark.parametrize("name", [None, 3, ["part.safetensors"]])
def test_an_index_names_its_files_by_texts(tmp_path, name):
  write_parts(tmp_path, PART, {"x": name})
  with pytest.raises(UsageError, match="its weight_map names no files"):
    state_dict_arrays(str(tmp_path))


def test_a_weight_lies_in_the_file_that_the_index_names(tmp_path):
  other = {"other.safetensors": {"y": np.float32([2])}}
  places = {"x": "part.safetensors", "y": "part.safetensors"}
  write_parts(tmp_path, PART | other, places)
  with pytest.raises(
    UsageError, match=r"names y, which part\.safetensors does"
  ):
    state_dict_arrays(str(tmp_path))


@pytest.mark.parametrize("value", [["a", "b"], "a", b"a"])
def test_flax_holds_numbers(tmp_path, value):
  content = serialization.msgpack_serialize({"a": {"bias": value}})
  (tmp_path / "flax_model.msgpack").write_bytes(content)
  with pytest.raises(UsageError, match=r"a\.bias is no array of numbers"):
    state_dict_arrays(str(tmp_path))
