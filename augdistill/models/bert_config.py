"""The shape of a model of the BERT family."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

ACTIVATIONS = {
  "gelu": lambda x: nn.gelu(x, approximate=False),
  "gelu_new": nn.gelu,
  "relu": nn.relu,
  "tanh": jnp.tanh,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """The shape of a model of the BERT family.

  Attributes:
    vocab_size: V, rows of the embedding table.
    num_outputs: C, what the head gives.
    emb_dim: D.
    mlp_dim: width of the MLP.
    num_layers: N.
    num_heads: H, which divides D.
    num_positions: rows of the table of positions.
    first_position: the row of the first position; RoBERTa's is 2.
    num_segments: texts that are told apart; 1: all are of one row, RoBERTa's;
      0: no table, DistilBERT's.
    separator_id: the token behind each text; tokens after the first one are
      of the second text.
    activation: of the MLP: "gelu", "gelu_new" (tanh form) or "relu".
    pooler: of the dense layer on the first position: "tanh" (BERT, RoBERTa),
      "relu" (DistilBERT) or "gelu" (ELECTRA).
    epsilon: of the norms.
    dropout_rate: share of activations dropped.
    dtype: of activations, "float32" or "bfloat16"; parameters are float32.
    remat: whether the backward pass computes the inside of each layer again,
      and does not keep it: less memory, a third more time, the same numbers.
  """

  vocab_size: int
  num_outputs: int
  emb_dim: int
  mlp_dim: int
  num_layers: int
  num_heads: int
  num_positions: int = 512
  first_position: int = 0
  num_segments: int = 2
  separator_id: int = 102
  activation: str = "gelu"
  pooler: str = "tanh"
  epsilon: float = 1e-12
  dropout_rate: float = 0.1
  dtype: str = "float32"
  remat: bool = False

  def __post_init__(self):
    for name in ("vocab_size", "num_outputs", "emb_dim", "mlp_dim"):
      _check_count(name, getattr(self, name))
    for name in ("num_layers", "num_heads", "num_positions"):
      _check_count(name, getattr(self, name))
    for name in ("first_position", "num_segments"):
      _check_count(name, getattr(self, name), least=0)
    if self.first_position >= self.num_positions:
      raise ValueError(
        f"first_position must be one of the {self.num_positions} positions, "
        f"got {self.first_position}"
      )
    if not 0.0 <= self.epsilon < 1.0:
      raise ValueError(f"epsilon must be in [0, 1), got {self.epsilon}")
    if self.emb_dim % self.num_heads:
      raise ValueError(
        f"num_heads must divide emb_dim, got {self.num_heads} and "
        f"{self.emb_dim}"
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(
        f"dropout_rate must be in [0, 1), got {self.dropout_rate}"
      )
    for name, choices in (
      ("activation", tuple(ACTIVATIONS)),
      ("pooler", tuple(ACTIVATIONS)),
      ("dtype", ("float32", "bfloat16")),
    ):
      value = getattr(self, name)
      if value not in choices:
        raise ValueError(
          f"{name} must be one of {', '.join(choices)}, got {value!r}"
        )

  @property
  def max_length(self) -> int:
    """The most tokens that a text may have."""
    return self.num_positions - self.first_position


def _check_count(name: str, value: int, least: int = 1) -> None:
  if not isinstance(value, int) or value < least:
    wanted = "a positive int" if least else "an int that is not negative"
    raise ValueError(f"{name} must be {wanted}, got {value!r}")
