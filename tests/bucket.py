"""A stand-in for Google Cloud Storage on this machine, for tests.

It speaks what TensorFlow, TensorStore and google-cloud-storage say of its JSON
API, https://cloud.google.com/storage/docs/json_api/v1, and TensorFlow's reads
of its XML API: objects with generations and preconditions, lists by pages, and
uploads in one piece or resumable. An object changes as a whole or not at all.

TensorStore and google-cloud-storage take its address from a variable.
TensorFlow knows no other address than Google's: it is told that this is its
proxy, which answers in Google's place, with a certificate made for that.
"""

import contextlib
import datetime
import http.server
import itertools
import json
import pathlib
import re
import ssl
import threading
import urllib.parse
from typing import NamedTuple

_CERTIFICATE = pathlib.Path(__file__).with_suffix(".pem")
# The variable of who asks, and who may.
TOKEN = "GOOGLE_AUTH_TOKEN_FOR_TESTING"
_TOKEN = "of-the-tests"
_PAGE = 1000  # names in an answer, unless fewer are asked for


class Object(NamedTuple):
  """What a name stands for.

  Attributes:
    content: its bytes.
    generation: the number of the write that made it.
  """

  content: bytes
  generation: int


class Refused(Exception):
  """An answer that is an error.

  Args:
    code: HTTP's.
    reason: for a person.
  """

  def __init__(self, code, reason):
    super().__init__(reason)
    self.code = code


class Server(http.server.ThreadingHTTPServer):
  """Buckets that are there as long as the context is.

  Attributes:
    buckets: name -> name of an object -> object.
    address: where it listens.
    refuse: (method, bucket, object) -> the HTTP code of an error, or None.
    asked: (method, target) of all requests.
    token: the one of who may read and write objects.

  Example:
    with Server("bucket") as server:
      subprocess.run(command, env=os.environ | server.variables())
  """

  daemon_threads = True

  def __init__(self, *buckets):
    super().__init__(("localhost", 0), _Handler)
    self.buckets = {name: {} for name in buckets}
    self.address = f"http://localhost:{self.server_address[1]}"
    self.refuse = lambda method, bucket, name: None
    self.asked = []
    self.token = _TOKEN
    self.lock = threading.RLock()
    self.sessions = {}
    self.numbers = itertools.count(1)
    self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    self.tls.load_cert_chain(_CERTIFICATE)

  def variables(self):
    """The environment of a process that is to find it."""
    return {
      "TENSORSTORE_GCS_HTTP_URL": self.address,
      "STORAGE_EMULATOR_HOST": self.address,
      "https_proxy": self.address,
      "no_proxy": "localhost",  # Where the processes of a run find each other.
      "CURL_CA_BUNDLE": str(_CERTIFICATE),
      TOKEN: self.token,
      # Nobody looks for the credentials of a machine in Google's cloud.
      "NO_GCE_CHECK": "true",
      # What fails is asked for again soon, and not often.
      "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "1000",
      "GCS_RETRY_CONFIG_MAX_DELAY_TIME_US": "1000",
    }

  def names(self, bucket):
    """The names of a bucket's objects, sorted."""
    with self.lock:
      return sorted(self.buckets[bucket])

  def read(self, path):
    """The content of gs://BUCKET/NAME; None if there is none."""
    bucket, _, name = path.removeprefix("gs://").partition("/")
    with self.lock:
      found = self.buckets[bucket].get(name)
    return found and found.content

  def __enter__(self):
    threading.Thread(target=self.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *exception):
    self.shutdown()
    self.server_close()

  def handle_error(self, request, client_address):
    """Clients go when they please."""


class _Handler(http.server.BaseHTTPRequestHandler):
  """One connection."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True  # Or every answer waits for a while.

  def log_message(self, *args):
    pass

  def do_CONNECT(self):
    """As a proxy: what comes next is for the server that was asked for."""
    self.send_response(200)
    self.end_headers()
    self.close_connection = False
    self.connection = self.server.tls.wrap_socket(
      self.connection, server_side=True
    )
    self.rfile = self.connection.makefile("rb", self.rbufsize)
    self.wfile = self.connection.makefile("wb", self.wbufsize)

  def _answer(self):
    body = self._body()
    split = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(split.query))
    self.server.asked.append((self.command, self.path))
    try:
      with self.server.lock:
        code, headers, content = self._routed(split.path, query, body)
    except Refused as refused:
      error = {"code": refused.code, "message": str(refused)}
      headers = {"Content-Type": "application/json"}
      code, content = refused.code, json.dumps({"error": error}).encode()
    self.send_response(code)
    for name, value in headers.items():
      self.send_header(name, value)
    if code not in (204, 304):
      self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if code not in (204, 304):
      self.wfile.write(content)

  do_GET = do_POST = do_PUT = do_DELETE = _answer

  def _body(self):
    if self.headers.get("Transfer-Encoding") == "chunked":
      parts = []
      while size := int(self.rfile.readline(), 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b"".join(parts)
    return self.rfile.read(int(self.headers.get("Content-Length") or 0))

  def _routed(self, path, query, body):
    for method, pattern, its in _ROUTES:
      found = re.fullmatch(pattern, path)
      if found and method == self.command:
        parts = map(urllib.parse.unquote, found.groups())
        return its(self, query, body, *parts)
    raise Refused(400, f"the stand-in does not know {self.command} {path}")

  def _bucket(self, bucket, name=""):
    """A bucket's objects, for those who may."""
    if code := self.server.refuse(self.command, bucket, name):
      raise Refused(code, f"{bucket} says {code} to {self.command}")
    if bucket not in self.server.buckets:
      raise Refused(404, "The specified bucket does not exist.")
    return self.server.buckets[bucket]

  def _objects(self, bucket, name=""):
    given = self.headers.get("Authorization")
    if given is None:
      raise Refused(401, "Anonymous caller does not have access.")
    if given != f"Bearer {self.server.token}":
      raise Refused(403, "The caller does not have access.")
    return self._bucket(bucket, name)

  def _found(self, query, bucket, name):
    """An object, if it is as the query wants it."""
    found = self._objects(bucket, name).get(name)
    _check_generation(query, found)
    if found is None:
      raise Refused(404, f"No such object: {bucket}/{name}")
    return found

  def get_bucket(self, query, body, bucket):
    del query, body
    self._bucket(bucket)
    return _json({"kind": "storage#bucket", "id": bucket, "name": bucket})

  def list_objects(self, query, body, bucket):
    """Names in order, those below a delimiter as one, some at a time."""
    del body
    objects = self._objects(bucket)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    first, end = query.get("startOffset", ""), query.get("endOffset")
    after = query.get("pageToken", "")
    limit = min(int(query.get("maxResults", _PAGE)), _PAGE)
    entries = {}
    for name in sorted(objects):
      if not name.startswith(prefix) or name < first or (end and name >= end):
        continue
      head, cut, _ = name[len(prefix) :].partition(delimiter or "\0")
      folder = prefix + head + cut if cut else None
      if (folder or name) > after:
        entries[folder or name] = folder
    page = dict(itertools.islice(entries.items(), limit))
    answer = {
      "kind": "storage#objects",
      "items": [
        _described(bucket, name, objects[name])
        for name, folder in page.items()
        if not folder
      ],
      "prefixes": [folder for folder in page.values() if folder],
    }
    if len(page) < len(entries):
      answer["nextPageToken"] = [*page][-1]
    return _json({name: value for name, value in answer.items() if value})

  def get_object(self, query, body, bucket, name):
    del body
    found = self._found(query, bucket, name)
    if query.get("alt") != "media":
      return _json(_described(bucket, name, found))
    return self._media(found)

  def _media(self, found):
    """The bytes of an object, or those that are asked for."""
    size = len(found.content)
    headers = {
      "Content-Type": "application/octet-stream",
      "x-goog-generation": str(found.generation),
      "x-goog-metageneration": "1",
    }
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
    if not wanted:
      return 200, headers, found.content
    start, end = wanted.groups()
    if not start:  # The last ones.
      start, end = max(size - int(end), 0), size - 1
    start, end = int(start), min(int(end or size - 1), size - 1)
    if start > end:
      raise Refused(416, f"there are {size} bytes")
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return 206, headers, found.content[start : end + 1]

  def delete_object(self, query, body, bucket, name):
    del body
    self._found(query, bucket, name)
    del self._objects(bucket, name)[name]
    return 204, {}, b""

  def rewrite_object(self, query, body, bucket, name, to_bucket, to_name):
    del body
    found = self._found({}, bucket, name)
    self._write(query, to_bucket, to_name, found.content)
    size = str(len(found.content))
    resource = _described(
      to_bucket, to_name, self.server.buckets[to_bucket][to_name]
    )
    return _json({"done": True, "objectSize": size, "resource": resource})

  def insert_object(self, query, body, bucket):
    """An upload in one piece, or the first word of a resumable one."""
    name = query["name"]
    if query.get("uploadType") == "media":
      return self._write(query, bucket, name, body)
    if query.get("uploadType") != "resumable":
      raise Refused(400, f"the stand-in does not know {query}")
    self._objects(bucket, name)
    number = str(next(self.server.numbers))
    self.server.sessions[number] = (query, bucket, name, b"")
    host = self.headers["Host"]
    scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
    where = f"{scheme}://{host}/resume/{number}"
    return 200, {"Location": where}, b""

  def continue_upload(self, query, body, number):
    """A part of a resumable upload, or a question how much there is of it."""
    del query
    if number not in self.server.sessions:
      raise Refused(404, "no such upload")
    query, bucket, name, there = self.server.sessions[number]
    content_range = self.headers.get("Content-Range")
    if content_range is None:
      whole = body
      total = len(body)
    else:
      part, _, size = content_range.removeprefix("bytes ").partition("/")
      start = len(there) if part == "*" else int(part.partition("-")[0])
      whole = there[:start] + body
      total = None if size == "*" else int(size)
    if total != len(whole):
      self.server.sessions[number] = (query, bucket, name, whole)
      kept = {"Range": f"bytes=0-{len(whole) - 1}"} if whole else {}
      return 308, kept, b""
    del self.server.sessions[number]
    return self._write(query, bucket, name, whole)

  def _write(self, query, bucket, name, content):
    objects = self._objects(bucket, name)
    _check_generation(query, objects.get(name))
    objects[name] = Object(content, next(self.server.numbers))
    return _json(_described(bucket, name, objects[name]))

  def read_object(self, query, body, bucket, name):
    """Of the XML API, which TensorFlow reads contents from."""
    del body
    return self._media(self._found(query, bucket, name))


_BUCKET = "/storage/v1/b/([^/]+)"
_OBJECT = f"{_BUCKET}/o/([^/]+)"
_ROUTES = (
  ("GET", _BUCKET, _Handler.get_bucket),
  ("GET", f"{_BUCKET}/o", _Handler.list_objects),
  ("GET", _OBJECT, _Handler.get_object),
  ("DELETE", _OBJECT, _Handler.delete_object),
  (
    "POST",
    f"{_OBJECT}/rewriteTo/b/([^/]+)/o/([^/]+)",
    _Handler.rewrite_object,
  ),
  ("POST", f"/upload{_BUCKET}/o", _Handler.insert_object),
  ("PUT", r"/resume/(\d+)", _Handler.continue_upload),
  ("GET", "/([^/]+)/(.+)", _Handler.read_object),
)


def _check_generation(query, found):
  """Refuses what is asked of another generation; 0 is that of nothing."""
  its = str(found.generation) if found else "0"
  if query.get("ifGenerationMatch", its) != its:
    raise Refused(412, "At least one of the pre-conditions did not hold.")
  if query.get("ifGenerationNotMatch") == its:
    raise Refused(304, "")


def _described(bucket, name, its):
  now = datetime.datetime.now(datetime.UTC)
  return {
    "kind": "storage#object",
    "bucket": bucket,
    "name": name,
    "size": str(len(its.content)),
    "generation": str(its.generation),
    "metageneration": "1",
    "updated": now.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
  }


def _json(value):
  return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextlib.contextmanager
def bucket(patch, name="bucket"):
  """A server with an empty bucket, which this process and its children find.

  Args:
    patch: pytest's MonkeyPatch.
    name: the bucket's.
  """
  with Server(name) as server:
    for variable, value in server.variables().items():
      patch.setenv(variable, value)
    yield server
