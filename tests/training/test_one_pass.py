"""Two phases are one loss, written straight down, or by hand if linear."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import prng
from augdistill.augment.mixing import draw_partners, mix_embeddings
from augdistill.losses.reweight import mean
from augdistill.losses.terms import cross_entropy, kl
from augdistill.training.methods import build_method
from augdistill.training.phases import phase_one
from augdistill.training.step import grads_and_metrics
from augdistill.types import Inputs, Method, Models, TaskKind, WeightedView
from tests import toy
from tests.reference import step as reference
from tests.reference import views as reference_views
from tests.training.toy_step import (
  KEY,
  LEXICON,
  NETWORKS,
  PARAMS,
  STEP,
  assert_close,
  average,
  batch_of,
  gradients,
)


def compare(kind, logits, other, target, temperature=1.0):
  """A row's distance from a label or a teacher, by the textbook."""
  if kind == "regression":
    return jnp.square(logits - other)[..., 0]
  if kind == "multi_label":
    p = other if target == "label" else jax.nn.sigmoid(other / temperature)
    q = jax.nn.sigmoid(logits / (1.0 if target == "label" else temperature))
    cross = -(p * jnp.log(q) + (1 - p) * jnp.log(1 - q))
    if target == "label":
      return jnp.mean(cross, -1)
    entropy = -(p * jnp.log(p) + (1 - p) * jnp.log(1 - p))
    return temperature**2 * jnp.mean(cross - entropy, -1)
  if target == "label":
    return -jnp.sum(other * jax.nn.log_softmax(logits), -1)
  p = jax.nn.softmax(other / temperature)
  q = jax.nn.softmax(logits / temperature)
  return temperature**2 * jnp.sum(p * (jnp.log(p) - jnp.log(q)), -1)


def nearest(queries, table, own):
  """The naive argmax of cosines over what may be produced, or stay."""
  unit = table / jnp.linalg.norm(table, axis=-1, keepdims=True)
  scores = jnp.einsum("bld,vd->blv", queries, unit)
  stays = own[..., None] == jnp.arange(toy.VOCAB)[None, None]
  allowed = LEXICON.producible[None, None] | stays
  return jnp.argmax(jnp.where(allowed, scores, -jnp.inf), -1).astype(jnp.int32)


class OnePass:
  """L = clean + view of the parameters, with the draws that the step makes."""

  def __init__(self, base, view, kind, temperature, params, teacher_params):
    self.base, self.kind, self.temperature = base, kind, temperature
    self.params, self.teacher_params = params, teacher_params
    self.student, self.teacher = NETWORKS[kind]
    self.batch = jax.tree.map(jnp.asarray, batch_of(kind))
    key = prng.at_step(KEY, STEP)
    self.key = prng.stream(key, view or "clean")
    drawn = draw_partners(prng.stream(key, f"{view}/partners"), self.batch)[0]
    self.partner = jax.tree.map(lambda x: x[drawn], self.batch)
    self.answers = self.ask(self.teacher_words(), self.batch.mask)
    self.loss = self.averaged(self.own_losses(params, self.words()))
    if view:
      self.loss += self.averaged(getattr(self, view)())

  def words(self):
    return self.params["table"][self.batch.tokens]

  def teacher_words(self):
    return self.teacher_params["table"][self.batch.tokens]

  def run(self, words, mask, params=None):
    inputs = Inputs(mask=mask[None], embeddings=words[None])
    params = self.params if params is None else params
    return self.student.forward(params, inputs).logits[0]

  def ask(self, words, mask):
    inputs = Inputs(mask=mask[None], embeddings=words[None])
    return self.teacher.forward(self.teacher_params, inputs).logits[0]

  def averaged(self, rows):
    return jnp.sum(self.batch.weight * rows) / jnp.sum(self.batch.weight)

  def labelled(self, logits, label, has_label):
    return jnp.where(has_label, compare(self.kind, logits, label, "label"), 0.0)

  def taught(self, logits, answers):
    return compare(self.kind, logits, answers, "teacher", self.temperature)

  def own_losses(self, params, words):
    logits = self.run(words, self.batch.mask, params)
    rows = self.labelled(logits, self.batch.label, self.batch.has_label)
    if self.base == "kd":
      rows += self.taught(logits, self.answers)
    return rows

  def moved(self, delta):
    fixed = jax.lax.stop_gradient(self.params)
    gradient = jax.grad(lambda w: jnp.sum(self.own_losses(fixed, w)))(
      fixed["table"][self.batch.tokens]
    )
    rows = np.flatnonzero(toy.LEXICON.producible)
    offset = delta * jnp.std(fixed["table"][rows]) * jnp.sign(gradient)
    return self.words() + offset

  def of_tokens(self, new, free):
    tokens = jnp.where(free, new, self.batch.tokens)
    mask = self.batch.mask
    answers = self.ask(self.teacher_params["table"][tokens], mask)
    return self.taught(self.run(self.params["table"][tokens], mask), answers)

  def free(self, batch):
    return batch.mask & ~LEXICON.protected[batch.tokens]

  def mixup(self):
    mask = self.batch.mask | self.partner.mask
    a, b = self.batch.mask[..., None], self.partner.mask[..., None]

    def mixed(table):
      x, y = table[self.batch.tokens], table[self.partner.tokens]
      return jnp.where(a & b, (x + y) / 2, jnp.where(a, x, y))

    logits = self.run(mixed(self.params["table"]), mask)
    rows = self.labelled(
      logits,
      (self.batch.label + self.partner.label) / 2,
      self.batch.has_label & self.partner.has_label,
    )
    if self.base == "kd":
      answers = self.ask(mixed(self.teacher_params["table"]), mask)
      rows += self.taught(logits, answers)
    return rows

  def fgsm(self):
    logits = self.run(self.moved(0.1), self.batch.mask)
    return self.taught(logits, self.answers)

  def token_mix(self):
    keys = prng.per_example(self.key, self.batch.example_id)
    draw = jax.vmap(lambda k: jax.random.uniform(k, (toy.LENGTH,)))(keys)
    known = jnp.asarray(toy.LEXICON.producible)[self.partner.tokens]
    theirs = (draw >= 0.5) & known
    new = jnp.where(theirs, self.partner.tokens, self.batch.tokens)
    return self.of_tokens(new, self.free(self.batch) & self.free(self.partner))

  def augpro_mix(self):
    table = self.teacher_params["table"]
    middle = (table[self.batch.tokens] + table[self.partner.tokens]) / 2
    new = nearest(middle, table, self.batch.tokens)
    return self.of_tokens(new, self.free(self.batch) & self.free(self.partner))

  def augpro_fgsm(self):
    table = jax.lax.stop_gradient(self.params["table"])
    new = nearest(self.moved(3.0), table, self.batch.tokens)
    return self.of_tokens(new, self.free(self.batch))


def one_pass(base, view, kind="classes", temperature=1.0):
  """The loss and its gradients, by `jax.grad`."""

  @jax.jit
  @jax.value_and_grad
  def loss(params, teacher_params):
    world = OnePass(base, view, kind, temperature, params, teacher_params)
    return world.loss

  return loss(*PARAMS[kind])


# Method -> base, view, temperature.
METHODS = {
  "kd": ("kd", None, 1.0),
  "kd+mixup": ("kd", "mixup", 1.0),
  "kd+fgsm(delta=0.1)": ("kd", "fgsm", 1.0),
  "kd+augpro_mix": ("kd", "augpro_mix", 1.0),
  "kd(temperature=3)+augpro_fgsm(delta=3)": ("kd", "augpro_fgsm", 3.0),
  "kd(temperature=0.5)+token_mix": ("kd", "token_mix", 0.5),
  "ft+mixup": ("ft", "mixup", 1.0),
}


@pytest.mark.parametrize("method", METHODS)
def test_two_phases_are_the_one_pass_loss(method):
  base, view, temperature = METHODS[method]
  loss, grads = one_pass(base, view, temperature=temperature)
  got, metrics = gradients(method)
  assert average(metrics) == pytest.approx(float(loss), rel=1e-5)
  assert_close(got, grads)
  assert metrics["loss"][1] == batch_of().weight.sum()


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
def test_other_kinds_of_tasks_are_the_one_pass_loss(kind):
  loss, grads = one_pass("kd", "mixup", kind)
  got, metrics = gradients("kd+mixup", kind)
  assert average(metrics) == pytest.approx(float(loss), rel=1e-5)
  assert_close(got, grads)


def test_a_linear_student_follows_the_reference_by_hand():
  """KD + MixUp against NumPy in float64; rows of one length, as it wants."""
  student = toy.network(6, linear=True)
  teacher = toy.network(7, linear=True)
  params, teacher_params = toy.STUDENT_PARAMS, toy.TEACHER_PARAMS
  batch = toy.make_batch(2, lengths=(6,) * toy.ROWS)
  batch = batch._replace(has_label=np.ones(toy.ROWS, bool))
  lam, temperature = 0.3, 2.0
  distance = ("kl", 1.0, kl(temperature))
  method = Method(
    "kd+mix",
    WeightedView(
      "clean", None, (("label", 1.0, cross_entropy()), distance), mean(), 0.7
    ),
    (WeightedView("mix", mix_embeddings(lam), (distance,), mean(), 1.9),),
  )
  grads, metrics = jax.jit(
    functools.partial(
      grads_and_metrics, student=student, teacher=teacher, method=method
    )
  )(params, teacher_params, LEXICON, batch, KEY, STEP)

  key = prng.stream(prng.at_step(KEY, STEP), "mix/partners")
  partner = np.asarray(draw_partners(key, jax.tree.map(jnp.asarray, batch))[0])
  w, table = (
    np.asarray(teacher_params["w"]),
    np.asarray(teacher_params["table"]),
  )
  words = table[batch.tokens]
  loss, expected = reference.kd_mixup_grads(
    params["w"],
    params["table"],
    batch.tokens,
    batch.mask,
    batch.label,
    batch.weight,
    reference.student_logits(words, batch.mask, w),
    reference.student_logits(
      reference_views.mixup(words, words[partner], lam), batch.mask, w
    ),
    partner,
    lam,
    w_clean=0.7,
    w_mix=1.9,
    temperature=temperature,
  )
  assert average(metrics) == pytest.approx(loss, rel=1e-5)
  assert_close(grads, expected, rtol=1e-4)


def test_phase_one_knows_each_examples_own_gradient():
  student, teacher = NETWORKS["classes"]
  params, teacher_params = PARAMS["classes"]
  batch = jax.tree.map(jnp.asarray, batch_of())
  method = build_method("kd", TaskKind.CLASSES)
  models = Models(student, params, teacher, teacher_params, LEXICON)

  @jax.jit
  def phase():
    *_, clean = phase_one(batch, KEY, STEP, models, method, False, 0.25)
    # Another target, through the same linearisation: away from the teacher.
    apart = student.forward(params, inputs).logits - clean.teacher.logits
    zeros = jax.tree.map(jnp.zeros_like, clean.student)
    other = clean.pull_back(zeros._replace(logits=apart))
    return clean.gradient[0], other[0], clean.student, clean.teacher

  inputs = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
  gradient, other, outputs, answers = phase()

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, 0))
  def alone(words, mask, label, has_label, answers):
    def run(words):
      one = Inputs(mask=mask[None, None], embeddings=words[None, None])
      return student.forward(params, one).logits[0, 0]

    def own(words):
      logits = run(words)
      ce = compare("classes", logits, label, "label")
      distance = compare("classes", logits, answers, "teacher")
      return jnp.where(has_label, ce, 0.0) + distance

    def apart(words):
      return 0.5 * jnp.sum(jnp.square(run(words) - answers))

    return jax.grad(own)(words), jax.grad(apart)(words)

  batch_inputs = batch.tokens[None], batch.mask[None]
  own, apart = alone(
    student.embed(params, *batch_inputs).embeddings[0],
    batch.mask,
    batch.label,
    batch.has_label,
    answers.logits[0],
  )
  real = batch.weight[:, None, None]
  # Not divided by the batch's size; rows of weight 0 have no loss.
  np.testing.assert_allclose(gradient, own * real, rtol=2e-5, atol=1e-7)
  np.testing.assert_allclose(other, apart, rtol=2e-5, atol=1e-6)
  assert (np.asarray(gradient)[~np.asarray(batch.mask)] == 0).all()
  tokens = student.forward(params, inputs)
  np.testing.assert_allclose(
    outputs.logits, tokens.logits, rtol=1e-5, atol=1e-6
  )
