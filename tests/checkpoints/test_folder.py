"""Files of a directory, on a disk and in a bucket, as wholes."""

import pytest

from augdistill.checkpoints import folder
from augdistill.checkpoints.folder import Folder, is_in_bucket, place
from augdistill.errors import UsageError
from tests import bucket


@pytest.fixture(scope="module")
def server():
  with pytest.MonkeyPatch.context() as patch, bucket.bucket(patch) as server:
    yield server


@pytest.fixture
def path(request, tmp_path, server):
  server.refuse = lambda *_: None
  server.buckets["bucket"].clear()
  if request.param == "disk":
    return str(tmp_path)
  return "gs://bucket/some/where"


both = pytest.mark.parametrize("path", ["disk", "bucket"], indirect=True)
in_bucket = pytest.mark.parametrize("path", ["bucket"], indirect=True)


@both
def test_what_is_written_is_read_until_it_is_deleted(path):
  its = Folder(path)
  assert its.read("a/b") is None
  its.write("a/b", b"1")
  its.write("a/b", b"22")
  assert its.read("a/b") == Folder(path).read("a/b") == b"22"
  assert its.read_all(["a/b", "c"]) == {"a/b": b"22"}
  its.write("a/b", None)
  its.write("a/b", None)
  assert its.read("a/b") is None


@in_bucket
def test_it_is_where_it_is_said_to_be(path, server):
  Folder(path).write("a/b", b"1")
  Folder(path + "/").write("c", b"1")
  Folder("gs://bucket").write("d", b"1")
  assert server.names("bucket") == ["d", "some/where/a/b", "some/where/c"]
  assert place("x")["driver"] == "file"
  assert is_in_bucket(path) and not is_in_bucket("x")


@in_bucket
@pytest.mark.parametrize("code", [401, 403])
def test_who_may_not_read_is_told_how_to_log_in(path, server, code):
  server.refuse = lambda *_: code
  message = f"cannot read {path}: .*says {code} to GET.*application-default"
  with pytest.raises(UsageError, match=message) as error:
    Folder(path).read("a")
  assert "http_response" not in str(error.value)


@in_bucket
@pytest.mark.parametrize("code", [403, 404])
def test_what_cannot_be_written_is_as_it_was(path, server, code):
  its = Folder(path)
  its.write("a", b"1")
  server.refuse = lambda *_: code
  for content in (b"2",) if code == 404 else (b"2", None):
    with pytest.raises(OSError) as error:
      its.write("a", content)
    assert error.value.filename == "a"
    assert f"says {code} to" in error.value.strerror
    assert "http_response" not in error.value.strerror
  server.refuse = lambda *_: None
  assert its.read("a") == b"1"


@in_bucket
def test_a_disturbance_is_waited_for(path, server):
  its = Folder(path)
  codes = [503]
  server.refuse = lambda *_: codes.pop() if codes else None
  its.write("a", b"1")
  assert not codes and its.read("a") == b"1"


@in_bucket
def test_a_bucket_that_stays_away_is_given_up(path, server, monkeypatch):
  its = Folder(path)
  monkeypatch.setattr(folder, "SECONDS", 0.1)
  monkeypatch.setattr(folder, "_SECONDS_OF_A_WRITE", 0.1)
  server.refuse = lambda *_: 503
  with pytest.raises(UsageError, match="no answer in time"):
    its.read("a")
  with pytest.raises(OSError) as error:
    its.write("a", b"1")
  assert error.value.strerror == "no answer in time"


@pytest.mark.parametrize("path", ["gs://", "gs:///a", "gs://x/a"])
def test_a_bucket_must_have_a_name(path):
  with pytest.raises(UsageError, match=f"cannot read {path}: .*bucket"):
    Folder(path)
