"""The recipes of the papers: what the names in a method stand for.

A method is a base, `ft` (labels alone) or `kd` (labels and teacher), and
views, in the grammar of `augdistill.augment.grammar`.
A recipe says how its view is made and with which terms it enters the loss,
by role (`augdistill.losses.kinds.roles`): "label" for the comparison with the
label, "teacher" for that with the teacher, and a few more.

References:
  Wang et al. 2023, AugPro, arXiv:2210.11768: equations 4, 6 and 7, L_MixUp
  and L_FGSM of section 4.2, and table 5 (fine-tuning keeps labels).
"""

import dataclasses
from collections.abc import Callable

from augdistill.augment.adversarial import perturb_at_random, perturb_by_sign
from augdistill.augment.ascent import (
  ascend_freely,
  ascend_from_noise,
  ascend_in_ball,
)
from augdistill.augment.batch_mixing import mix_batch
from augdistill.augment.copies import with_original, without_original
from augdistill.augment.edits import edit_tokens
from augdistill.augment.embedding_pieces import mix_embedding_pieces
from augdistill.augment.grammar import Call, call_factory, parse, split_methods
from augdistill.augment.hidden_mixing import (
  mix_hidden,
  mix_pooled,
  mix_pooled_per_dimension,
)
from augdistill.augment.mixing import mix_embeddings
from augdistill.augment.projection import project_to_tokens, projected
from augdistill.augment.replacement import (
  replace_at_random,
  replace_by_neighbours,
)
from augdistill.augment.rewriting import take_rewrites
from augdistill.augment.token_mixing import mix_pieces, mix_spans, mix_tokens
from augdistill.types import ViewMaker

__all__ = [
  "BASES",
  "COMBINATIONS",
  "RECIPES",
  "Call",
  "Recipe",
  "augpro_fgsm",
  "augpro_mix",
  "call_factory",
  "parse",
  "split_methods",
  "tinybert",
  "written_out",
]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a name in a method stands for.

  Attributes:
    make: factory of the view's maker; its parameters are the term's keys.
    with_teacher: roles of its terms under `kd`.
    summary: one line: what it does, paper and equation.
    with_label: roles of its terms under `ft`.
    reweight: how its copies share their weight, unless the method says.
  """

  make: Callable[..., ViewMaker]
  with_teacher: tuple[str, ...]
  summary: str
  with_label: tuple[str, ...] = ("label",)
  reweight: str = "mean"


def augpro_mix(lam: float = 0.5, alpha: float | None = None) -> ViewMaker:
  """AugPro-Mix: `mix_embeddings`, projected. Arguments as there."""
  return project_to_tokens(mix_embeddings(lam, alpha))


def augpro_fgsm(
  delta: float = 2.0, direction: str = "ascent", relative: bool = True
) -> ViewMaker:
  """AugPro-FGSM: `perturb_by_sign`, projected. Arguments as there."""
  return project_to_tokens(perturb_by_sign(delta, direction, relative))


def tinybert(rate: float = 0.4, k: int = 15, exact: bool = False) -> ViewMaker:
  """TinyBERT's rate of `replace_by_neighbours`. Arguments as there."""
  return replace_by_neighbours(rate, k, exact)


RECIPES: dict[str, Recipe] = {
  "mixup": Recipe(
    mix_embeddings,
    ("label", "teacher"),
    "MixUp of word embeddings and labels (AugPro, eq. 1 and L_MixUp)",
  ),
  "fgsm": Recipe(
    perturb_by_sign,
    ("teacher",),
    "one signed gradient step on embeddings (AugPro, eq. 2 and L_FGSM)",
  ),
  "augpro_mix": Recipe(
    augpro_mix,
    ("teacher",),
    "MixUp projected to the nearest tokens (AugPro, eq. 5 and 6)",
  ),
  "augpro_fgsm": Recipe(
    augpro_fgsm,
    ("teacher",),
    "FGSM projected to the nearest tokens (AugPro, eq. 5 and 7)",
  ),
  "tmix": Recipe(
    mix_hidden,
    ("label", "teacher"),
    "MixUp of hidden states between layers (TMix; AugPro, appendix C)",
  ),
  "pooled_mixup": Recipe(
    mix_pooled,
    ("label", "teacher"),
    "MixUp of the vectors that the head reads (BatchMixUp, table 1)",
  ),
  "nonlinear_mixup": Recipe(
    mix_pooled_per_dimension,
    ("label", "teacher"),
    "pooled_mixup with a lambda per dimension (BatchMixUp, tab. 1, simplified)",
  ),
  "batch_mixup": Recipe(
    mix_batch,
    ("dot_product",),
    "n points from the whole batch, dot-product loss (BatchMixUp, eq. 3, 4)",
    ("dot_product",),
  ),
  "mmel_hard": Recipe(
    with_original,
    ("label_or_teacher",),
    "the example and its rewrites, the harder the heavier (MMEL, eq. 6, 7)",
    reweight="mmel",
  ),
  "mmel_soft": Recipe(
    without_original,
    ("consistency",),
    "rewrites against the student's own answer to x (MMEL, eq. 8, 9)",
    ("consistency",),
    reweight="mmel",
  ),
  "token_mix": Recipe(
    mix_tokens,
    ("teacher",),
    "a random parent per position: the control of augpro_mix",
  ),
  "cutmix": Recipe(
    mix_spans,
    ("teacher",),
    "a span of the partner's tokens: CutMix in 1-D (FMix, section 2)",
  ),
  "fmix": Recipe(
    mix_pieces,
    ("teacher",),
    "pieces of the partner's tokens, by a smooth mask (FMix, eq. 1 to 3)",
  ),
  "fmix_embeddings": Recipe(
    mix_embedding_pieces,
    ("label", "teacher"),
    "FMix over positions and dimensions of embeddings (FMix, eq. 1 to 3)",
  ),
  "knn": Recipe(
    replace_by_neighbours,
    ("teacher",),
    "one token in ten becomes one of its 15 nearest (AugPro, appendix C.1)",
  ),
  "tinybert": Recipe(
    tinybert,
    ("teacher",),
    "knn at TinyBERT's rate, 0.4 (TinyBERT, algorithm 1)",
  ),
  "random": Recipe(
    replace_at_random,
    ("teacher",),
    "random tokens throughout: a control (AugPro, appendix D and table 7)",
  ),
  "eda": Recipe(
    edit_tokens,
    ("teacher",),
    "synonyms, insertions, swaps or deletions (EDA, section 2)",
  ),
  "rewrites": Recipe(
    take_rewrites,
    ("teacher",),
    "texts rewritten before training (MMEL, section 3.3)",
  ),
  "ad2": Recipe(
    ascend_in_ball,
    ("teacher",),
    "K steps away from the teacher in a ball (AD2, eq. 2 and algorithm 1)",
  ),
  "freelb": Recipe(
    ascend_freely,
    ("teacher",),
    "every point of a climb from a random start (FreeLB, algorithm 1)",
  ),
  "smart": Recipe(
    ascend_from_noise,
    ("smoothness",),
    "away from the student's own answer (SMART, eq. 2 and algorithm 1)",
    ("smoothness",),
  ),
  "noise": Recipe(
    perturb_at_random,
    ("teacher",),
    "a random direction of the same norm: the control of ad2",
  ),
  "projected": Recipe(
    projected,
    ("teacher",),
    "another view's nearest tokens (AugPro, eq. 5)",
  ),
}
BASES = {
  "ft": "fine-tuning: labels alone",
  "kd": "distillation: labels and the teacher (AugPro, eq. 4)",
}
# A name for a whole method, at the head of one. It stands for what won where
# it was measured (configs/methods/README.md), and may become another one: so
# runs keep what it stood for.
COMBINATIONS = {"best": "kd+tinybert+hidden_mse(on=all)"}


def written_out(method: str) -> str:
  """A method with the name of a combination at its head written out.

  Example:
    written_out("best+mixup")  # kd+tinybert+hidden_mse(on=all)+mixup
  """
  head, plus, rest = method.strip().partition("+")
  return COMBINATIONS.get(head, head) + plus + rest
