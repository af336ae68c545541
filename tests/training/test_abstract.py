"""Steps that are traced and counted at any size, and never run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from augdistill.models.networks import network
from augdistill.models.sizes import enct5_config
from augdistill.training import abstract, forecast, mesh
from augdistill.training.chips import CHIPS
from augdistill.training.flops import Costs
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.types import TaskKind

AUGPRO_MIX = build_method("kd+augpro_mix(lam=0.5)", TaskKind.CLASSES)
# EncT5's parameters but for the latent query and the head: T5 1.1's encoder
# and one layer of its decoder without self-attention.
SMALL, LARGE = 37_693_632, 354_079_232


def job(student, teacher, batch_size=8, length=16, **what):
  return abstract.Job(
    network(student),
    network(teacher),
    make_optimizer("adafactor", decay="constant", warmup_fraction=0.0),
    batch_size,
    length,
    student.vocab_size,
    **what,
  )


def traced(it, devices=2, model=1, method=AUGPRO_MIX):
  """A job's arguments, its step, and what it costs."""
  where = mesh.make_mesh(f"x{model}", jax.devices()[:devices])
  given = abstract.arguments(it, where)
  step = abstract.trace(it, method, given)
  return given, step, abstract.costs(it, step, given)


TINY = enct5_config("micro", 40, 3), enct5_config("mini", 40, 3, num_layers=2)


@functools.cache
def tiny():
  return traced(job(*TINY))


# What a step of KD + AugPro-Mix multiplies, by hand.


def forward_by_hand(c, rows, length):
  """Products of a forward pass of EncT5, from its architecture."""
  tokens, inner = rows * length, c.num_heads * c.head_dim
  # Queries, keys, values and outputs; two matrices into the MLP, one out.
  layer = 2 * tokens * (4 * c.emb_dim * inner + 3 * c.emb_dim * c.mlp_dim)
  layer += 2 * 2 * tokens * length * inner  # scores, and what they mix
  # One query per row meets the matrices; its scores and what they mix, every
  # token.
  decoder = 2 * 2 * tokens * c.num_heads * c.emb_dim
  decoder += 2 * rows * (4 * c.emb_dim * inner + 3 * c.emb_dim * c.mlp_dim)
  return c.num_layers * layer + decoder + 2 * rows * c.emb_dim * c.num_outputs


def step_by_hand(student, teacher, rows, length):
  """Part -> products: two views, and of each a forward pass of the teacher."""
  # A backward pass multiplies twice as much: by inputs and by matrices.
  learning = 3 * forward_by_hand(student, rows, length)
  teaching = forward_by_hand(teacher, rows, length)
  search = 2 * rows * length * teacher.vocab_size * teacher.emb_dim
  return {
    "clean:student": learning,
    "clean:teacher": teaching,
    "augpro_mix:student": learning,
    "augpro_mix:teacher": teaching,
    "augpro_mix:view": search,
  }


def assert_agree(counted, by_hand, within):
  for part, flops in by_hand.items():
    assert counted[part] == pytest.approx(flops, rel=within), part


def test_a_small_step_is_as_by_hand():
  _, _, costs = tiny()
  assert_agree(costs.by_part, step_by_hand(*TINY, 8, 16), within=0.05)


@pytest.mark.slow
def test_the_step_of_augpros_table_1_is_as_by_hand():
  models = enct5_config("small", 32128, 2), enct5_config("large", 32128, 2)
  given, step, costs = traced(job(*models, 512, 128), devices=8)
  by_hand = step_by_hand(*models, 512, 128)
  assert sum(by_hand.values()) == pytest.approx(102.3e12, rel=0.005)
  assert_agree(costs.by_part, by_hand, within=0.03)
  total = costs.by_part.total()
  assert total == pytest.approx(sum(by_hand.values()), rel=0.01)
  assert abstract.count(given.state.params) == SMALL + 512 + 512 * 2 + 2
  assert step.out_info[0].params.keys() == given.state.params.keys()


@pytest.mark.parametrize(
  ("size", "known"), [("small", SMALL), ("large", LARGE)]
)
def test_parameters_are_those_of_the_paper(size, known):
  shape = enct5_config(size, 32128, 2)
  params = jax.eval_shape(network(shape).init, jax.random.key(0))
  head = 2 * shape.emb_dim + 2
  assert abstract.count(params) == known + shape.emb_dim + head


def test_no_array_is_made():
  given, _, _ = tiny()
  assert {type(leaf) for leaf in jax.tree.leaves(given)} == {
    jax.ShapeDtypeStruct
  }


def test_the_optimizer_is_a_part_of_its_own():
  _, _, costs = tiny()
  size = abstract.count(tiny()[0].state.params)
  assert costs.by_part[abstract.OPTIMIZER] > size
  assert sum(costs.by_dtype.values()) == (
    costs.by_part.total() - costs.by_part[abstract.OPTIMIZER]
  )


def test_microbatches_multiply_as_much():
  whole, cut = tiny(), traced(job(*TINY, num_microbatches=2))
  for part, flops in whole[2].by_part.items():
    assert cut[2].by_part[part] == pytest.approx(flops, rel=0.01), part
  assert "length=2" in str(cut[1].jaxpr)
  assert "length=2" not in str(whole[1].jaxpr)


def test_a_teacher_without_dropout_draws_nothing():
  draws = [
    str(step.jaxpr).count("random_bits")
    for _, step, _ in (tiny(), traced(job(*TINY, teacher_dropout=False)))
  ]
  assert draws[0] > draws[1] > 0


def test_a_batch_with_answers_spares_the_teacher_its_clean_pass():
  whole, spared = tiny(), traced(job(*TINY, answered=True))
  assert "clean:teacher" not in spared[2].by_part
  assert {
    p: n for p, n in whole[2].by_part.items() if p != "clean:teacher"
  } == (spared[2].by_part)


def test_what_is_multiplied_has_its_type():
  models = [dataclasses.replace(shape, dtype="bfloat16") for shape in TINY]
  _, _, costs = traced(job(*models))
  halves = costs.by_dtype["bfloat16"]
  assert halves > costs.by_dtype["float32"] > 0
  # Only the search for the nearest token stays, and norms and heads.
  search = step_by_hand(*models, 8, 16)["augpro_mix:view"]
  assert costs.by_dtype["float32"] >= search
  assert costs.moved < tiny()[2].moved


def test_a_teacher_in_bfloat16_takes_half_the_memory():
  where = mesh.make_mesh("x1", jax.devices()[:2])
  halves = abstract.arguments(job(*TINY, teacher_dtype="bfloat16"), where)
  size = abstract.bytes_on_a_device
  whole = tiny()[0]
  assert size(halves.teacher_params) < 0.52 * size(whole.teacher_params)
  assert size(halves.state) == size(whole.state)


def test_a_model_axis_cuts_parameters_but_no_rows():
  whole, cut = tiny()[0], traced(job(*TINY), model=2)[0]
  params = abstract.bytes_on_a_device
  assert params(whole.state.params) == 4 * abstract.count(whole.state.params)
  assert params(cut.teacher_params) < 0.7 * params(whole.teacher_params)
  assert params(cut.batch) == 2 * params(whole.batch)


def test_bytes_add_up_to_what_is_compiled():
  given, step, _ = tiny()
  peak = abstract.peak_of(step, mesh.make_mesh("x1", jax.devices()[:2]))
  assert not peak.refused
  made = forecast.memory(given, peak, CHIPS["v3"], "cpu")
  sizes = made["bytes_per_device"]
  assert made["total"] == sum(sizes.values()) == peak.bytes
  assert sizes[forecast.TEMPORARY] > 0
  assert made["fits"] is True


def test_too_much_is_said_to_be_so():
  given, _, _ = tiny()
  needed, full = abstract.Peak(2000), CHIPS["v3"]._replace(memory=1000)
  assert forecast.memory(given, needed, full, "v3")["fits"] is False
  # Also where parts alone are too much; that they fit is not enough.
  assert forecast.memory(given, None, full, "v3")["fits"] is False
  assert forecast.memory(given, None, CHIPS["v3"], "v3")["fits"] is None
  # A compiler knows better, since a part of the memory is not for programs.
  refused = abstract.Peak(2000, refused=True)
  assert forecast.memory(given, refused, CHIPS["v3"], "v3")["fits"] is False


@pytest.mark.parametrize(
  ("said", "size"),
  [
    ("memory required for HLO temporaries (40.25G) exceeds", 40.25 * 2**30),
    ("Used 512.0M of 15.48G hbm", 2**29),
    ("no number", 0),
  ],
)
def test_bytes_are_read_from_a_refusal(said, size):
  assert abstract.bytes_said(said) == size


class Refusing:
  """A step that its compiler refuses."""

  def __init__(self, says):
    self.says = says

  def lower(self):
    return self

  def compile(self, compiler_options):
    raise jax.errors.JaxRuntimeError(self.says)


def test_a_refusal_for_want_of_memory_is_a_peak_and_any_other_an_error():
  devices = mesh.make_mesh("x1", jax.devices()[:2])
  peak = abstract.peak_of(Refusing("RESOURCE_EXHAUSTED: Used 2.0K"), devices)
  assert peak == abstract.Peak(2048, refused=True)
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    abstract.peak_of(Refusing("INTERNAL: a bug"), devices)


def test_time_is_that_of_what_takes_longer():
  chip = CHIPS["h200"]
  costs = Costs(
    {"": 3}, {"bfloat16": chip.bfloat16, "float32": chip.float32}, 0
  )
  made = forecast.time(costs, chip, 4, 0.5, 7200, 10.0)
  assert made["seconds_per_step"] == pytest.approx(2 / 4 / 0.5)
  assert made["limited_by"] == "products"
  assert made["minutes_per_1000_steps"] == pytest.approx(1000 / 60)
  assert made["hours"] == pytest.approx(2)
  assert made["price"] == pytest.approx(20)
  slow = costs._replace(moved=5 * chip.bandwidth)
  made = forecast.time(slow, chip, 1, 1.0, 1)
  assert made["seconds_per_step"] == pytest.approx(5)
  assert made["limited_by"] == "memory bandwidth"
  assert made["price"] is None


@pytest.mark.parametrize(
  ("method", "what"),
  [("kd+rewrites", {"rewrites": 4}), ("kd+ad2", {"apart": True})],
)
def test_batches_have_what_a_method_reads(method, what):
  built = build_method(method, TaskKind.CLASSES)
  given, step, _ = traced(job(*TINY, **what), method=built)
  assert step.out_info[1]["loss"][0].dtype == jnp.float32
  assert (given.batch.rewrites is None) == ("rewrites" not in what)
  assert (given.batch.teacher is None) == ("apart" not in what)


def test_neighbours_that_are_listed_are_not_sought_in_a_step():
  knn = build_method("kd+knn(k=4)", TaskKind.CLASSES)
  where = mesh.make_mesh(devices=jax.devices()[:1])

  def products(neighbours):
    it = job(*TINY, neighbours=neighbours)
    given = abstract.arguments(it, where)
    return abstract.costs(it, abstract.trace(it, knn, given), given).by_part

  sought, listed = products(0), products(4)
  # What is free in each of 8 rows of 16 is counted by a product.
  assert sought["knn:view"] > listed["knn:view"] == 2 * 8 * 16 * 16
  del sought["knn:view"], listed["knn:view"]
  assert +listed == sought
