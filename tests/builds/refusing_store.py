"""A store that refuses some requests, as busy stores do, or all of them from some moment on, as lost ones do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Refuses = Callable[[int], bool]
"""Whether the request of this number, from 1 on, is refused."""


class RefusingStore:
    """A WSGI application before that of the store.

    Attributes:
        requests: so far.
        refused: of them.
    """

    def __init__(self, application: Any, refuses: Refuses, status: str, code: str) -> None:
        self._application = application
        self._refuses, self._status, self._code = refuses, status, code
        self._lock = threading.Lock()
        self.requests = self.refused = 0

    def __call__(self, environment: dict[str, Any], start_response: Any) -> Any:
        with self._lock:
            self.requests += 1
            refuse = self._refuses(self.requests)
            self.refused += refuse
        if not refuse:
            return self._application(environment, start_response)
        environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        start_response(self._status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{self._code}</Code><Message>again, please</Message></Error>".encode()]


@contextmanager
def serve(refuses: Refuses, status: str, code: str) -> Iterator[tuple[RefusingStore, str]]:
    """The store and its address on loopback; what is in it is in all others of this process."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    store = RefusingStore(DomainDispatcherApplication(create_backend_app), refuses, status, code)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield store, f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        server.server_close()
