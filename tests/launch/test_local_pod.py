"""launch/local_pod.sh: the processes of a pod on this machine."""

import os
import pathlib
import re
import shlex
import signal
import time

import pytest

from tests.cli.tiny import command
from tests.launch.scripts import Programs, parsed

# Takes the flags of augdistill; $I_DO says what process I does.
PROGRAM = """
while [ $# -gt 0 ]; do
  case $1 in
    --process_id) id=$2 ;;
    --coordinator) echo "at $2, $JAX_NUM_CPU_DEVICES devices" ;;
    --text) echo "text $2" ;;
  esac
  shift
done
echo "I am $id"
eval "does=\\${DOES_$id:-exit 0}"
eval "$does"
"""
HANG = "exec sleep 100"
FOREVER = "while :; do sleep 0.1; done"
KILLED = "kill -KILL $$"
ABORTED = "kill -ABRT $$"


@pytest.fixture
def programs(tmp_path):
  programs = Programs(tmp_path)
  programs.add("augdistill", PROGRAM)
  return programs


def pod(programs, *flags, n=2, **does):
  words = (n, 3, *flags, "--", "augdistill", "finetune")
  return programs.run("local_pod.sh", *words, **does)


def logs(done):
  return re.search(r"the logs of .* are in (.*)", done.err).group(1)


def test_all_processes_get_the_command_and_know_the_others(programs):
  done = programs.run(
    "local_pod.sh", 3, 2, "--", "augdistill", "finetune", "--train", "a 'b\" c"
  )
  assert done.code == 0, done.err
  calls = sorted(programs.calls())
  assert [call[:4] for call in calls] == 3 * [
    ["augdistill", "finetune", "--train", "a 'b\" c"]
  ]
  assert [call[-1] for call in calls] == ["0", "1", "2"]
  flags = {tuple(call[4:9]) for call in calls}
  ((name, place, number, count, index),) = flags
  assert (name, number, count, index) == (
    *("--coordinator", "--num_processes", "3", "--process_id"),
  )
  assert re.fullmatch(r"localhost:\d+", place)


def test_the_first_process_is_heard_and_each_has_a_log(programs):
  done = pod(programs)
  assert done.code == 0
  assert re.fullmatch(r"at localhost:\d+, 3 devices\nI am 0\n", done.out)
  for index in (0, 1):
    with open(f"{logs(done)}/run0/process{index}.log") as log:
      assert log.read().endswith(f"3 devices\nI am {index}\n")


@pytest.mark.parametrize(
  ("first", "second", "code"),
  [
    ("exit 75", "exit 75", 75),
    ("exit 2", "exit 2", 2),
    ("exit 1", "exit 1", 1),
    ("exit 0", KILLED, 75),
    ("exit 0", "exit 139", 1),
    # The first that ends decides; what the others say follows from it.
    ("sleep 1; exit 1", KILLED, 75),
    (f"sleep 1; {ABORTED}", "exit 1", 1),
    (f"sleep 1; {ABORTED}", KILLED, 75),
    ("sleep 1; exit 2", KILLED, 2),
  ],
)
def test_the_exit_codes_of_the_processes_come_to_one(
  programs, first, second, code
):
  assert pod(programs, DOES_0=first, DOES_1=second).code == code


@pytest.mark.parametrize(
  ("does", "said", "code"),
  [
    (KILLED, "process 1 was ended by SIGKILL (exit code 137)", 75),
    (ABORTED, "process 1 was ended by SIGABRT (exit code 134)", 75),
    ("exit 2", "process 1 ended with exit code 2", 2),
    ("exit 1", "process 1 ended with exit code 1", 1),
  ],
)
def test_when_one_dies_it_is_named_and_the_others_have_their_time(
  programs, does, said, code
):
  done = pod(programs, "--wait", 1, n=3, DOES_0=HANG, DOES_1=does, DOES_2=HANG)
  assert done.code == code
  lines = done.err.splitlines()
  assert lines[1].startswith(f"augdistill: {said}; its log is ")
  assert lines[2:4] == [
    f"augdistill: process {i} has not ended 1 s later and is killed"
    for i in (0, 2)
  ]


def test_the_children_of_a_process_that_is_killed_go_too(programs):
  slow = "sleep 100 & echo child $!; wait"
  done = pod(programs, "--wait", 1, DOES_0=slow, DOES_1=KILLED)
  assert done.code == 75
  (child,) = re.findall(r"child (\d+)", done.out)
  try:
    state = pathlib.Path(f"/proc/{child}/stat").read_text().split()[2]
  except FileNotFoundError:
    return
  assert state in "XZ"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_process_and_nothing_is_run_again(
  programs, sent
):
  name = sent.name.removeprefix("SIG")
  waits = f"trap 'echo heard {name}; exit 75' {name}; {FOREVER}"
  words = (2, 1, "--retries", 3, "--", "augdistill", "finetune")
  with programs.start(
    "local_pod.sh", *words, DOES_0=waits, DOES_1=waits
  ) as process:
    assert "devices" in process.stdout.readline()
    assert process.stdout.readline() == "I am 0\n"
    time.sleep(0.5)
    process.send_signal(sent)
    out, err = process.communicate(timeout=20)
  assert process.returncode == 75, err
  assert out == f"heard {name}\n"
  assert "process 1 ended with exit code 75" in err
  assert "again to go on" in err
  assert len(programs.calls()) == 2


def test_a_second_signal_ends_what_does_not_listen(programs):
  deaf = f"trap 'echo no' TERM; {FOREVER}"
  words = (1, 1, "--", "augdistill", "finetune")
  with programs.start("local_pod.sh", *words, DOES_0=deaf) as process:
    assert "devices" in process.stdout.readline()
    assert process.stdout.readline() == "I am 0\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "no\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
  assert process.returncode == 75
  assert "ended by SIGKILL" in err


def test_what_was_stopped_is_run_again_as_often_as_told(programs):
  done = pod(programs, "--retries", 2, DOES_1="exit 75")
  assert done.code == 75
  assert len(programs.calls()) == 2 * 3
  assert "running again, 2 of 2" in done.err
  # At the second time it is done.
  once = "[ -e was_here ] || { touch was_here; exit 75; }"
  assert pod(programs, "--retries", 2, DOES_1=once).code == 0
  assert len(programs.calls()) == 2 * 3 + 2 * 2


@pytest.mark.parametrize("code", [1, 2])
def test_what_failed_is_not_run_again(programs, code):
  assert pod(programs, "--retries", 2, DOES_0=f"exit {code}").code == code
  assert len(programs.calls()) == 2


def test_a_dry_run_prints_commands_that_can_be_pasted_and_runs_none(programs):
  words = ("augdistill", "finetune", "--train", 'it\'s "a" $b.tsv', "--n", "")
  done = programs.run("local_pod.sh", "--dry_run", 2, 4, "--", *words)
  assert done.code == 0
  first, second, last = parsed(done.out)
  assert first[:3] == ["env", "JAX_PLATFORMS=cpu", "JAX_NUM_CPU_DEVICES=4"]
  assert first[3 : 3 + len(words)] == list(words)
  assert first[-3:] == ["--process_id", "0", "&"]
  assert second[:-2] == first[:-2]
  assert last == ["wait"]
  assert programs.calls() == []


@pytest.mark.parametrize(
  ("words", "said"),
  [
    ((), "the numbers of processes and of devices"),
    ((2, 2), "behind -- the command"),
    ((2, "--", "augdistill"), "the numbers of processes and of devices"),
    ((2, "x", "--", "augdistill"), "M must be a whole number, got 'x'"),
    ((0, 1, "--", "augdistill"), "at least one process"),
    ((2, 2, "--retries", "--", "augdistill"), "--retries must be a whole"),
    ((2, 2, "--wait"), "--wait needs a number"),
    ((2, 2, "--fast", "--", "augdistill"), "there is no flag --fast"),
    ((2, 2, "--", "augdistil"), "there is no program augdistil"),
  ],
)
def test_wrong_usage_is_told_before_anything_runs(programs, words, said):
  done = programs.run("local_pod.sh", *words)
  assert done.code == 2
  assert said in done.err
  assert programs.calls() == []


def test_help_is_the_header(programs):
  done = programs.run("local_pod.sh", "--help")
  assert done.code == 0
  assert done.out.startswith("Runs a command as the N processes of a pod")
  assert "--retries K" in done.out


@pytest.mark.slow
def test_a_run_of_two_processes_is_a_run(programs, tmp_path):
  program = shlex.join(command())
  programs.add("augdistill", f'exec {program} "$@"')
  words = (
    *("finetune", "--task=helpdesk", "--model=micro", "--num_steps=8"),
    *("--train_examples=64", "--batch_size=8", "--max_length=16"),
    *("--gin.RunConfig.eval_period=8", f"--output_dir={tmp_path / 'run'}"),
  )
  inherited = ("PYTHONPATH", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
  env = {name: os.environ[name] for name in inherited if name in os.environ}
  with programs.start(
    "local_pod.sh", 2, 2, "--", "augdistill", *words, **env
  ) as process:
    out, err = process.communicate(timeout=900)
  assert process.returncode == 0, err
  assert out.count("validation accuracy") == 2
  assert (tmp_path / "run" / "results.json").exists()
  (log,) = tmp_path.glob("augdistill_pod.*/run0/process1.log")
  assert "accuracy" not in log.read_text()
