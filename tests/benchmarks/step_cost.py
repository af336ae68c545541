"""What a step of each method costs, as a ratio to the first one's.

  bash launch/bench.sh [--rounds N] METHOD ...

Sizes and data are those of the quickstart: a micro student, a mini teacher, 64
rows of the help-desk data. Of many methods, some at a time take turns, each
time beside the first one, since a process has room for so many programs only.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from augdistill import prng
from augdistill.data.batches import train_batches
from augdistill.data.load import DataConfig, load_data
from augdistill.models.enct5 import enct5
from augdistill.models.projected import with_projections
from augdistill.models.sizes import enct5_config
from augdistill.training.lookups import with_lookups
from augdistill.training.optimizers import make_optimizer
from augdistill.training.policies import build_policy
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Batch, TaskKind
from tests.benchmarks.turns import Figure, at_most, figure, taking_turns

STEPS = 30  # of each method in a round
BATCH_SIZE, LENGTH = 64, 32  # rows, and tokens of one, padding included
AT_A_TIME = 8  # methods beside the first

# The methods of the papers, their baselines and controls, one setting each.
METHODS = (
  *("ft", "kd+mixup", "kd+tmix", "kd+pooled_mixup", "kd+nonlinear_mixup"),
  *("kd+batch_mixup(weight=0.1)", "kd+fmix", "kd+cutmix", "kd+token_mix"),
  *("kd+alternate(fmix,mixup)", "kd+fgsm", "kd+ad2", "kd+freelb", "kd+smart"),
  *("kd+augpro_mix", "kd+augpro_fgsm", "kd+augpro_mix+augpro_fgsm"),
  *("kd+knn", "kd+tinybert", "kd+random", "kd+eda", "kd+rewrites"),
  *("kd(clean=false)+mmel_hard(view=rewrites)*4",),
  *("kd+mmel_soft(view=rewrites)*4", "kd+tinybert+hidden_mse(on=all)"),
)


def with_rewrites(batch: Batch, copies: int = 4) -> Batch:
  """The batch with its own texts as rewrites: they cost what others would."""
  return batch._replace(
    rewrites=jax.tree.map(lambda x: np.repeat(x[None], copies, axis=0), batch)
  )


class Bench:
  """What takes steps of methods; models and batches are shared by all.

  Attributes:
    steps: of a method in a round.
    vocab_size: V.
  """

  def __init__(self, steps: int = STEPS, batch_size: int = BATCH_SIZE):
    data = load_data(DataConfig(task="helpdesk", max_length=LENGTH))
    self.steps, self.vocab_size = steps, data.vocab.size
    self._shape = functools.partial(
      enct5_config,
      vocab_size=data.vocab.size,
      num_outputs=data.task.num_outputs,
    )
    self._student = enct5(self._shape("micro"))
    self._teacher = enct5(self._shape("mini"))
    self._lexicon = jax.device_put(data.vocab.lexicon)
    self._teacher_params = jax.jit(self._teacher.init)(prng.run_key(1))
    # Of one length, so that a method is compiled once.
    batch_at = train_batches(data.train, batch_size, seed=0, length=LENGTH)
    self._batches = [
      jax.device_put(with_rewrites(batch_at(i))) for i in range(steps)
    ]

  def runner(self, method: str) -> Callable[[], TrainState]:
    """What takes so many steps of a method."""
    policy = build_policy(method, TaskKind.CLASSES)
    learner = self._student
    if policy.needs_projections:
      learner = with_projections(learner, self._shape("mini").emb_dim)
    optimizer = make_optimizer(learning_rate=1e-3, num_steps=10_000)
    steps = [
      jitted_step(
        optimizer=optimizer,
        student=learner,
        teacher=self._teacher,
        method=one,
      )
      for one in policy.methods
    ]
    params = jax.jit(learner.init)(prng.run_key(0))
    states = [TrainState(jnp.int32(0), params, optimizer.init(params))]
    known = self._lexicon
    if policy.needs_teacher:  # As a run does.
      its = policy.methods, self._teacher, self._teacher_params
      known = with_lookups(known, *its)
    fixed = self._teacher_params, known

    def run() -> TrainState:
      state = states.pop()
      for i, batch in enumerate(self._batches):
        step = steps[policy.choose(0, i)]
        state, _ = step(state, *fixed, batch, prng.run_key(0))
      states.append(state)
      return state

    return run

  def product(self) -> Callable[[], jax.Array]:
    """What takes the product of as many projections in the student's table."""
    table = self._student.table(jax.jit(self._student.init)(prng.run_key(0)))
    queries = jnp.take(table, self._batches[0].tokens, axis=0)
    multiply = jax.jit(lambda q, table: jnp.einsum("bld,vd->blv", q, table))

    def run() -> jax.Array:
      return [multiply(queries, table) for _ in range(self.steps)][-1]

    return run


def measure(quick: bool) -> list[Figure]:
  """Every method against `kd`, and what was asked of AugPro's."""
  bench = Bench(steps=3 if quick else STEPS)
  if quick:
    return asked_figures(bench)
  figures = asked_figures(bench)
  others = [m for m in METHODS if m not in {f.name for f in figures}]
  for start in range(0, len(others), AT_A_TIME):
    jax.clear_caches()
    some = others[start : start + AT_A_TIME]
    seconds = taking_turns({m: bench.runner(m) for m in ("kd", *some)})
    figures += [figure(seconds, m, "kd", per=bench.steps) for m in some]
  return figures


def asked_figures(bench: Bench) -> list[Figure]:
  """What AugPro's steps cost, with the bounds that were asked."""
  methods = (
    *("kd", "kd+mixup", "kd+rewrites"),
    *("kd+augpro_mix", "kd+augpro_fgsm", "kd+augpro_mix+augpro_fgsm"),
  )
  runs = {method: bench.runner(method) for method in methods}
  # Texts that are there already are the cheapest second view of tokens.
  product, plain = bench.product(), runs["kd+rewrites"]
  second_view = "kd+rewrites, and the product of a projection"
  runs[second_view] = lambda: (plain(), product())
  seconds = taking_turns(runs)
  both, note = "kd+augpro_mix+augpro_fgsm", f"V {bench.vocab_size:,}"
  asked = (
    ("kd+augpro_mix", "kd+mixup", at_most(1.03)),
    ("kd+augpro_mix", "kd", at_most(2.1)),
    ("kd+augpro_fgsm", second_view, at_most(1.05)),
    (both, "kd", at_most(3.1) if bench.vocab_size <= 4096 else None),
    ("kd+augpro_fgsm", "kd", None),
    ("kd+mixup", "kd", None),
    ("kd+rewrites", "kd", None),
  )
  return [
    figure(seconds, name, of, per=bench.steps, bound=bound, note=note)
    for name, of, bound in asked
  ]


def print_costs(methods: Sequence[str], rounds: int) -> None:
  """Prints what methods cost, relative to the first one.

  Raises:
    UsageError: for a method that is none, before anything is made.
  """
  for method in methods:
    build_policy(method, TaskKind.CLASSES)
  bench = Bench()
  first, *others = dict.fromkeys(methods)
  print(f"{rounds} rounds of {STEPS} steps, {jax.devices()}")
  print(f"{'ms/step':>8}  {'ratio':>6}  {'lowest':>6}  {'highest':>7}  method")
  for start in range(0, max(len(others), 1), AT_A_TIME):
    methods = [first, *others[start : start + AT_A_TIME]]
    seconds = taking_turns({m: bench.runner(m) for m in methods}, rounds)
    jax.clear_caches()
    for method in methods[bool(start) :]:
      cost = figure(seconds, method, first, per=STEPS)
      print(
        f"{1e3 * cost.amount:8.1f}  {cost.ratio:6.2f}  {cost.lowest:6.2f}  "
        f"{cost.highest:7.2f}  {method}",
        flush=True,
      )
