"""The comparison with PyTorch: what it refuses, and live where torch is."""

import io
import json
import sys

import numpy as np
import pytest

from augdistill.errors import RunError
from tests.benchmarks import torch_step, worker
from tests.benchmarks.turns import Missing

TINY = {
  "vocab_size": 24,
  "num_outputs": torch_step.NUM_OUTPUTS,
  "emb_dim": 8,
  "mlp_dim": 16,
  "num_layers": 1,
  "num_heads": 2,
  "head_dim": 4,
  "dropout_rate": 0.1,
}


class Fake:
  """A side that answers the same to everything."""

  def __init__(self, losses):
    self.said = {"seen": [], "student": [[0.5]], "teacher": [[2.0]]}
    self.said["losses"] = losses

  def ask(self, request, **arguments):
    del request, arguments
    return self.said


def test_other_work_is_not_timed():
  ours = Fake([3.0, 2.0])
  torch_step.check_same_work(ours, Fake([3.0, 2.00005]), "kd", 8)
  for others in ([3.0, 2.0002], [3.0, float("nan")]):
    with pytest.raises(RunError, match="their losses of kd differ"):
      torch_step.check_same_work(ours, Fake(others), "kd", 8)


def test_without_torch_it_says_how_to_get_it(monkeypatch):
  monkeypatch.setattr(torch_step.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(Missing, match="augdistill\\[bench\\]"):
    torch_step.measure(quick=True)


def test_made_up_texts_end_and_are_as_long_as_the_batch():
  rows, lexicon = torch_step.made_up(vocab_size=24, num_rows=16, length=8)
  assert rows.lengths.max() == 8 and rows.lengths.min() >= 4
  assert np.all(rows.tokens[rows.offsets[1:] - 1] == 1)
  assert np.all(lexicon.producible[rows.tokens] | (rows.tokens == 1))


def test_a_worker_answers_what_it_is_asked(monkeypatch, capsys):
  requests = [["double", {"x": 2}], ["double", {"x": 3}]]
  text = "\n".join(map(json.dumps, requests))
  monkeypatch.setattr(sys, "stdin", io.StringIO(text))

  def double(x):
    print("not an answer")
    return 2 * x

  worker.serve({"double": double})
  assert capsys.readouterr().out.split() == ["4", "6"]


def test_a_worker_that_ended_is_an_error(tmp_path):
  with (
    worker.workers(str(tmp_path), "tests.benchmarks.not_there") as (it,),
    pytest.raises(RuntimeError, match=r"not_there ended at .*double"),
  ):
    it.ask("double", x=2)


@pytest.mark.slow
@pytest.mark.parametrize("method", torch_step.METHODS)
def test_both_sides_do_the_same_work(method):
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  work = {"teacher": TINY | {"emb_dim": 16}, "student": TINY, "batch_size": 8}
  rows = torch_step.made_up(TINY["vocab_size"], num_rows=16, length=8)
  with torch_step.both_sides(work, *rows) as (ours, theirs):
    torch_step.check_same_work(ours, theirs, method, 8)
    for side in (ours, theirs):
      assert side.ask("train", method=method, length=8, steps=2) is None
