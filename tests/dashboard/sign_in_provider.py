"""An OpenID provider of one process: signs in, without asking, whoever `who` names, with a key of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


class Provider:
    """A running provider; `who` holds the claims of the next one who signs in."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "1", "alg": "RS256", "use": "sig"})
        self.who: dict[str, Any] = {}
        self.nonce = ""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, query: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
        """A document, or where to go."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }, ""
        if path == "/authorize":
            self.nonce = query["nonce"]
            return None, query["redirect_uri"] + "?" + urlencode({"code": "c", "state": query["state"]})
        if path == "/keys":
            return {"keys": [self.key.as_dict(private=False)]}, ""
        now = int(time.time())
        claims = {"iss": self.url, "aud": "geofix", "sub": "1", "nonce": self.nonce, "iat": now}
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, {**claims, "exp": now + 600, **self.who}, self.key)
        return {"access_token": "a", "token_type": "Bearer", "id_token": signed}, ""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(asked.query).items()}
                document, goal = provider.answer(asked.path, query)
                self.send_response(302 if document is None else 200)
                self.send_header(
                    "Location" if document is None else "Content-Type", goal or "application/json"
                )
                self.end_headers()
                if document is not None:
                    self.wfile.write(json.dumps(document).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider while the block lasts."""
    made = Provider()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
