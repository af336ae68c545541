"""How many floating-point operations a program takes, and which part of it.

Counted on the jaxpr, before a compiler has seen it: a compiler's own count
takes the body of a loop once, however often it runs. Only products of matrices
and convolutions count, as is usual for the utilisation of a device.

References:
  Chowdhery et al. 2022, PaLM, appendix B, arXiv:2204.02311 (utilisation).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax

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


def count_flops(function: Callable, *args: Any) -> Counter[str]:
  """The operations of a function, by part; nothing is computed.

  Args:
    function: traceable by JAX.
    *args: its arguments, or their `jax.ShapeDtypeStruct`.

  Returns:
    Name of the part -> FLOPs, "" for what belongs to none. A product of
    [m, k] and [k, n] is 2 m k n; a `while` loop, whose turns nobody knows,
    counts as one; of the branches of a condition, the costliest counts.
  """
  return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr, "")


def _of_jaxpr(jaxpr: Any, scope: str) -> Counter[str]:
  total: Counter[str] = Counter()
  for eqn in jaxpr.eqns:
    here = f"{scope}/{eqn.source_info.name_stack}"
    name = eqn.primitive.name
    if name in _FLOPS:
      total[part_of(here)] += _FLOPS[name](eqn)
      continue
    inner = [_of_jaxpr(sub, here) for sub in _sub_jaxprs(eqn)]
    if name == "cond":
      inner = [max(inner, key=Counter.total)]
    for counts in inner:
      turns = eqn.params["length"] if name == "scan" else 1
      for key, flops in counts.items():
        total[key] += turns * flops
  return total


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
