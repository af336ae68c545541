"""The stand-in for Google Cloud Storage says what the real one says."""

import http.client
import json
import ssl
import urllib.parse

import pytest

from tests import bucket


@pytest.fixture(scope="module")
def server():
  with bucket.Server("bucket") as server:
    yield server


@pytest.fixture
def ask(server):
  """(method, target, body) -> (code, headers, content), of an empty bucket."""
  server.buckets["bucket"].clear()
  connection = http.client.HTTPConnection(server.address.partition("//")[2])

  def ask(method, target, body=None, **headers):
    token = {"Authorization": f"Bearer {server.token}"}
    connection.request(method, target, body, token | headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()

  yield ask
  connection.close()


OBJECTS = "/storage/v1/b/bucket/o"
UPLOAD = f"/upload{OBJECTS}"


def put(ask, name, content=b"", **query):
  query = {"uploadType": "media", "name": name} | query
  code, _, said = ask(
    "POST", f"{UPLOAD}?{urllib.parse.urlencode(query)}", content
  )
  return code, json.loads(said)


def names(ask, **query):
  """(names, folders, pages) of a list that is read to its end."""
  found, folders, pages = [], [], 0
  while True:
    target = f"{OBJECTS}?{urllib.parse.urlencode(query)}"
    code, _, said = ask("GET", target)
    assert code == 200
    answer, pages = json.loads(said), pages + 1
    found += [item["name"] for item in answer.get("items", [])]
    folders += answer.get("prefixes", [])
    if "nextPageToken" not in answer:
      return found, folders, pages
    query["pageToken"] = answer["nextPageToken"]


def test_an_object_is_read_as_a_whole_and_in_parts(ask):
  code, made = put(ask, "a/b c", b"0123456789")
  assert (code, made["name"], made["size"]) == (200, "a/b c", "10")
  one = f"{OBJECTS}/a%2Fb%20c"
  code, headers, content = ask("GET", f"{one}?alt=media")
  assert (code, content) == (200, b"0123456789")
  assert headers["x-goog-generation"] == made["generation"]
  for wanted, got, part in (
    ("2-4", "2-4", b"234"),
    ("8-99", "8-9", b"89"),
    ("7-", "7-9", b"789"),
    ("-2", "8-9", b"89"),
  ):
    for target in (f"{one}?alt=media", "/bucket/a%2Fb%20c"):
      code, headers, content = ask("GET", target, Range=f"bytes={wanted}")
      assert (code, content) == (206, part)
      assert headers["Content-Range"] == f"bytes {got}/10"
  assert ask("GET", f"{one}?alt=media", Range="bytes=10-")[0] == 416
  assert json.loads(ask("GET", one)[2])["generation"] == made["generation"]


def test_what_is_not_there_is_told(ask):
  for method, target in (
    ("GET", f"{OBJECTS}/a?alt=media"),
    ("GET", f"{OBJECTS}/a"),
    ("GET", "/bucket/a"),
    ("DELETE", f"{OBJECTS}/a"),
    ("GET", "/storage/v1/b/other"),
    ("GET", "/storage/v1/b/other/o"),
    ("POST", "/upload/storage/v1/b/other/o?uploadType=media&name=a"),
  ):
    code, _, said = ask(method, target)
    assert code == 404, target
    assert json.loads(said)["error"]["message"]


def test_a_write_may_be_of_one_generation_only(ask):
  assert put(ask, "a", b"1", ifGenerationMatch=0)[0] == 200
  code, _ = put(ask, "a", b"2", ifGenerationMatch=0)
  assert code == 412
  first = json.loads(ask("GET", f"{OBJECTS}/a")[2])["generation"]
  code, made = put(ask, "a", b"3", ifGenerationMatch=first)
  assert code == 200 and int(made["generation"]) > int(first)
  assert put(ask, "a", b"4", ifGenerationMatch=first)[0] == 412
  assert put(ask, "none", b"4", ifGenerationMatch=first)[0] == 412
  assert ask("DELETE", f"{OBJECTS}/a?ifGenerationMatch={first}")[0] == 412
  media, now = f"{OBJECTS}/a?alt=media", made["generation"]
  assert ask("GET", f"{media}&ifGenerationMatch={first}")[0] == 412
  assert ask("GET", f"{media}&ifGenerationNotMatch={now}")[0] == 304
  assert ask("GET", f"{media}&ifGenerationNotMatch={first}")[2] == b"3"
  assert ask("DELETE", f"{OBJECTS}/a?ifGenerationMatch={now}")[0] == 204
  assert names(ask) == ([], [], 1)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_list_comes_in_order_by_prefix_and_by_pages(ask, size):
  for name in ("b/2", "a", "b/1/x", "b/1/y", "b/10", "c", "b"):
    put(ask, name)
  every = ["a", "b", "b/1/x", "b/1/y", "b/10", "b/2", "c"]
  assert names(ask, maxResults=size) == (every, [], -(-7 // size))
  of_b = every[2:6]
  assert names(ask, maxResults=size, prefix="b/")[0] == of_b
  assert names(ask, maxResults=size, startOffset="b/", endOffset="b0")[0] == (
    of_b
  )
  found, folders, pages = names(
    ask, maxResults=size, prefix="b/", delimiter="/"
  )
  assert (found, folders) == (["b/10", "b/2"], ["b/1/"])
  assert pages == -(-3 // size)


def test_a_resumable_upload_is_there_when_it_is_complete(ask):
  code, headers, _ = ask("POST", f"{UPLOAD}?uploadType=resumable&name=a")
  assert code == 200
  session = urllib.parse.urlsplit(headers["Location"]).path
  code, headers, _ = ask("PUT", session, **{"Content-Range": "bytes */6"})
  assert (code, headers["Range"]) == (308, None)
  part = {"Content-Range": "bytes 0-3/6"}
  code, headers, _ = ask("PUT", session, b"0123", **part)
  assert (code, headers["Range"]) == (308, "bytes=0-3")
  assert names(ask)[0] == []
  code, headers, _ = ask("PUT", session, **{"Content-Range": "bytes */6"})
  assert (code, headers["Range"]) == (308, "bytes=0-3")
  part = {"Content-Range": "bytes 4-5/6"}
  assert ask("PUT", session, b"45", **part)[0] == 200
  assert ask("GET", "/bucket/a")[2] == b"012345"
  assert ask("PUT", session, b"45", **part)[0] == 404


def test_an_object_is_copied_to_another_name(ask):
  put(ask, "a/b", b"1")
  target = f"{OBJECTS}/a%2Fb/rewriteTo/b/bucket/o/c%2Fd"
  code, _, said = ask("POST", target)
  assert (code, json.loads(said)["done"]) == (200, True)
  assert ask("GET", "/bucket/c/d")[2] == ask("GET", "/bucket/a/b")[2] == b"1"


def test_who_may_not_is_refused(ask, server):
  put(ask, "a", b"1")
  assert ask("GET", "/bucket/a", Authorization="Bearer other")[0] == 403
  connection = http.client.HTTPConnection(server.address.partition("//")[2])
  connection.request("GET", "/bucket/a")
  assert connection.getresponse().status == 401
  connection.close()


def test_as_a_proxy_it_answers_in_the_place_of_google(ask, server):
  put(ask, "a", b"1")
  host, _, port = server.address.partition("//")[2].partition(":")
  trusted = ssl.create_default_context(
    cafile=server.variables()["CURL_CA_BUNDLE"]
  )
  for name in ("www.googleapis.com", "storage.googleapis.com"):
    connection = http.client.HTTPSConnection(host, int(port), context=trusted)
    connection.set_tunnel(name)
    token = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", "/bucket/a", headers=token)
    assert connection.getresponse().read() == b"1"
    connection.close()
