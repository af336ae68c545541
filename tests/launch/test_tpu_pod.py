"""launch/tpu_pod.sh: a TPU is made, used, made again, and deleted."""

import re
import shlex
import signal

import pytest

from tests.launch.scripts import Programs, parsed, without_programs

# Keeps the state of one TPU in $FAKE/state. $FAKE/plan has a line for each run:
# the exit codes that the hosts tell, or else a state that the TPU then has,
# while nobody answers.
GCLOUD = r"""
fail() { echo "ERROR: $1" >&2; exit 1; }
state=$(cat "$FAKE/state" 2>/dev/null)
owner=$(cat "$FAKE/owner" 2>/dev/null || echo augdistill)
case "$*" in
  *buckets\ describe*) cat "$FAKE/folders" 2>/dev/null || echo True ;;
  *\ describe\ *)
    [ ! -e "$FAKE/offline" ] || fail "UNAVAILABLE"
    [ -n "$state" ] || fail "NOT_FOUND: not there"
    printf '%s\t%s\n' "$state" "$owner"
    if [ "$state" = CREATING ]; then echo READY >"$FAKE/state"; fi
    ;;
  *\ create\ *)
    [ ! -e "$FAKE/full" ] || fail "RESOURCE_EXHAUSTED: no more capacity"
    if [ -e "$FAKE/full_once" ]; then
      rm "$FAKE/full_once"
      fail "RESOURCE_EXHAUSTED: no more capacity"
    fi
    [ -z "$state" ] || fail "ALREADY_EXISTS"
    case "$*" in
      *queued-resources*) echo ACTIVE >"$FAKE/state" ;;
      *) echo CREATING >"$FAKE/state" ;;
    esac
    ;;
  *\ delete\ *)
    [ -n "$state" ] || fail "NOT_FOUND: not there"
    [ ! -e "$FAKE/stays" ] || fail "INTERNAL"
    rm "$FAKE/state"
    ;;
  *tpu-vm\ scp*) ;;
  *tpu_worker.sh\ setup*)
    [ ! -e "$FAKE/no_key" ] || fail "SSH Key is not present in the SSH agent"
    code=$(cat "$FAKE/setup" 2>/dev/null || echo 0)
    echo "augdistill: exit code $code on host-0"
    exit "$code"
    ;;
  *tpu_worker.sh\ stop*) ;;
  *tpu_worker.sh\ run*)
    line=$(head -n 1 "$FAKE/plan")
    sed -i 1d "$FAKE/plan"
    case $line in
      [0-9]*)
        echo "step 1"
        for code in $line; do echo "augdistill: exit code $code on host"; done
        for code in $line; do [ "$code" = 0 ] || exit "$code"; done
        ;;
      hang) echo "it runs"; exec sleep 100 ;;
      full_once)
        echo PREEMPTED >"$FAKE/state"
        touch "$FAKE/full_once"
        exit 255
        ;;
      *) echo "$line" >"$FAKE/state"; exit 255 ;;
    esac
    ;;
  *storage\ cp* | *storage\ rsync*) ;;
  *) fail "what is $*?" ;;
esac
"""
FLAGS = (
  *("--name", "rte", "--project", "mine", "--zone", "us-central2-b"),
  *("--type", "v4-32", "--bucket", "gs://store/runs"),
)
COMMAND = ("--", "finetune", "--task", "rte", "--output_dir", "runs/a")


@pytest.fixture
def fake(tmp_path):
  folder = tmp_path / "fake"
  folder.mkdir()
  return folder


@pytest.fixture
def programs(tmp_path, fake):
  programs = Programs(tmp_path)
  programs.add("gcloud", GCLOUD)
  programs.env |= {
    "FAKE": str(fake),
    "POLL_SECONDS": "0",
    "RETRY_SECONDS": "0",
    "PYTHON": str(programs.add("builds")),
  }
  return programs


def plan(fake, *lines):
  (fake / "plan").write_text("".join(f"{line}\n" for line in lines))


def verbs(programs):
  """What gcloud was asked to do with the TPU, but not to describe it."""
  found = []
  for _, *words in programs.calls():
    words = " ".join(words)
    match = re.search(
      r"tpu_worker.sh (\w+)|tpus \S+ (create|delete|scp)", words
    )
    if match:
      found.append(match.group(1) or match.group(2))
  return found


ONE = ["create", "scp", "setup", "run"]


def test_a_tpu_is_made_used_and_deleted(programs, fake):
  plan(fake, "0 0 0 0")
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 0, done.err
  assert verbs(programs) == [*ONE, "delete"]
  assert "step 1\n" in done.out
  create = next(c for c in programs.calls() if "create" in c)
  assert create == [
    *("gcloud", "compute", "tpus", "tpu-vm", "create", "rte"),
    *("--project", "mine", "--zone", "us-central2-b"),
    *("--accelerator-type", "v4-32", "--version", "tpu-ubuntu2204-base"),
    *("--labels", "made_by=augdistill"),
  ]


def test_the_wheel_is_built_from_a_copy_of_the_checkout(programs, fake):
  plan(fake, "0")
  programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  build = next(c for c in programs.calls() if c[0] == "builds")
  assert build[1:6] == ["-m", "pip", "--quiet", "wheel", "--no-deps"]
  copy = build[-1]
  scp = next(c for c in programs.calls() if "scp" in c)
  assert scp[scp.index("--recurse") + 1] == copy.replace("source", "augdistill")
  assert "--worker" in scp


def test_names_with_spaces_and_quotes_reach_the_hosts(programs, fake):
  plan(fake, "0")
  odd = (
    "--method",
    "kd+mixup(lam=0.5)",
    "--train",
    'it\'s  "my" $data.tsv',
    "",
  )
  assert programs.run("tpu_pod.sh", *FLAGS, *COMMAND, *odd).code == 0
  (call,) = (c for c in programs.calls() if " run " in c[-1])
  remote = shlex.split(call[-1])
  assert remote[:3] == ["bash", "augdistill/tpu_worker.sh", "run"]
  assert remote[4:] == [*COMMAND[1:], *odd, "--distributed"]


def test_a_preempted_tpu_is_deleted_and_made_again(programs, fake):
  plan(fake, "PREEMPTED", "0 0")
  done = programs.run("tpu_pod.sh", *FLAGS, "--spot", *COMMAND)
  assert done.code == 0, done.err
  assert verbs(programs) == [*ONE, "delete", *ONE, "delete"]
  assert "running again, 1 of 5" in done.err
  assert all("--spot" in c for c in programs.calls() if "create" in c)


def test_after_a_preemption_capacity_is_waited_for(programs, fake):
  plan(fake, "full_once", "0")
  done = programs.run("tpu_pod.sh", *FLAGS, "--spot", *COMMAND)
  assert done.code == 0, done.err
  assert verbs(programs) == [*ONE, "delete", "create", *ONE, "delete"]


def test_a_queued_resource_that_was_suspended_is_made_again(programs, fake):
  plan(fake, "SUSPENDED", "0")
  done = programs.run("tpu_pod.sh", *FLAGS, "--queued", *COMMAND)
  assert done.code == 0, done.err
  assert verbs(programs) == [*ONE, "delete", *ONE, "delete"]
  create, *_ = (c for c in programs.calls() if "create" in c)
  assert create[3:8] == [
    "queued-resources",
    "create",
    "rte",
    "--node-id",
    "rte",
  ]
  assert "--runtime-version" in create
  delete, *_ = (c for c in programs.calls() if "delete" in c)
  assert {"queued-resources", "--force", "--quiet"} <= set(delete)


@pytest.mark.parametrize("codes", ["75 75", "134 137", "75 1", "0 134"])
def test_what_was_stopped_runs_again_on_the_same_tpu(programs, fake, codes):
  plan(fake, codes, "0 0")
  assert programs.run("tpu_pod.sh", *FLAGS, *COMMAND).code == 0
  assert verbs(programs) == [*ONE, *ONE[1:], "delete"]
  first, second = (c[-1] for c in programs.calls() if " run " in c[-1])
  assert first.split()[3] != second.split()[3]


def test_the_connection_may_break(programs, fake):
  plan(fake, "READY", "0")
  assert programs.run("tpu_pod.sh", *FLAGS, *COMMAND).code == 0
  assert verbs(programs) == [*ONE, *ONE[1:], "delete"]


@pytest.mark.parametrize(
  ("codes", "code"), [("1 1", 1), ("2 134", 2), ("134 2", 2)]
)
def test_what_failed_is_not_run_again_and_the_tpu_is_deleted(
  programs, fake, codes, code
):
  plan(fake, codes)
  assert programs.run("tpu_pod.sh", *FLAGS, *COMMAND).code == code
  assert verbs(programs) == [*ONE, "delete"]


def test_what_is_stopped_too_often_ends_with_75(programs, fake):
  plan(fake, *["75"] * 9)
  done = programs.run("tpu_pod.sh", *FLAGS, "--retries", 2, *COMMAND)
  assert done.code == 75
  assert verbs(programs).count("run") == 3
  assert verbs(programs)[-1] == "delete"
  assert "again to go on" in done.err


@pytest.mark.parametrize("codes", ["0", "2"])
def test_a_tpu_that_is_to_be_kept_is_kept_and_used_again(programs, fake, codes):
  plan(fake, codes, "0")
  done = programs.run("tpu_pod.sh", *FLAGS, "--keep", *COMMAND)
  assert done.code == int(codes)
  assert verbs(programs) == ONE
  assert "rte is kept and costs money until: gcloud compute tpus" in done.err
  assert programs.run("tpu_pod.sh", *FLAGS, *COMMAND).code == 0
  assert verbs(programs) == [*ONE, *ONE[1:], "delete"]


def test_somebody_elses_tpu_is_neither_used_nor_deleted(programs, fake):
  (fake / "state").write_text("READY\n")
  (fake / "owner").write_text("\n")
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 2
  assert "that this script has not made" in done.err
  assert verbs(programs) == []


def test_no_capacity_is_told_and_nothing_is_left(programs, fake):
  (fake / "full").touch()
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 1
  assert "no more capacity" in done.err
  assert verbs(programs) == ["create"]


def test_hosts_that_never_answer_are_no_reason_to_wait(programs, fake):
  (fake / "no_key").touch()
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 1
  assert "is gcloud's key in the agent" in done.err
  assert verbs(programs) == ["create", "scp", "setup", "delete"]


@pytest.mark.parametrize("code", [1, 2])
def test_a_host_that_cannot_be_prepared_ends_the_run(programs, fake, code):
  (fake / "setup").write_text(f"{code}\n")
  assert programs.run("tpu_pod.sh", *FLAGS, *COMMAND).code == code
  assert verbs(programs) == ["create", "scp", "setup", "delete"]


def test_a_tpu_that_cannot_be_deleted_is_no_success(programs, fake):
  plan(fake, "0")
  (fake / "stays").touch()
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 1
  assert "rte is not deleted and costs money; try again: gcloud" in done.err


def test_when_gcloud_cannot_tell_nothing_is_made(programs, fake):
  (fake / "offline").touch()
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 1
  assert "UNAVAILABLE" in done.err
  assert verbs(programs) == []


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_stops_the_run_and_deletes_the_tpu(
  programs, fake, sent
):
  plan(fake, "hang")
  with programs.start("tpu_pod.sh", *FLAGS, *COMMAND) as process:
    for line in process.stdout:
      if line == "it runs\n":
        process.send_signal(sent)
        break
    _, err = process.communicate(timeout=30)
  assert process.returncode == 75, err
  assert verbs(programs) == [*ONE, "stop", "delete"]


def test_files_are_copied_to_the_same_place_in_the_bucket(programs, fake):
  plan(fake, "0")
  (programs.cwd / "a b").mkdir()
  (programs.cwd / "a b" / "train.tsv").touch()
  copies = ("--copy", "a b/train.tsv", "--copy", "a b/")
  assert programs.run("tpu_pod.sh", *FLAGS, *copies, *COMMAND).code == 0
  copied = [c[1:] for c in programs.calls() if {"cp", "rsync"} & set(c)]
  place = "gs://store/runs/a b"
  assert copied == [
    ["storage", "cp", "a b/train.tsv", f"{place}/train.tsv"],
    ["storage", "rsync", "--recursive", "a b/", place],
  ]


def test_a_dry_run_prints_commands_that_can_be_pasted_and_runs_none(
  programs, fake
):
  odd = ("--train", "it's my data.tsv")
  done = programs.run(
    *("tpu_pod.sh", *FLAGS, "--queued", "--spot", "--dry_run", *COMMAND, *odd),
    **without_programs(programs, "bash", "cat", "date", "dirname", "sed"),
  )
  assert done.code == 0, done.err
  assert programs.calls() == []
  lines = parsed(done.out)
  heads = [
    "gcloud storage buckets describe",
    "mkdir -p",
    "cp -R",
    "pip wheel",
    "cp",
    "gcloud compute tpus queued-resources describe",
    "gcloud compute tpus queued-resources create",
    "gcloud compute tpus tpu-vm scp",
    "gcloud compute tpus tpu-vm ssh",
    "gcloud compute tpus tpu-vm ssh",
    "gcloud compute tpus queued-resources describe",
    "gcloud compute tpus queued-resources delete",
  ]
  assert len(lines) == len(heads)
  for words, head in zip(lines, heads, strict=True):
    assert set(head.split()) <= set(words)
  assert shlex.split(lines[-3][-1])[-3:] == [*odd, "--distributed"]


def changed(flags, name, value):
  flags = list(flags)
  flags[flags.index(name) + 1] = value
  return flags


def without(flags, name):
  at = flags.index(name)
  return [*flags[:at], *flags[at + 2 :]]


@pytest.mark.parametrize(
  ("words", "said"),
  [
    ((*without(FLAGS, "--name"), *COMMAND), "--name must be of a-z"),
    ((*changed(FLAGS, "--name", "My TPU"), *COMMAND), "got 'My TPU'"),
    ((*without(FLAGS, "--type"), *COMMAND), "--type is needed"),
    ((*changed(FLAGS, "--type", "v9-8"), *COMMAND), "--runtime_version is"),
    ((*without(FLAGS, "--project"), *COMMAND), "--project or $PROJECT"),
    ((*without(FLAGS, "--zone"), *COMMAND), "--zone or $ZONE"),
    ((*without(FLAGS, "--bucket"), *COMMAND), "--bucket or $BUCKET"),
    ((*changed(FLAGS, "--bucket", "store"), *COMMAND), "got 'store'"),
    ((*FLAGS, "--copy", "none.tsv", *COMMAND), "there is no such file"),
    ((*FLAGS, "--copy", "/etc/hosts", *COMMAND), "--copy must be relative"),
    ((*FLAGS, "--copy", "../a", *COMMAND), "--copy must be relative"),
    ((*FLAGS, "--copy"), "--copy needs a value"),
    ((*FLAGS, "--retries", "many", *COMMAND), "--retries must be a whole"),
    ((*FLAGS, "--fast", *COMMAND), "there is no flag --fast"),
    (FLAGS, "finetune, distill or pretrain must come, got ''"),
    ((*FLAGS, "--", "predict"), "got 'predict'"),
    ((*FLAGS, *COMMAND[:-2]), "the command needs --output_dir"),
    ((*FLAGS, *COMMAND[:-1], "/elsewhere/a"), "--output_dir must be relative"),
    ((*FLAGS, *COMMAND[:-2], "--output_dir=gs://a"), "--output_dir must be"),
    ((*FLAGS, *COMMAND, "--distributed"), "--distributed is added here"),
  ],
)
@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_wrong_usage_is_told_before_anything_is_made(
  programs, words, said, dry
):
  done = programs.run("tpu_pod.sh", *dry, *words)
  assert done.code == 2
  assert said in done.err
  assert programs.calls() == []


def test_project_zone_and_bucket_may_be_in_the_environment(programs, fake):
  flags = FLAGS
  for name in ("--project", "--zone", "--bucket"):
    flags = without(flags, name)
  where = {"PROJECT": "p", "ZONE": "z", "BUCKET": "gs://b"}
  done = programs.run("tpu_pod.sh", *flags, "--dry_run", *COMMAND, **where)
  assert done.code == 0
  assert "--project p --zone z" in done.out
  assert "gs://b" in done.out


def test_without_gcloud_it_says_where_it_is_from(programs):
  few = without_programs(programs, "bash", "dirname", "sed")
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND, **few)
  assert done.code == 2
  assert "gcloud is needed" in done.err


def test_a_bucket_without_folders_is_refused(programs, fake):
  (fake / "folders").write_text("\n")
  done = programs.run("tpu_pod.sh", *FLAGS, *COMMAND)
  assert done.code == 2
  assert "must have folders" in done.err
  assert verbs(programs) == []


def test_help_is_the_header(programs):
  done = programs.run("tpu_pod.sh", "--help")
  assert done.code == 0
  assert done.out.startswith("Runs augdistill on a Cloud TPU")
