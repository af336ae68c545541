"""The server's answers, as an ASGI application.

  POST /predict  {"texts": ["...", ...]}, or pairs [["...", "..."], ...]
              -> {"predictions": [{"prediction": ..., "probabilities": {...}}]}
  GET  /health   what the run is

Whatever else is answered is `{"error": "one sentence"}`:

  400 no JSON             405 wrong method          413 too much, too long
  404 no such path        408 a body that stalls    422 not what is asked for
  503 too many texts wait: `Retry-After` says for how many seconds
  500 the model failed on a batch with these texts; the server goes on

The event loop only reads and writes; the model runs in a thread of its own.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from augdistill.cli.asked import Limits, Refused, texts_in
from augdistill.cli.trained import Trained
from augdistill.cli.waiting import Overloaded

_BODY_SECONDS = 30.0
_RETRY_SECONDS = 1
# A client reads no answer while it writes: of a body that is too large, so
# many times the limit are read and thrown away before it is told.
_THROWN_AWAY = 16


def make_app(
  ask: Callable[[Sequence[tuple[str, ...]]], Future],
  trained: Trained,
  run: str,
  max_waiting: int,
) -> Starlette:
  """The application.

  Args:
    ask: texts -> a future of their answers; raises `Overloaded`.
    trained: the run, which says what texts must be.
    run: its directory.
    max_waiting: how many texts `ask` takes at most, so that no request is told
      to come again in vain.

  Returns:
    What an ASGI server runs.
  """
  limits = Limits(texts=min(Limits.texts, max_waiting))
  about = {
    "run": run,
    "kind": str(trained.served.task.kind),
    "label_names": list(trained.served.task.label_names),
    "pair": trained.pair,
    "max_length": trained.served.max_length,
  }

  async def predict(request: Request) -> Response:
    body = await _body(request, limits.body_bytes)
    texts = texts_in(body, trained.pair, limits)
    try:
      future = ask(texts)
    except Overloaded as error:
      raise Refused(
        503,
        f"the server is busy, ask again: {error}",
        {"Retry-After": str(_RETRY_SECONDS)},
      ) from None
    try:
      # Written here, since what is not finite cannot be: a failure, too.
      return _json({"predictions": await asyncio.wrap_future(future)})
    except Exception:
      raise Refused(
        500, "the model failed on these texts; the server's log says how"
      ) from None

  async def health(request: Request) -> Response:
    del request
    return _json(about)

  app = Starlette(
    routes=[
      Route("/predict", predict, methods=["POST"]),
      Route("/health", health, methods=["GET"]),
    ],
    exception_handlers={
      Refused: _refused,
      HTTPException: _no_route,
      Exception: _bug,
    },
  )
  app.router.redirect_slashes = False
  return app


async def _body(request: Request, limit: int) -> bytes:
  """The body of a request, of at most `limit` bytes."""
  parts, size = [], 0
  try:
    async with asyncio.timeout(_BODY_SECONDS):
      async for part in request.stream():
        size += len(part)
        if size <= limit:
          parts.append(part)
        elif size > _THROWN_AWAY * limit:
          break
  except TimeoutError:
    raise Refused(
      408, f"the body must arrive within {_BODY_SECONDS:.0f} seconds"
    ) from None
  except ClientDisconnect:  # Nobody will read this.
    raise Refused(400, "the body must arrive whole") from None
  if size > limit:
    raise Refused(413, f"the body must have at most {limit:,} bytes")
  return b"".join(parts)


def _json(
  content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
  text = json.dumps(content, ensure_ascii=False, allow_nan=False)
  return Response(
    text.encode("utf-8"), status, headers, media_type="application/json"
  )


async def _refused(request: Request, error: Refused) -> Response:
  del request
  return _json({"error": str(error)}, error.status, error.headers)


async def _no_route(request: Request, error: HTTPException) -> Response:
  says = {
    404: f"there is no {request.url.path}, but POST /predict and GET /health",
    405: f"{request.url.path} does not take {request.method}",
  }.get(error.status_code, error.detail)
  return _json({"error": says}, error.status_code, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
  del request, error  # The server writes it into its log.
  return _json({"error": "the server failed; its log says how"}, 500)
