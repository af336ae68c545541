"""A world small enough to see through: 24 words, 8 rows, models of two arrays.

Rows have unequal lengths, one has an unknown word, one has no label, and three
only fill the shape: those hold junk, since nothing may depend on it.
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np

from augdistill.types import (
  Batch,
  Clean,
  Inputs,
  Lexicon,
  Models,
  Network,
  Outputs,
  clean_view,
)

PAD, EOS, UNKNOWN = 0, 1, 2
VOCAB, LENGTH, ROWS, CLASSES = 24, 8, 8, 3
FIRST_WORD, NO_PIECE = 3, 20  # Ids from NO_PIECE on have no piece.

WORDS = np.arange(VOCAB)
LEXICON = Lexicon(
  producible=(WORDS >= FIRST_WORD) & (WORDS < NO_PIECE), protected=WORDS <= EOS
)


def network(
  emb_dim=6, num_outputs=CLASSES, linear=False, dropout=0.0, dtype=jnp.float32
):
  """logits = W^T mean over real positions of f(x): params {"table", "w"}.

  f is the identity, or depends on the position and bends. It says that odd
  tokens are of the second text of a pair, and does not read that.
  """

  def init(key):
    keys = [jax.random.fold_in(key, i) for i in range(2)]
    return {
      "table": jax.random.normal(keys[0], (VOCAB, emb_dim)),
      "w": jax.random.normal(keys[1], (emb_dim, num_outputs)),
    }

  def words(params, tokens):
    return jnp.take(params["table"], tokens, axis=0).astype(dtype)

  def embed(params, tokens, mask):
    return Inputs(mask, None, words(params, tokens), segment_ids=tokens % 2)

  def forward(params, inputs, *, key=None):
    if inputs.pooled is not None:
      logits = jnp.einsum("nmd,dc->nmc", inputs.pooled, params["w"])
      return Outputs(logits, inputs.pooled)
    x = inputs.embeddings
    if x is None:
      x = words(params, inputs.tokens)
    x = x.astype(jnp.float32)
    if not linear:
      bend = 1.0 + 0.1 * jnp.arange(x.shape[-2], dtype=jnp.float32)
      x = jnp.tanh(x * bend[None, None, :, None])
    real = inputs.mask[..., None]
    count = jnp.maximum(jnp.sum(real, axis=-2), 1).astype(jnp.float32)
    pooled = jnp.sum(jnp.where(real, x, 0.0), axis=-2) / count
    if key is not None and dropout:
      kept = jax.random.bernoulli(key, 1 - dropout, pooled.shape)
      pooled = jnp.where(kept, pooled / (1 - dropout), 0.0)
    return Outputs(jnp.einsum("nmd,dc->nmc", pooled, params["w"]), pooled)

  return Network(
    init,
    forward,
    embed,
    lambda params: params["table"],
    lambda: {"table": ("vocab", "embed"), "w": ("joined_kv", "classes")},
    num_outputs,
    lambda params: params["w"].T,
  )


def make_batch(seed=0, lengths=(8, 3, 5, 2, 7, 4, 6, 8), num_outputs=CLASSES):
  """Eight rows; 3, 5 and 7 only fill the shape, 2 has no label."""
  rng = np.random.default_rng(seed)
  lengths = np.asarray(lengths)
  tokens = rng.integers(FIRST_WORD, NO_PIECE, (ROWS, LENGTH))
  tokens[0, 1] = UNKNOWN
  mask = np.arange(LENGTH) < lengths[:, None]
  tokens[np.arange(ROWS), lengths - 1] = EOS
  label = np.eye(num_outputs)[rng.integers(0, num_outputs, ROWS)]
  has_label = np.ones(ROWS, bool)
  has_label[2] = False
  weight = np.ones(ROWS)
  weight[[3, 5, 7]] = 0
  return Batch(
    tokens=np.where(mask, tokens, PAD).astype(np.int32),
    mask=mask,
    label=label.astype(np.float32),
    has_label=has_label,
    weight=weight.astype(np.float32),
    # Rows that only fill the shape carry the id of a real one.
    example_id=np.array([41, 7, 13, 7, 99, 41, 2, 13], np.int32),
  )


def other_junk(batch, seed=1):
  """`batch` with other contents in the rows that only fill the shape."""
  other = make_batch(seed, lengths=(2, 8, 8, 5, 2, 8, 3, 2))
  real = batch.weight > 0
  mixed = [
    np.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, y)
    for x, y in zip(batch[:4], other[:4], strict=True)
  ]
  ids = np.where(real, batch.example_id, 5).astype(np.int32)
  return Batch(*mixed, batch.weight, ids)


def batch_of(texts, length=LENGTH):
  """A batch of these texts, each a list of ids, all of them real rows."""
  n = len(texts)
  mask = np.arange(length) < np.array([len(text) for text in texts])[:, None]
  tokens = np.full((n, length), PAD, np.int32)
  tokens[mask] = np.concatenate(texts)
  return Batch(
    tokens=tokens,
    mask=mask,
    label=np.eye(CLASSES, dtype=np.float32)[np.arange(n) % CLASSES],
    has_label=np.ones(n, bool),
    weight=np.ones(n, np.float32),
    example_id=np.arange(n, dtype=np.int32) * 7,
  )


def pad(batch, columns):
  """`batch` with more padding behind every row."""
  behind = ((0, 0), (0, columns))
  return batch._replace(
    tokens=np.pad(batch.tokens, behind, constant_values=PAD),
    mask=np.pad(batch.mask, behind),
  )


def take_rows(tree, rows, axis=0):
  """The rows `rows` of every array of a tree."""
  return jax.tree.map(lambda x: x[(slice(None),) * axis + (rows,)], tree)


def clean_of(models, batch):
  """What phase 1 would know: here with the cross entropy as loss."""
  embedded = models.student.embed(
    models.student_params, batch.tokens[None], batch.mask[None]
  )
  words = embedded.embeddings

  def run(words):
    inputs = dataclasses.replace(embedded, embeddings=words)
    return models.student.forward(models.student_params, inputs)

  def loss(words):
    log_q = jax.nn.log_softmax(run(words).logits)
    losses = -jnp.sum(batch.label[None] * log_q, axis=-1)
    return jnp.sum(jnp.where(batch.has_label[None], losses, 0.0))

  outputs, pull_back = jax.vjp(run, words)
  inputs = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
  answers = None
  if models.teacher:
    answers = models.teacher.forward(models.teacher_params, inputs)
  return Clean(
    student=outputs,
    teacher=answers,
    gradient=jax.grad(loss)(words),
    pull_back=lambda cotangent: pull_back(cotangent)[0],
    view=clean_view(batch),
  )


STUDENT, TEACHER = network(emb_dim=6), network(emb_dim=7)
STUDENT_PARAMS = jax.jit(STUDENT.init)(jax.random.key(1))
TEACHER_PARAMS = jax.jit(TEACHER.init)(jax.random.key(2))


def make_models(student_params=None, teacher_params=None):
  """Student and teacher, the teacher with the wider table."""
  return Models(
    STUDENT,
    STUDENT_PARAMS if student_params is None else student_params,
    TEACHER,
    TEACHER_PARAMS if teacher_params is None else teacher_params,
    jax.tree.map(jnp.asarray, LEXICON),
  )


@functools.cache
def _making(maker, with_teacher):
  def make(key, batch):
    models = make_models()
    if not with_teacher:
      models = models._replace(teacher=None, teacher_params=None)
    return maker.make(key, batch, None, models, jnp.int32(0))

  return jax.jit(make)


def view_of(maker, batch, seed=0, partners=None, with_teacher=True):
  """A view that does not read the clean batch, its arrays NumPy's.

  `partners` gives the row that each row is mixed with.
  """
  if partners is not None:
    rows = take_rows(batch._replace(rewrites=None), np.asarray(partners))
    batch = batch._replace(partner=jax.tree.map(lambda x: x[None], rows))
  view = _making(maker, with_teacher)(jax.random.key(seed), batch)

  def fields(inputs):  # No Inputs: their arrays are checked to be JAX's.
    names = ("mask", "tokens", "embeddings")
    arrays = {n: jax.device_get(getattr(inputs, n)) for n in names}
    return types.SimpleNamespace(**arrays)

  arrays = jax.device_get(view._replace(student=None, teacher=None))
  return arrays._replace(
    student=fields(view.student), teacher=view.teacher and fields(view.teacher)
  )
