"""launch/tpu_worker.sh: what each host of a TPU does."""

import contextlib
import pathlib
import shutil
import subprocess
import time

import pytest

from tests.launch.scripts import LAUNCH, RECORD, Programs

SETUP = ("setup", "augdistill-1.whl", "store", "some/runs")
FOREVER = "while :; do sleep 0.1; done"


class Host(Programs):
  """A host to which the launcher has copied its files."""

  def __init__(self, folder):
    super().__init__(folder)
    self.here = folder / "augdistill"
    (self.here / "bucket").mkdir(parents=True)
    (self.here / "venv" / "bin").mkdir(parents=True)
    for name in ("tpu_worker.sh", "constraints.txt"):
      shutil.copy(LAUNCH / name, self.here)
    (self.here / "augdistill-1.whl").write_text("a wheel")

  def command(self, script, *words):
    return ["bash", str(self.here / script), *map(str, words)]

  def does(self, body):
    """Says what augdistill does."""
    path = self.here / "venv" / "bin" / "augdistill"
    path.write_text(RECORD + body)
    path.chmod(0o755)

  def worker(self, *words, **env):
    return self.run("tpu_worker.sh", *words, **env)


@pytest.fixture
def host(tmp_path):
  host = Host(tmp_path)
  host.does("echo it runs in $PWD")
  uv = "if [ $2 = venv ]; then mkdir -p ${5:?}/bin; fi"
  for name, body in (
    ("uv", uv),
    ("gcsfuse", ""),
    ("mountpoint", "false"),
    ("curl", "exit 1"),
    ("sudo", "exit 1"),
  ):
    host.add(name, body)
  return host


def told(done):
  """The exit code on the last line, which is the script's own."""
  line = done.out.splitlines()[-1]
  assert line.startswith(f"augdistill: exit code {done.code} on ")
  return done.code


def test_a_run_is_shown_and_its_exit_code_told(host):
  done = host.worker(
    "run", "1", "finetune", "--train", 'it\'s my "data".tsv', ""
  )
  assert told(done) == 0
  assert done.out.splitlines()[0] == f"it runs in {host.here}/bucket"
  assert host.calls() == [
    ["augdistill", "finetune", "--train", 'it\'s my "data".tsv', ""]
  ]


@pytest.mark.parametrize("code", [2, 75, 137])
def test_a_run_that_fails_has_its_exit_code(host, code):
  host.does(f"echo no; exit {code}")
  assert told(host.worker("run", "1", "finetune")) == code


def test_the_same_run_is_shown_again_and_not_started_again(host):
  host.does("echo once; exit 75")
  for _ in range(2):
    done = host.worker("run", "1", "finetune")
    assert told(done) == 75
    assert "once\n" in done.out
  assert len(host.calls()) == 1
  host.worker("run", "2", "finetune")
  assert len(host.calls()) == 2


@contextlib.contextmanager
def started(host, run, **env):
  with host.start("tpu_worker.sh", "run", run, "finetune", **env) as process:
    assert process.stdout.readline() == "it runs\n"
    yield process


def test_a_run_goes_on_when_the_connection_breaks(host):
  host.does("echo it runs; while [ ! -e end ]; do sleep 0.1; done; exit 3")
  with started(host, "1") as process:
    process.kill()
    process.stdout.close()
  with started(host, "1") as process:
    (host.here / "bucket" / "end").touch()
    out, _ = process.communicate(timeout=20)
  assert "exit code 3 on" in out
  assert len(host.calls()) == 1


def test_stop_lets_a_run_save(host):
  host.does(f"trap 'echo saved; exit 75' TERM; echo it runs; {FOREVER}")
  with started(host, "1") as process:
    assert host.worker("stop").code == 0
    out, _ = process.communicate(timeout=20)
  assert "saved\n" in out
  assert process.returncode == 75


def test_another_run_first_stops_the_one_that_is_there(host):
  host.does(f"trap 'echo saved; exit 75' TERM; echo it runs; {FOREVER}")
  with started(host, "1") as first, started(host, "2") as second:
    assert "saved\n" in first.communicate(timeout=20)[0]
    host.worker("stop")
    second.communicate(timeout=20)
  assert (first.returncode, second.returncode) == (75, 75)


def test_a_run_that_does_not_stop_is_ended(host):
  host.does(f"trap '' TERM; echo it runs; {FOREVER}")
  with started(host, "1") as process:
    begin = time.monotonic()
    host.worker("stop", STOP_SECONDS="1")
    out, _ = process.communicate(timeout=20)
  assert time.monotonic() - begin < 20
  assert process.returncode == 137
  assert "exit code 137" in out


def test_after_a_reboot_a_run_is_lost(host):
  directory = host.here / "runs" / "1"
  directory.mkdir(parents=True)
  (directory / "log").write_text("step 1\n")
  # The number may be that of another process by now.
  with subprocess.Popen(["sleep", "100"]) as other:
    (directory / "pid").write_text(f"{other.pid}\n")
    done = host.worker("run", "1", "finetune")
    other.kill()
  assert told(done) == 137
  assert done.out.startswith("step 1\n")
  assert host.calls() == []


def test_a_host_is_prepared_once(host):
  assert told(host.worker(*SETUP)) == 0
  venv, wheel, _, mount = host.calls()
  assert venv[:5] == ["uv", "--quiet", "venv", "--python", "3.11"]
  assert wheel[-2:] == [f"{host.here}/augdistill-1.whl", "jax[tpu]"]
  assert (
    wheel[wheel.index("--constraint") + 1] == f"{host.here}/constraints.txt"
  )
  assert mount[-4:] == [
    "--only-dir",
    "some/runs",
    "store",
    f"{host.here}/bucket",
  ]
  assert list((host.here / "bucket").iterdir()) == []
  host.add("mountpoint", "true")
  assert told(host.worker(*SETUP)) == 0
  assert [call[0] for call in host.calls()[4:]] == ["mountpoint"]
  # Another wheel is installed.
  (host.here / "augdistill-1.whl").write_text("another wheel")
  host.worker(*SETUP)
  assert [call[0] for call in host.calls()[5:]] == ["uv", "uv", "mountpoint"]


def test_the_whole_bucket_is_mounted_where_no_folder_is_named(host):
  host.worker(*SETUP[:-1], "")
  assert "--only-dir" not in host.calls()[-1]


def test_a_bucket_that_cannot_be_mounted_is_wrong_usage(host):
  host.add("gcsfuse", "echo no such bucket; exit 1")
  done = host.worker(*SETUP)
  assert told(done) == 2
  assert "gs://store cannot be mounted: no such bucket" in done.err


def test_a_bucket_that_cannot_be_written_to_is_wrong_usage(host):
  shutil.rmtree(host.here / "bucket")
  # What is mounted there is not a directory any more.
  host.add("gcsfuse", 'rmdir "${@: -1}"')
  done = host.worker(*SETUP)
  assert told(done) == 2
  assert "gs://store cannot be written to" in done.err


def test_an_installation_that_fails_is_told_and_tried_again(host):
  host.add("uv", "exit 1")
  assert told(host.worker(*SETUP)) == 1
  assert told(host.worker(*SETUP)) == 1
  assert [call[0] for call in host.calls()] == ["uv", "uv"]


def test_what_is_not_a_verb_shows_what_there_is(host):
  done = host.worker("walk")
  assert done.code == 2
  assert "tpu_worker.sh run ID COMMAND" in done.err
  assert pathlib.Path(host.here / "runs").exists() is False
