"""launch/slurm_gpu.sh: a job of SLURM that goes back into the queue."""

import pytest

from tests.launch.scripts import LAUNCH, Programs, parsed

COMMAND = ("distill", "--train", 'it\'s my "data".tsv', "--output_dir", "a b")
JOB = {"SLURM_JOB_ID": "7"}


@pytest.fixture
def programs(tmp_path):
  programs = Programs(tmp_path)
  for name in ("augdistill", "scontrol", "sbatch"):
    programs.add(name)
  programs.add("srun", "exit ${CODE:-0}")
  return programs


def test_a_job_is_one_step_of_all_tasks(programs):
  assert programs.run("slurm_gpu.sh", *COMMAND, **JOB).code == 0
  (call,) = programs.calls()
  assert call[0] == "srun"
  assert call[call.index("augdistill") :] == [
    *("augdistill", *COMMAND, "--distributed")
  ]


@pytest.mark.parametrize("code", [75, 134, 137, 143])
def test_what_was_stopped_or_lost_goes_back_into_the_queue(programs, code):
  done = programs.run("slurm_gpu.sh", *COMMAND, **JOB, CODE=str(code))
  assert done.code == code
  assert programs.calls()[1:] == [["scontrol", "requeue", "7"]]


@pytest.mark.parametrize("code", [1, 2])
def test_what_failed_does_not(programs, code):
  done = programs.run("slurm_gpu.sh", *COMMAND, **JOB, CODE=str(code))
  assert done.code == code
  assert len(programs.calls()) == 1


def test_nor_does_what_was_there_too_often(programs):
  env = JOB | {"CODE": "75", "MAX_REQUEUES": "3"}
  for count, calls in (("2", 2), ("3", 3)):
    done = programs.run(
      "slurm_gpu.sh", *COMMAND, **env, SLURM_RESTART_COUNT=count
    )
    assert done.code == 75
    assert len(programs.calls()) == calls


def test_sbatch_reads_its_flags_before_the_first_command():
  lines = (LAUNCH / "slurm_gpu.sh").read_text().splitlines()
  head = lines[: lines.index("set -euo pipefail")]
  assert all(line.startswith("#") for line in head)
  flags = {line.split()[1] for line in head if line.startswith("#SBATCH ")}
  assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= flags
  # One task for each GPU.
  counts = dict(flag.split("=") for flag in flags if "per-node" in flag)
  assert counts["--ntasks-per-node"] == counts["--gpus-per-node"]


def test_it_needs_no_neighbour_in_a_job(programs, tmp_path):
  copy = tmp_path / "slurm_script"
  copy.write_text((LAUNCH / "slurm_gpu.sh").read_text())
  assert programs.run(copy, *COMMAND, **JOB).code == 0


def test_a_dry_run_prints_commands_that_can_be_pasted_and_runs_none(programs):
  done = programs.run("slurm_gpu.sh", "--dry_run", *COMMAND)
  assert done.code == 0
  submit, step, requeue = parsed(done.out)
  assert submit == ["sbatch", str(LAUNCH / "slurm_gpu.sh"), *COMMAND]
  assert step[0] == "srun"
  assert step[-len(COMMAND) - 1 :] == [*COMMAND, "--distributed"]
  assert requeue == ["scontrol", "requeue", "$SLURM_JOB_ID"]
  assert programs.calls() == []


@pytest.mark.parametrize(
  ("words", "env", "said"),
  [
    (COMMAND, {}, "this is no job of SLURM; submit it: sbatch"),
    ((), JOB, "finetune, distill or pretrain must come first, got ''"),
    (("predict",), JOB, "got 'predict'"),
    ((*COMMAND, "--distributed"), JOB, "added here; leave it out"),
  ],
)
def test_wrong_usage_is_told_before_anything_runs(programs, words, env, said):
  done = programs.run("slurm_gpu.sh", *words, **env)
  assert done.code == 2
  assert said in done.err
  assert programs.calls() == []


@pytest.mark.parametrize("name", ["srun", "scontrol", "augdistill"])
def test_a_program_that_is_missing_is_named(programs, name):
  (programs.bin / name).unlink()
  done = programs.run("slurm_gpu.sh", *COMMAND, **JOB)
  assert done.code == 2
  assert f"there is no program {name}" in done.err


def test_help_is_the_header(programs):
  done = programs.run("slurm_gpu.sh", "--help")
  assert done.code == 0
  assert "sbatch [SBATCH_FLAG ...]" in done.out
