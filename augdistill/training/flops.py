"""How many floating-point operations a program takes, and which part of it.

Counted on the jaxpr, before a compiler has seen it: a compiler's own count
takes the body of a loop once, however often it runs. Only products of matrices
and convolutions count, as is usual for the utilisation of a device; what goes
element by element is counted apart.

References:
  Chowdhery et al. 2022, PaLM, appendix B, arXiv:2204.02311 (utilisation).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

# A part of a step is named by a scope with a colon, "VIEW:WHAT", so that it
# stands out among the names of modules.
_PART = re.compile(r"[^/()]*:[^/()]*")


def part(view: str, what: str) -> Any:
  """A context whose operations belong to a part of the step.

  Args:
    view: whose they are.
    what: what is done there, a word.
  """
  return jax.named_scope(f"{view}:{what}")


class Costs(NamedTuple):
  """What the products of a program cost.

  Attributes:
    by_part: name of the part -> FLOPs, "" for what belongs to none.
    by_dtype: type of what is multiplied -> FLOPs, the same ones.
    moved: bytes of all that they read and write, as if everything between two
      products was done on the way and nothing was kept between them.
  """

  by_part: Counter[str]
  by_dtype: Counter[str]
  moved: int


def count_flops(function: Callable, *args: Any) -> Counter[str]:
  """The operations of a function, by part; nothing is computed.

  Args:
    function: traceable by JAX.
    *args: its arguments, or their `jax.ShapeDtypeStruct`.

  Returns:
    `Costs.by_part`, as of `costs_of`.
  """
  return costs_of(jax.make_jaxpr(function)(*args)).by_part


def costs_of(traced: Any) -> Costs:
  """What the products of a program cost; nothing is computed.

  A product of [m, k] and [k, n] is 2 m k n operations; a `while` loop, whose
  turns nobody knows, counts as one; of the branches of a condition, the
  costliest counts, and of those that are for one kind of device each, the
  first, which does the same as the others. What nobody reads does not count,
  since a compiler leaves it out.

  Args:
    traced: the program, a closed jaxpr.
  """
  by_part: Counter[str] = Counter()
  by_dtype: Counter[str] = Counter()
  moved = 0
  read = [True] * len(traced.jaxpr.outvars)
  jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, read)
  for (scope, what), cost in _of_jaxpr(jaxpr, "").items():
    if what == _MOVED:
      moved += cost
    else:
      by_part[scope] += cost
      by_dtype[what] += cost
  return Costs(by_part, by_dtype, moved)


def mean_of(costs: Iterable[tuple[float, Costs]]) -> Costs:
  """What programs cost on average.

  Args:
    costs: how often each of them runs, as a share of all, and what it costs.
  """
  parts: Counter[str] = Counter()
  dtypes: Counter[str] = Counter()
  moved = 0.0
  for share, its in costs:
    parts.update({name: share * n for name, n in its.by_part.items()})
    dtypes.update({name: share * n for name, n in its.by_dtype.items()})
    moved += share * its.moved
  return Costs(_rounded(parts), _rounded(dtypes), round(moved))


def _rounded(counts: Mapping[str, float]) -> Counter[str]:
  return Counter({name: round(n) for name, n in counts.items()})


def count_elementwise(function: Callable, *args: Any) -> int:
  """Operations of a function that go element by element; sums among them.

  Args:
    function: traceable by JAX.
    *args: its arguments, or their `jax.ShapeDtypeStruct`.

  Returns:
    One for each element that an operation on floats takes or makes, whichever
    are more.
  """
  return _elements(jax.make_jaxpr(function)(*args).jaxpr)


def _elements(jaxpr: Any) -> int:
  total = 0
  for eqn in jaxpr.eqns:
    subs = list(_sub_jaxprs(eqn))
    turns = eqn.params["length"] if eqn.primitive.name == "scan" else 1
    total += turns * sum(map(_elements, subs))
    arrays = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    floats = jnp.issubdtype(arrays[-1].dtype, jnp.floating)
    if not subs and floats and eqn.primitive.name not in _MOVES:
      total += max(math.prod(array.shape) for array in arrays)
  return total


def _of_jaxpr(jaxpr: Any, scope: str) -> Counter[tuple[str, str]]:
  """(part, type of the factors, or _MOVED) -> operations, or bytes."""
  total: Counter[tuple[str, str]] = Counter()
  for eqn in jaxpr.eqns:
    here = f"{scope}/{eqn.source_info.name_stack}"
    name = eqn.primitive.name
    if name in _FLOPS:
      arrays = [v.aval for v in (*eqn.invars, *eqn.outvars)]
      total[part_of(here), str(arrays[0].dtype)] += _FLOPS[name](eqn)
      total[part_of(here), _MOVED] += sum(map(bytes_of, arrays))
      continue
    inner = [_of_jaxpr(sub, here) for sub in _sub_jaxprs(eqn)]
    if name == "cond" and eqn.params.get("branches_platforms"):
      inner = inner[:1]
    elif name == "cond":
      inner = [max(inner, key=_flops_in)]
    for counts in inner:
      turns = eqn.params["length"] if name == "scan" else 1
      for key, cost in counts.items():
        total[key] += turns * cost
  return total


def _flops_in(counts: Counter[tuple[str, str]]) -> int:
  return sum(n for (_, what), n in counts.items() if what != _MOVED)


def bytes_of(array: Any) -> int:
  """Bytes of an array, or of the `jax.ShapeDtypeStruct` of one."""
  return math.prod(array.shape) * array.dtype.itemsize


def _sub_jaxprs(eqn: Any) -> Iterator[Any]:
  """The jaxprs that an equation runs: bodies, branches, calls."""
  for value in eqn.params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if hasattr(item, "eqns"):
        yield item
      elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
        yield item.jaxpr


def part_of(scope: str) -> str:
  """The outermost part of a scope; a derivative's is that of its function.

  So a view that pulls back through the clean batch pays for it.

  Args:
    scope: names of scopes apart by slashes, as JAX and XLA write them.

  Returns:
    "VIEW:WHAT", or "" for a scope of none.
  """
  found = _PART.search(scope)
  return found[0] if found else ""


def _dot_general(eqn: Any) -> int:
  (contracted, _), _ = eqn.params["dimension_numbers"]
  shape = eqn.invars[0].aval.shape
  depth = math.prod(shape[axis] for axis in contracted)
  return 2 * depth * math.prod(eqn.outvars[0].aval.shape)


def _conv(eqn: Any) -> int:
  kernel = eqn.invars[1].aval.shape
  out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
  depth = math.prod(kernel) // kernel[out_axis]
  return 2 * depth * math.prod(eqn.outvars[0].aval.shape)


_FLOPS = {"dot_general": _dot_general, "conv_general_dilated": _conv}
_MOVED = "bytes"
# They compute nothing.
_MOVES = (
  *("broadcast_in_dim", "reshape", "squeeze", "transpose", "copy", "slice"),
  *("convert_element_type", "concatenate", "gather", "iota", "select_n"),
)
