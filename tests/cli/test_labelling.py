"""Many texts, a file's or those that arrive: batches by length, in order."""

import argparse
import dataclasses
import io
import itertools
import os
import random
import threading

import pytest

from augdistill.cli import labelling, predict
from augdistill.cli.labelling import labeller, server_model
from augdistill.cli.trained import Trained


def test_a_file_is_labelled_in_few_shapes_and_answered_in_its_order(
  monkeypatch, teacher
):
  draw, whole = random.Random(0), labelling.predict
  texts = [(f"{i} " + "card " * draw.randrange(9),) for i in range(300)]
  shapes, trained = [], Trained.load(str(teacher))
  served = dataclasses.replace(trained.served, max_length=32)
  trained = dataclasses.replace(trained, served=served)
  model = server_model(trained)

  def watched(network, params, batches):
    batches = list(batches)
    shapes.extend(batch.tokens.shape for batch in batches)
    return whole(network, params, batches)

  monkeypatch.setattr(labelling, "predict", watched)
  monkeypatch.setattr(labelling, "_FILE_ROWS", (4, 32))
  rows = list(labeller(trained)(texts))
  assert [row["sentence"] for row in rows] == [text for (text,) in texts]
  assert [row["example_id"] for row in rows] == list(range(300))
  assert set(shapes) <= {(4, 16), (32, 16), (4, 32), (32, 32)}
  short = sum(len(row) <= 16 for row in model.encode(texts))
  assert 0 < short < 300
  # What is padded to 32 is what is longer than 16, and half a batch at most.
  assert sum(b for b, length in shapes if length == 32) <= 300 - short + 32
  # Each answer is that to its own text.
  for i in range(0, 300, 50):
    (tokens,) = model.encode([texts[i]])
    shape = next(s for s in model.shapes if s.length >= len(tokens))
    (alone,) = model.answer([tokens], shape)
    assert rows[i]["probabilities"] == pytest.approx(
      alone["probabilities"], abs=2e-6
    )
  assert list(labeller(trained)([])) == []


def test_a_line_is_answered_when_it_arrives(monkeypatch):
  reader, writer = os.pipe()
  with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as pipe:
    # Whoever waits for more sees an end, and fails.
    end = threading.Timer(10, pipe.close)
    end.start()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
    chunks = predict._chunks(argparse.Namespace(input="-"), False)
    pipe.write(b"one\nt")
    assert next(chunks) == [("one",)]
    pipe.write(b"wo\r\nthree\nfo")
    assert next(chunks) == [("two",), ("three",)]
    end.cancel()
    pipe.write(b"ur")
    pipe.close()
    assert list(chunks) == [[("four",)]]
    monkeypatch.undo()


def test_lines_that_are_there_are_taken_together():
  lines = [b"%d" % i for i in range(1000)]
  stream = io.BytesIO(b"\n".join(lines))
  assert [*itertools.chain(*predict._arriving_lines(stream))] == lines
  assert len(list(predict._arriving_lines(io.BytesIO(b"a\nb\n")))) == 1
