"""Binary masks: which of a row's entries another text may have.

Every function here is of one row, whose free entries lie where they will, and
is mapped over rows with `jax.vmap`, a key per row. Counts are shares of the
row's own free entries, and places are ranks among them, so the padded length
L moves nothing but `grey_image`, which is drawn for the whole of its shape.

References:
  Harris et al. 2020, FMix, arXiv:2002.12047, equations 1 to 3; Yun et al. 2019,
  CutMix, arXiv:1905.04899.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int, Key, Num

from augdistill import prng

# Keys up to so many are ordered by comparing each with each: on CPUs that takes
# 1/2 to 1/7 of XLA's sort, and more than it where there are twice as many.
_COMPARED = 128


def round_at_random(
  draws: Float[Array, "*shape"], numbers: Float[Array, "*shape"]
) -> Int[Array, "*shape"]:
  """One of the two whole numbers around each, which is their mean.

  Args:
    draws: f32[...] in [0, 1), uniform.
    numbers: f32[...].
  """
  whole = jnp.floor(numbers)
  return whole.astype(jnp.int32) + (draws < numbers - whole).astype(jnp.int32)


def draw_count(
  key: Key[Array, ""], free: Bool[Array, "*shape"], share: Float[Array, ""]
) -> Int[Array, ""]:
  """How many of n free entries a share is: share n, rounded at random."""
  number = share * jnp.sum(free).astype(jnp.float32)
  return round_at_random(jax.random.uniform(key), number)


def largest(
  values: Float[Array, "*shape"],
  free: Bool[Array, "*shape"],
  count: Int[Array, ""],
) -> Bool[Array, "*shape"]:
  """The `count` largest of the free entries; all of them if there are fewer.

  Args:
    values: f[...], finite.
    free: bool[...], where an entry may be taken.
    count: i32[], how many are taken.

  Returns:
    bool[...]; among equals the earlier entries are taken.
  """
  values, flat = jnp.where(free, values, -jnp.inf).ravel(), free.ravel()
  if values.size <= _COMPARED:
    return (flat & (_ranks(-values) < count)).reshape(free.shape)
  count = jnp.minimum(count, jnp.sum(flat))
  # One sort of the values alone finds the smallest that is taken.
  last = jnp.clip(values.size - count, 0, values.size - 1)
  threshold = jnp.take(jnp.sort(values), last)
  above = flat & (values > threshold)
  level = flat & (values == threshold)
  rest = count - jnp.sum(above)
  return (above | (level & (jnp.cumsum(level) <= rest))).reshape(free.shape)


def _ranks(keys: Num[Array, "L"]) -> Int[Array, "L"]:
  """How many keys are smaller than each, or equal and earlier."""
  index = jnp.arange(keys.size, dtype=jnp.int32)
  before = jnp.where(
    index[:, None] < index[None],
    keys[:, None] <= keys[None],
    keys[:, None] < keys[None],
  )
  return jnp.sum(before, axis=0, dtype=jnp.int32)


def take_at_random(
  key: Key[Array, ""], free: Bool[Array, "*shape"], share: Float[Array, ""]
) -> Bool[Array, "*shape"]:
  """Every free entry with chance `share`, independently."""
  return free & (jax.random.uniform(key, free.shape) >= 1 - share)


def take_spans(
  key: Key[Array, ""], free: Bool[Array, "L"], share: Float[Array, ""]
) -> Bool[Array, "L"]:
  """One span of the free positions: CutMix in one dimension.

  The span holds `share` of them, to one position, and begins at any place
  where it fits, each as likely. It leaps over what is not free.

  Args:
    key: of this row.
    free: bool[L], where a position may be taken.
    share: f32[] in [0, 1].

  Returns:
    bool[L].
  """
  count = draw_count(prng.stream(key, "count"), free, share)
  starts = jnp.sum(free) - count + 1
  start = jax.random.randint(prng.stream(key, "start"), (), 0, starts)
  rank = jnp.cumsum(free) - 1
  return free & (rank >= start) & (rank < start + count)


def take_low_frequencies(
  key: Key[Array, ""],
  free: Bool[Array, "*shape"],
  share: Float[Array, ""],
  decay: float,
) -> Bool[Array, "*shape"]:
  """FMix's mask: the free entries where a smooth random image is largest.

    m = 1 at the share n largest of the n free entries of G    (equation 3)

  Args:
    key: of this row.
    free: bool[...] of one axis or more, where an entry may be taken.
    share: f32[] in [0, 1], of the free entries, kept to one entry.
    decay: delta, as in `grey_image`.

  Returns:
    bool[...]. G and -G are equally likely, so it does not matter which of two
    texts has the largest entries.
  """
  count = draw_count(prng.stream(key, "count"), free, share)
  image = grey_image(prng.stream(key, "image"), free.shape, decay)
  return largest(image, free, count)


def grey_image(
  key: Key[Array, ""], shape: tuple[int, ...], decay: float
) -> Float[Array, "*shape"]:
  """A random image of any number of axes, low frequencies prevailing.

    G = Re(F^-1(Z)),  Re Z, Im Z ~ N(0, 1) / f^decay    (equations 1 and 2)

  Args:
    key: of this image.
    shape: of the image; an axis of padded length gives the image of that
      length, so this draw, unlike the others, depends on it.
    decay: delta >= 0; the larger, the larger are the patches.

  Returns:
    f32[...], in a unit of its own: f is in units of the lowest frequency of
    the longest axis.
  """
  parts = [
    jax.random.normal(prng.stream(key, part), shape)
    for part in ("real", "imaginary")
  ]
  return low_pass(jax.lax.complex(*parts), decay)


def low_pass(
  spectrum: Complex[Array, "*shape"], decay: float
) -> Float[Array, "*shape"]:
  """Re(F^-1(spectrum / f^decay)), f as in `grey_image`.

  The constant bin, whose frequency is 0, counts as the lowest one.
  """
  squares = jnp.zeros(spectrum.shape)
  for axis, size in enumerate(spectrum.shape):
    others = [i for i in range(spectrum.ndim) if i != axis]
    squares += jnp.expand_dims(jnp.square(jnp.fft.fftfreq(size)), others)
  frequency = jnp.maximum(jnp.sqrt(squares) * max(spectrum.shape), 1.0)
  scale = (frequency**-decay).astype(spectrum.dtype)
  return jnp.real(_inverse_dft(spectrum * scale))


def _inverse_dft(values: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
  """The inverse discrete Fourier transform along every axis.

  As matmuls: XLA gathers all rows of a sharded batch for its own FFT.
  """
  for axis, size in enumerate(values.shape):
    index = jnp.arange(size, dtype=jnp.int32)
    turns = (index[:, None] * index[None] % size).astype(jnp.float32) / size
    angle = 2 * jnp.pi * turns
    wave = jax.lax.complex(jnp.cos(angle), jnp.sin(angle)) / size
    values = jnp.tensordot(
      jnp.moveaxis(values, axis, -1), wave, 1, precision="highest"
    )
    values = jnp.moveaxis(values, -1, axis)
  return values


def check_decay(decay: float) -> None:
  """Raises ValueError unless `decay` is a number >= 0."""
  if not 0 <= decay < math.inf:
    raise ValueError(f"decay must be a number >= 0, got {decay}")
