"""`augdistill predict --http`: a file's answers, to many who ask at once."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import importlib.util
import json
import random
import re
import signal
import socket
import threading
import urllib.request

import pytest
from starlette.testclient import TestClient

from augdistill.cli.labelling import labeller, server_model
from augdistill.cli.serving import make_app
from augdistill.cli.trained import Trained
from augdistill.cli.waiting import answering
from augdistill.evaluation.predict import logits_of
from augdistill.types import TaskKind
from tests.cli.tiny import LABELS, examples, ok, run, start

# Of all lengths, up to more tokens than the tiny model reads.
TEXTS = [
  " ".join([text] * (1 + i % 5)) + f" {i}"
  for i, (text, _) in enumerate(examples(240))
]


@pytest.fixture(scope="module")
def trained(teacher):
  # Texts of several lengths, so that there are several shapes.
  its = Trained.load(str(teacher))
  return dataclasses.replace(
    its, served=dataclasses.replace(its.served, max_length=32)
  )


@contextlib.contextmanager
def client_of(trained, limit=1024, model=None):
  with answering(model or server_model(trained), limit) as waiting:
    app = make_app(waiting.ask, trained, "the/run", limit)
    with TestClient(app, raise_server_exceptions=False) as client:
      yield client


@pytest.fixture(scope="module")
def client(trained):
  with client_of(trained) as client:
    yield client


@pytest.fixture(scope="module")
def expected(trained):
  """Text -> what `predict` says of it."""
  rows = labeller(trained)([(text,) for text in TEXTS])
  return {row["sentence"]: answer_in(row) for row in rows}


def answer_in(row):
  return {key: row[key] for key in ("prediction", "probabilities")}


def ask(client, texts):
  return client.post("/predict", json={"texts": texts})


def same(ours, theirs):
  for one, other in zip(ours, theirs, strict=True):
    assert one.keys() == other.keys()
    assert one["prediction"] == other["prediction"]
    # Sums of floats in batches of another shape, rounded to six digits.
    assert one["probabilities"] == pytest.approx(
      other["probabilities"], abs=2e-6
    )


def answered(response, texts, expected):
  assert response.status_code == 200, response.text
  assert response.headers["content-type"] == "application/json"
  same(response.json()["predictions"], [expected[text] for text in texts])


class Gated:
  """A run's model that waits at a gate, and fails where it is told to."""

  def __init__(self, trained):
    its = server_model(trained)
    self.open, self.entered = threading.Event(), threading.Event()
    self.open.set()
    self.failing = False

    def answer(rows, shape):
      self.entered.set()
      assert self.open.wait(20)
      if self.failing and rows:
        raise RuntimeError("out of memory")
      return its.answer(rows, shape)

    self.model = dataclasses.replace(its, answer=answer)


@pytest.fixture
def gated(trained):
  gated = Gated(trained)
  yield gated
  gated.open.set()


# --- the answers -------------------------------------------------------------


def test_answers_are_those_of_predict(teacher):
  trained, texts = Trained.load(str(teacher)), TEXTS[:20]
  lines = "\n".join(texts).encode()
  done = ok("predict", f"--run={teacher}", "--input=-", stdin=lines)
  rows = [json.loads(line) for line in done.out.splitlines()]
  with client_of(trained) as client:
    response = ask(client, texts)
  assert list(response.json()) == ["predictions"]
  same(response.json()["predictions"], map(answer_in, rows))


def test_many_at_once_get_each_its_own_answer_and_nothing_is_compiled(
  client, expected
):
  draw = random.Random(0)
  asked = [draw.sample(TEXTS, draw.choice((1, 1, 2, 5, 17))) for _ in TEXTS]
  programs = logits_of._cache_size()
  with concurrent.futures.ThreadPoolExecutor(24) as pool:
    responses = list(pool.map(lambda texts: ask(client, texts), asked))
  assert len(responses) >= 200
  for response, texts in zip(responses, asked, strict=True):
    answered(response, texts, expected)
  assert logits_of._cache_size() == programs


def test_under_overload_some_are_told_to_come_again_and_the_rest_are_right(
  trained, expected, gated
):
  asked = [TEXTS[i : i + 1 + i % 2] for i in range(60)]
  with (
    client_of(trained, limit=8, model=gated.model) as client,
    concurrent.futures.ThreadPoolExecutor(len(asked)) as pool,
  ):
    gated.open.clear()
    futures = [pool.submit(ask, client, texts) for texts in asked]
    refused = 0
    for future in concurrent.futures.as_completed(futures):
      # As soon as anybody is refused the queue has been full.
      gated.open.set()
      refused += future.result().status_code == 503
    assert 0 < refused < len(asked)
    for future, texts in zip(futures, asked, strict=True):
      response = future.result()
      if response.status_code == 503:
        assert response.headers["retry-after"] == "1"
        assert "the server is busy" in response.json()["error"]
      else:
        answered(response, texts, expected)
    answered(ask(client, TEXTS[:8]), TEXTS[:8], expected)
    # More than can ever wait is another mistake.
    assert ask(client, TEXTS[:9]).status_code == 413


def test_after_a_request_that_failed_the_server_goes_on(
  trained, expected, gated
):
  with client_of(trained, model=gated.model) as client:
    gated.failing = True
    response = ask(client, TEXTS[:3])
    assert response.status_code == 500
    assert "the model failed on these texts" in response.json()["error"]
    gated.failing = False
    answered(ask(client, TEXTS[:3]), TEXTS[:3], expected)


def test_what_is_not_a_number_is_a_failure(trained, gated):
  nan = {"prediction": "app", "probabilities": {"app": float("nan")}}
  model = dataclasses.replace(
    gated.model, answer=lambda rows, shape: [nan for _ in rows]
  )
  with client_of(trained, model=model) as client:
    assert ask(client, ["a"]).status_code == 500


def test_pairs_are_asked_as_pairs(trained):
  pairs = dataclasses.replace(trained, pair=True)
  asked = [[TEXTS[i], TEXTS[i + 1]] for i in range(4)]
  with client_of(pairs) as client:
    response = ask(client, asked)
    wrong = ask(client, [asked[0], "one"])
  rows = labeller(pairs)([tuple(pair) for pair in asked])
  same(response.json()["predictions"], map(answer_in, rows))
  assert wrong.status_code == 422
  assert "texts[1] must be a pair of texts" in wrong.json()["error"]


def test_a_regression_has_values_and_no_probabilities(trained):
  task = dataclasses.replace(
    trained.served.task, kind=TaskKind.REGRESSION, label_names=()
  )
  model = server_model(
    dataclasses.replace(
      trained, served=dataclasses.replace(trained.served, task=task)
    )
  )
  (answer,) = model.answer(model.encode([("a",)]), model.shapes[0])
  assert list(answer) == ["prediction"]
  assert isinstance(answer["prediction"], float)


# --- what is asked wrongly ---------------------------------------------------


def test_health_says_what_the_run_is(client):
  response = client.get("/health")
  assert response.status_code == 200
  assert response.json() == {
    "run": "the/run",
    "kind": "classes",
    "label_names": list(LABELS),
    "pair": False,
    "max_length": 32,
  }


@pytest.mark.parametrize(
  "method, path, status",
  [
    ("GET", "/", 404),
    ("POST", "/predict/", 404),
    ("POST", "/nothing", 404),
    ("GET", "/predict", 405),
    ("PUT", "/predict", 405),
    ("POST", "/health", 405),
  ],
)
def test_another_path_or_method_is_refused_in_json(
  client, method, path, status
):
  response = client.request(method, path, follow_redirects=False)
  assert response.status_code == status
  assert list(response.json()) == ["error"]
  assert path in response.json()["error"]
  assert ("allow" in response.headers) == (status == 405)


def test_what_is_wrong_in_a_body_is_refused_in_json(client):
  for body, status in ((b"{", 400), (b'{"texts": 1}', 422)):
    response = client.post("/predict", content=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
  assert ask(client, []).json() == {"predictions": []}


def test_a_body_that_is_too_large_is_refused_however_it_comes(client):
  part = b" " * 2**20
  whole = client.post("/predict", content=part * 5)
  streamed = client.post("/predict", content=(part for _ in range(5)))
  endless = client.post("/predict", content=(part for _ in range(100)))
  for response in (whole, streamed, endless):
    assert response.status_code == 413
    assert "at most 4,194,304 bytes" in response.json()["error"]
  body = json.dumps({"texts": ["a"]}).encode() + part
  assert client.post("/predict", content=body).status_code == 200


def test_a_bug_is_an_answer_in_json(trained):
  def ask_wrongly(texts):
    raise KeyError("bug")

  app = make_app(ask_wrongly, trained, "run", 8)
  client = TestClient(app, raise_server_exceptions=False)
  response = ask(client, ["a"])
  assert response.status_code == 500
  assert response.json() == {"error": "the server failed; its log says how"}


# --- the command -------------------------------------------------------------


@pytest.mark.parametrize(
  "flags, said",
  [
    ("--http=8000 --input=-", "--input: not allowed with argument --http"),
    ("--http=8000 --glue_test=rte", "--glue_test: not allowed with argument"),
    ("--http=8000 --output=x", "--output does not go with --http"),
    ("--http=8000 --text_column=x", "--text_column does not go with --http"),
    ("--http=8000 --max_waiting=0", "--max_waiting must be at least 1, got 0"),
    ("--input=- --host=::1", "--host only goes with --http"),
    ("--http=65536", "must be a port from 0 to 65535, got '65536'"),
    ("--http=-1", "must be a port from 0 to 65535, got '-1'"),
    ("--http=0 --host=no.invalid", "--host no.invalid"),
    ("--http=0", "a run's directory must exist"),
  ],
)
def test_what_is_wrong_with_the_command_is_said_before_it_serves(flags, said):
  done = run("predict", "--run=missing", *flags.split())
  assert done.code == 2
  assert said in done.err
  assert done.err.count("\n") == 1


def test_a_port_in_use_is_said_before_the_run_is_read():
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    done = run("predict", "--run=missing", f"--http={port}")
  assert done.code == 2
  assert f"got {port} at --host 127.0.0.1: the port is in use" in done.err


def test_without_its_packages_the_command_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  done = run("predict", "--run=missing", "--http=0")
  assert done.code == 2
  assert "pip install 'augdistill[serve]'" in done.err


def test_signals_end_the_server_when_what_waits_is_answered(teacher):
  texts = TEXTS * 2
  process = start("predict", f"--run={teacher}", "--http=0")
  try:
    url = re.search(r"http://(\S+)/predict", process.stdout.readline())[1]
    with urllib.request.urlopen(f"http://{url}/health", timeout=20) as response:
      assert json.load(response)["run"] == str(teacher)
    connection = http.client.HTTPConnection(url, timeout=20)
    body = json.dumps({"texts": texts})
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(body)))
    # The server has begun to read when it asks for the rest.
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert b"100 Continue" in connection.sock.recv(1024)
    process.send_signal(signal.SIGTERM)
    connection.send(body.encode())
    response = connection.getresponse()
    assert response.status == 200
    assert len(json.load(response)["predictions"]) == len(texts)
    out, err = process.communicate(timeout=30)
  finally:
    process.kill()
  assert (process.returncode, out, err) == (0, "", "")
