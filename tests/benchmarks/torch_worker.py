"""PyTorch's side of the comparison: `python -m tests.benchmarks.torch_worker`.

It imports no JAX.
"""

import functools
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

from tests.benchmarks import worker
from tests.benchmarks.torch_distiller import (
  Distiller,
  Words,
  batches,
  padded,
)
from tests.benchmarks.torch_models import EncT5


class Side:
  """What the worker answers; see `tests.benchmarks.our_worker.Side`."""

  def __init__(self, folder: str):
    self.folder = pathlib.Path(folder)
    self.work = json.loads((self.folder / "work.json").read_text())
    with np.load(self.folder / "rows.npz") as rows:
      ends = rows["offsets"][1:-1]
      tokens = np.split(rows["tokens"].astype(np.int64), ends)
      labels = rows["label"].argmax(-1).tolist()
      self.texts = [*zip(map(torch.from_numpy, tokens), labels, strict=True)]
      self.words = Words(
        torch.from_numpy(rows["producible"].nonzero()[0]),
        torch.from_numpy(rows["protected"]),
      )

  def model(self, who: str) -> EncT5:
    model = EncT5(self.work[who])
    weights = load_file(self.folder / f"{who}.safetensors")
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    model.load_state_dict(weights)
    return model

  def distiller(self, compiled: bool = False) -> Distiller:
    models = self.model("student"), self.model("teacher")
    return Distiller(*models, self.words, compiled)

  @functools.cache  # noqa: B019  (the process ends with it)
  def training(self, method: str, length: int | None, compiled: bool):
    """(batches, distiller) of a training that goes on."""
    size = self.work["batch_size"]
    return batches(self.texts, size, length), self.distiller(compiled)

  def train(
    self, method: str, length: int | None, steps: int, compiled: bool = False
  ) -> None:
    """Takes so many more steps of a training."""
    rows, distiller = self.training(method, length, compiled)
    for _ in range(steps):
      distiller.step(next(rows), method)

  def answers(self, method: str, seen: list[dict]) -> dict:
    """What `our_worker.Side.answers` says, of the same batches."""
    distiller = self.distiller()
    student, teacher = distiller.student.eval(), distiller.teacher.eval()
    said = {"student": [], "teacher": [], "losses": []}
    for batch in seen:
      chosen = [self.texts[row] for row in batch["rows"]]
      rows = padded(chosen, batch["length"])
      if not said["losses"]:
        with torch.no_grad():
          for who, model in (("student", student), ("teacher", teacher)):
            logits = model(model.embed(rows.tokens), rows.mask)
            said[who] = logits.tolist()
      partner = torch.tensor(batch["partner"])
      said["losses"].append(float(distiller.step(rows, method, partner)))
    return said


def main() -> None:
  torch.set_num_threads(worker.stay(sys.argv[2]))
  torch.manual_seed(0)
  side = Side(sys.argv[1])
  worker.serve(
    {
      "train": side.train,
      "answers": side.answers,
      "threads": torch.get_num_threads,
    }
  )


if __name__ == "__main__":
  main()
