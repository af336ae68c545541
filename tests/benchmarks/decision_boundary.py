r"""AugPro's figure 2 as an SVG: a boundary that mixing shifts, projected back.

  python -m tests.benchmarks.decision_boundary configs/papers/boundary.svg

Four points are all the inputs there are; two of them are seen. The lines are
exact hard-margin SVMs, the projection is the package's own.
"""

import sys

import jax.numpy as jnp
import numpy as np

from augdistill.augment.nearest import nearest_tokens
from tests.reference import svm_example

SIZE, SCALE = 240, 36


def place(point):
  x, y = np.asarray(point, float) * SCALE
  return SIZE / 2 + x, SIZE / 2 - y


def dot(point, colour, filled, number):
  x, y = place(point)
  fill = colour if filled else "white"
  return (
    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" '
    f'stroke="{colour}" stroke-width="2"/>'
    f'<text x="{x:.1f}" y="{y - 11:.1f}" font-size="13" '
    f'text-anchor="middle">{number}</text>'
  )


def boundary(theta, b):
  """The line theta . x + b = 0, long enough to cross the panel."""
  foot = -b * theta / (theta @ theta)
  along = np.array([-theta[1], theta[0]]) / np.linalg.norm(theta)
  (x1, y1), (x2, y2) = place(foot - 9 * along), place(foot + 9 * along)
  return (
    f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
    'stroke="black" stroke-width="1.5"/>'
  )


def panel(index, title, solution, seen, extra=None):
  colours = {1.0: "#0b62a4", -1.0: "#c0392b"}
  parts = [boundary(*solution)]
  wrong = ~svm_example.correct(*solution)
  for i, (point, label) in enumerate(
    zip(svm_example.POINTS, svm_example.LABELS, strict=True)
  ):
    name = f"x{i + 1}" + (" (wrong)" if wrong[i] else "")
    parts.append(dot(point, colours[label], i in seen, name))
  if extra is not None:
    point, label = extra
    parts.append(dot(point, colours[float(label)], True, "mixed"))
  return (
    f'<svg x="{index * SIZE}" y="24" width="{SIZE}" height="{SIZE}">'
    f'<rect width="{SIZE}" height="{SIZE}" fill="none" stroke="#bbb"/>'
    f"{''.join(parts)}</svg>"
    f'<text x="{index * SIZE + 8}" y="16" font-size="14">{title}</text>'
  )


def figure():
  """The figure's text."""
  mixture, label = svm_example.mixture()
  seen = [0, 2]

  def trained_with(point, its_label):
    return svm_example.hard_margin(
      np.vstack([svm_example.POINTS[seen], point]),
      np.append(svm_example.LABELS[seen], its_label),
    )

  token, _ = nearest_tokens(
    jnp.asarray(mixture, jnp.float32),
    jnp.asarray(svm_example.POINTS, jnp.float32),
    jnp.ones(4, bool),
  )
  nearest = int(token)
  projected = trained_with(
    svm_example.POINTS[nearest], svm_example.LABELS[nearest]
  )
  panels = (
    panel(0, "all inputs", svm_example.solutions()["truth"], range(4)),
    panel(1, "MixUp", trained_with(mixture, label), seen, (mixture, label)),
    panel(2, f"projected: x{nearest + 1}", projected, {*seen, nearest}),
  )
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * SIZE}" '
    f'height="{SIZE + 24}" font-family="sans-serif">{"".join(panels)}</svg>\n'
  )


if __name__ == "__main__":
  with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write(figure())
