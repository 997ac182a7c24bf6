"""The web UI's protection against requests that another website makes the user's browser send.

Locust's UI answers every origin (CORS ``*``), and a form on any page could start a load or, here, kill a member.
So: the ``Host`` must be an address or a name of this machine, which a rebound DNS name is not; whatever changes
something must come from the UI's own origin; and what breaks the cluster carries a token that only its page holds.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import urllib.parse
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask, Response
    from werkzeug.datastructures import Headers

TOKEN_HEADER = "X-Raftload-Token"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class Guard:
    """The checks, and the token.

    Attributes:
        token: what a request that breaks something must carry in TOKEN_HEADER.
    """

    def __init__(self, host: str, names: Collection[str] = ()) -> None:
        """Take the address that the server listens on, and further names by which browsers may call it."""
        self.token = secrets.token_urlsafe(32)
        self._names = {"localhost", socket.gethostname().lower(), host.lower(), *(name.lower() for name in names)}

    def install(self, app: Flask, ours: str) -> None:
        """Put the checks before every request of a Flask application, and headers on every answer.

        Takes the name of the blueprint whose pages load nothing but their own files.
        """
        from flask import Response, request

        # Locust's only hook here is the one that lets every origin read every answer.
        app.after_request_funcs.pop(None, None)

        @app.before_request
        def check() -> Response | None:
            reason = self.refusal(request.method, request.headers)
            return Response(f"{reason}\n", 403, content_type="text/plain") if reason else None

        @app.after_request
        def protect(response: Response) -> Response:
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["X-Frame-Options"] = "DENY"
            response.headers["Referrer-Policy"] = "same-origin"
            # A run's report has its own styles and scripts in it, and says itself what else it may load.
            if request.blueprint == ours and request.endpoint != f"{ours}.run_file":
                response.headers["Content-Security-Policy"] = _POLICY
            return response

    def refusal(self, method: str, headers: Headers | Mapping[str, str]) -> str:
        """Why a request is refused; empty where it is not."""
        host = str(headers.get("Host", ""))
        if not self._is_ours(host):
            return f"the host {host!r} is not one of this server's: use its address, or name it with --web-name"
        if method in _SAFE:
            return ""
        origin = headers.get("Origin")
        if origin is not None and urllib.parse.urlsplit(origin).netloc != host:
            return f"requests from {origin} are refused: this server answers only its own pages"
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return "requests of other websites are refused"
        return ""

    def has_token(self, headers: Headers | Mapping[str, str]) -> bool:
        """Return whether a request carries the token."""
        return hmac.compare_digest(str(headers.get(TOKEN_HEADER, "")).encode(), self.token.encode())

    def _is_ours(self, host: str) -> bool:
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)  # no DNS name can be made to look like one
        except ValueError:
            return False
        return True
