"""One device or eight: the same numbers, and each array where it belongs."""

import functools
import inspect
import itertools
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from augdistill import prng
from augdistill.augment.nearest import nearest_tokens
from augdistill.augment.surroundings import (
  find_surroundings,
  nearest_of_mixtures,
)
from augdistill.checkpoints.store import Store
from augdistill.errors import UsageError
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.training import mesh as meshes
from augdistill.training.inspection import make_views
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.training.step import TrainState, train_step
from augdistill.types import Inputs, Lexicon, Mixture, TaskKind
from tests import toy

METHOD = "kd+mixup+augpro_fgsm(delta=3)"
STUDENT, TEACHER = toy.network(8), toy.network(12)
ENCODER = enct5(EncT5Config(toy.VOCAB, toy.CLASSES, 8, 16, 1, 4, 4))
OPTIMIZER, STEPS = optax.sgd(0.05, momentum=0.9), 3


def placed(mesh):
  """(state, teacher's params, lexicon, key), laid out on a mesh or not."""
  params = jax.jit(STUDENT.init)(jax.random.key(0))
  teacher = jax.jit(TEACHER.init)(jax.random.key(1))
  lexicon = jax.tree.map(jnp.asarray, toy.LEXICON)
  key = prng.run_key(5)
  if mesh:
    params = jax.device_put(params, meshes.param_shardings(STUDENT, mesh))
    teacher = jax.device_put(teacher, meshes.param_shardings(TEACHER, mesh))
    whole = meshes.replicated(mesh)
    lexicon, key = jax.device_put((lexicon, key), whole)
  return params, teacher, lexicon, key


@functools.cache
def run(model):
  """Losses, gradients' norms and the state after a few steps; and traces."""
  mesh = meshes.make_mesh(f"x{model}") if model else None
  params, teacher, lexicon, key = placed(mesh)
  optimizer, traces = OPTIMIZER, []
  method = build_method(METHOD, TaskKind.CLASSES)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, teacher, lexicon, batch, key):
    traces.append(1)
    return train_step(
      state,
      teacher,
      lexicon,
      batch,
      key,
      optimizer=optimizer,
      student=STUDENT,
      teacher=TEACHER,
      method=method,
    )

  def initial(params):
    return TrainState(jnp.int32(0), params, optimizer.init(params))

  where = meshes.state_shardings(STUDENT, optimizer, mesh) if mesh else None
  state, losses = jax.jit(initial, out_shardings=where)(params), []
  for i in range(STEPS):
    batch = toy.make_batch(i)
    batch = meshes.place_batch(batch, mesh) if mesh else batch
    state, metrics = step(state, teacher, lexicon, batch, key)
    losses.append({k: float(a) / float(b) for k, (a, b) in metrics.items()})
  return losses, state, len(traces), step._cache_size()


@pytest.mark.parametrize("model", [1, 4])
def test_eight_devices_compute_what_one_does(model):
  assert jax.device_count() == 8
  losses, state, *_ = run(model)
  expected, alone, *_ = run(0)
  for got, one in zip(losses, expected, strict=True):
    assert got == pytest.approx(one, rel=1e-5)
    assert one["augpro_fgsm/changed"] > 0
  for x, y in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(alone.params), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_search_in_a_cut_table_exchanges_only_the_best_of_each_part():
  mesh, rows, table = meshes.make_mesh("x4"), (1, 16, 8, 4), (64, 4)

  def shaped(shape, dtype, *spec):
    where = jax.sharding.NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  program = (
    jax.jit(functools.partial(nearest_tokens, block=16))
    .lower(
      shaped(rows, jnp.float32, None, "data"),
      shaped(table, jnp.float32, "model"),
      shaped(table[:1], bool),
    )
    .compile()
    .as_text()
  )
  exchanged = re.findall(r"= (.+?) (all-\S+|collective-\S+)\(", program)
  assert exchanged
  for what, _ in exchanged:
    # A number per query that lies here, 16 / 2 * 8 of them; no row of a table.
    for shape in re.findall(r"\[([\d,]*)\]", what):
      assert math.prod(map(int, shape.split(","))) <= 64, what


def test_a_mixture_finds_the_same_token_on_a_mesh():
  rng, words = np.random.default_rng(0), np.ones(64, bool)
  table = jnp.asarray(rng.normal(size=(64, 4)), jnp.float32)
  first, second = rng.integers(0, 64, (2, 1, 16, 8)).astype(np.int32)
  share = np.full(first.shape, 0.5, np.float32)
  lexicon = Lexicon(
    words, ~words, surroundings=find_surroundings(table, words, k=2)
  )
  given = Mixture(first, second, share), first > 3, table, lexicon
  expected = jax.jit(nearest_of_mixtures)(*given)
  assert expected[1]["by_search"].any()
  mesh = meshes.make_mesh("x4")
  rows = jax.sharding.NamedSharding(mesh, PartitionSpec(None, "data"))
  cut = jax.sharding.NamedSharding(mesh, PartitionSpec("model"))
  places = rows, rows, cut, meshes.replicated(mesh)
  got = jax.jit(nearest_of_mixtures)(*map(jax.device_put, given, places))
  jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("model", [0, 1, 4])
def test_the_step_is_traced_and_compiled_once(model):
  *_, traces, compilations = run(model)
  assert (traces, compilations) == (1, 1)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_what_an_optimizer_keeps_of_a_parameter_lies_where_it_does(name):
  mesh, optimizer = meshes.make_mesh("x4"), make_optimizer(name)
  where = meshes.state_shardings(STUDENT, optimizer, mesh)
  state = jax.eval_shape(
    lambda: optimizer.init(STUDENT.init(jax.random.key(0)))
  )
  cut, whole = PartitionSpec("model"), PartitionSpec()
  specs = {
    leaf.shape: sharding.spec
    for leaf, sharding in zip(
      jax.tree.leaves(state), jax.tree.leaves(where.opt_state), strict=True
    )
  }
  assert specs[(toy.VOCAB, 8)] == specs[(8, toy.CLASSES)] == cut
  assert specs[()] == where.step.spec == whole


def test_a_state_stays_where_it_was_put():
  _, state, *_ = run(4)
  mesh = meshes.make_mesh("x4")
  expected = meshes.state_shardings(STUDENT, OPTIMIZER, mesh)
  for x, sharding in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert x.sharding.is_equivalent_to(sharding, x.ndim)


def test_an_encoder_cut_over_devices_computes_what_one_does():
  params = jax.jit(ENCODER.init)(jax.random.key(0))
  batch = toy.make_batch()
  mesh = meshes.make_mesh("x4")
  cut = jax.device_put(params, meshes.param_shardings(ENCODER, mesh))

  @jax.jit
  def logits(params, batch):
    inputs = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
    return ENCODER.forward(params, inputs).logits

  np.testing.assert_allclose(
    logits(cut, meshes.place_batch(batch, mesh)),
    logits(params, batch),
    rtol=1e-5,
    atol=1e-6,
  )


def test_parameters_are_cut_by_their_logical_axes():
  shardings = meshes.param_shardings(ENCODER, meshes.make_mesh("x4"))
  assert shardings["token_embedder"]["embedding"].spec == PartitionSpec("model")
  layer = shardings["encoder"]["layers_0"]
  assert layer["mlp"]["wi_0"]["kernel"].spec == PartitionSpec(None, "model")
  assert layer["mlp"]["wo"]["kernel"].spec == PartitionSpec("model")
  query = layer["attention"]["query"]["kernel"]
  assert query.spec == PartitionSpec(None, "model")
  assert shardings["head"]["bias"].spec == PartitionSpec()
  assert layer["pre_mlp_layer_norm"]["scale"].spec == PartitionSpec()


def test_an_axis_that_does_not_divide_is_kept_whole():
  cut = meshes.param_shardings(STUDENT, meshes.make_mesh("x8"))
  assert cut["table"].spec == PartitionSpec("model")  # 24 words
  whole = meshes.param_shardings(TEACHER, meshes.make_mesh("x8"))
  assert whole["w"].spec == PartitionSpec()  # 12 dimensions


def test_rows_are_cut_over_the_data_axis():
  mesh = meshes.make_mesh("x4")
  batch = meshes.place_batch(toy.make_batch(), mesh)
  for field in batch[:6]:
    assert field.sharding.spec == PartitionSpec("data")
    assert {s.data.shape[0] for s in field.addressable_shards} == {4}


def test_the_tokens_of_every_view_are_those_of_one_device():
  text = "kd+augpro_mix+augpro_fgsm(delta=3)+token_mix*2"
  views_of = jax.jit(
    functools.partial(
      make_views,
      student=STUDENT,
      teacher=TEACHER,
      method=build_method(text, TaskKind.CLASSES),
    )
  )

  def tokens(mesh):
    params, teacher, lexicon, key = placed(mesh)
    batch = toy.make_batch()
    batch = meshes.place_batch(batch, mesh) if mesh else batch
    views = views_of(params, teacher, lexicon, batch, key, jnp.int32(0))
    return np.concatenate(
      [np.asarray(it.view.student.tokens).ravel() for it in views.values()]
    )

  alone = tokens(None)
  assert (tokens(meshes.make_mesh("x4")) == alone).mean() >= 0.999


@pytest.mark.parametrize(
  ("model", "shape"), [(1, (8, 1)), (4, (2, 4)), (8, (1, 8))]
)
def test_a_mesh_is_data_by_model(model, shape):
  mesh = meshes.make_mesh(f"x{model}")
  assert mesh.axis_names == ("data", "model")
  assert mesh.devices.shape == shape


@pytest.mark.parametrize(
  ("text", "count", "shape"),
  [
    ("x1", 6, (6, 1)),
    ("x2", 6, (3, 2)),
    ("4x2", 8, (4, 2)),
    ("v3-8", 8, (8, 1)),
    ("v4-32", 16, (16, 1)),
    ("v4-32/4", 16, (4, 4)),
    ("v5p-16", 8, (8, 1)),
    ("v5litepod-16", 16, (16, 1)),
    ("v6e-8/2", 8, (4, 2)),
  ],
)
def test_a_mesh_is_called_by_its_shape_or_its_slice(text, count, shape):
  assert meshes.mesh_shape(text, count) == shape


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("x3", "must divide the 8 devices, got x3"),
    ("x0", "must divide the 8 devices, got x0"),
    ("x16", "must divide the 8 devices, got x16"),
    ("4x4", "the mesh 4x4 needs 16 devices, and there are 8"),
    ("v4-8", "the mesh v4-8 needs 4 devices, and there are 8"),
    ("v9-8", "must be DATAxMODEL, .*, got 'v9-8'"),
    ("x-1", "must be DATAxMODEL"),
    ("", "must be DATAxMODEL"),
  ],
)
def test_a_mesh_that_the_devices_do_not_fit_is_refused(text, message):
  with pytest.raises(UsageError, match=message):
    meshes.make_mesh(text)


@functools.cache
def state_on(shape):
  """A state of the toy student, and where it lies."""
  params = jax.jit(STUDENT.init)(jax.random.key(0))
  optimizer = make_optimizer("adamw")
  with jax.numpy_dtype_promotion("standard"):
    state = TrainState(jnp.int32(3), params, optimizer.init(params))
  where = meshes.state_shardings(STUDENT, optimizer, meshes.make_mesh(shape))
  return jax.device_put(state, where)


@pytest.mark.parametrize(
  ("written", "read"), [*itertools.permutations(["x1", "x2", "x4"], 2)]
)
def test_a_checkpoint_goes_from_one_mesh_to_another(tmp_path, written, read):
  with Store(tmp_path) as store:
    store.save(3, state_on(written))
    store.wait()
    found = store.restore(state_on(read))
  for mine, there in zip(
    jax.tree.leaves(found), jax.tree.leaves(state_on(read)), strict=True
  ):
    assert mine.sharding == there.sharding
    np.testing.assert_array_equal(mine, there)


HOSTS = [
  # Devices of a host, hosts, mesh -> the shares of each host.
  (4, 2, "x1", [(0, 1, 2, 3), (4, 5, 6, 7)], 8),
  (2, 4, "x2", [(0,), (1,), (2,), (3,)], 4),
  (2, 4, "x4", [(0,), (0,), (1,), (1,)], 2),
  (1, 8, "x8", [(0,)] * 8, 1),
]


@pytest.mark.parametrize(("size", "hosts", "shape", "shares", "count"), HOSTS)
def test_a_host_makes_the_rows_that_its_devices_need(
  monkeypatch, size, hosts, shape, shares, count
):
  grid = meshes.mesh_shape(shape, size * hosts)
  numbers = np.arange(size * hosts).reshape(grid) // size
  devices = np.vectorize(lambda i: types.SimpleNamespace(process_index=i))
  mesh = types.SimpleNamespace(
    devices=devices(numbers), shape={"data": grid[0], "model": grid[1]}
  )
  plain = inspect.unwrap(meshes.shares_here)
  for host in range(hosts):
    monkeypatch.setattr(jax, "process_index", lambda host=host: host)
    assert plain(mesh) == (shares[host], count)


def test_a_teacher_may_be_cut_over_all_devices():
  mesh = meshes.make_mesh("x2")
  shapes = jax.eval_shape(ENCODER.init, jax.random.key(0))
  where = meshes.param_shardings(ENCODER, mesh, over_data=True)
  shards = jax.tree.map(lambda x, s: s.shard_shape(x.shape), shapes, where)
  table = shards["token_embedder"]["embedding"]
  assert math.prod(table) * 8 == toy.VOCAB * 8
  assert where["encoder"]["encoder_norm"]["scale"].spec == PartitionSpec()


@pytest.mark.parametrize(("size", "rows"), [(1, 8), (8, 8), (9, 16), (0, 0)])
def test_rows_are_rounded_up_to_what_the_devices_share(size, rows):
  assert meshes.round_up_rows(size, meshes.make_mesh()) == rows
