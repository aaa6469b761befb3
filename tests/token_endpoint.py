"""An endpoint on loopback that gives tokens of Entra ID: as an App Service's does
(IDENTITY_ENDPOINT), and as the authority does (AZURE_AUTHORITY_HOST)."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

RESOURCE = "https://cognitiveservices.azure.com"
SCOPE = f"{RESOURCE}/.default"
HEADER = "identity-header-0123456789"
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT_ID = "66666666-7777-8888-9999-000000000000"
SECRET = "client-secret-0123456789"
ASSERTION = "service-account-token-0123456789"
WAIT_SECONDS = 10  # for what comes at once; it is reached only by a bug


class TokenEndpoint:
    """`answer`: (status, body) instead of a token. `gate`: cleared, it keeps everybody waiting.
    `lives_seconds`: how long its tokens are good. `asked` has the parameters of each request
    for a token, `given` each token, oldest first."""

    def __init__(self, context=None):
        self.answer = None
        self.lives_seconds = 3600
        self.asked = []
        self.given = []
        self.gate = threading.Event()
        self.gate.set()
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def as_app_service(self, monkeypatch):
        """This process runs in an App Service whose endpoint is this one."""
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{self.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", HEADER)

    def wait_for(self, count):
        """Until so many requests for a token have come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.asked) >= count, WAIT_SECONDS)
        assert came, f"asked {len(self.asked)} times, and not {count}"

    def _handler(endpoint):  # noqa: N805  # the handler has a `self` of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                url = urlsplit(self.path)
                if url.path.endswith("/.well-known/openid-configuration"):
                    return self._say(200, endpoint._configuration(url.path))
                asked = {k: v[0] for k, v in parse_qs(url.query).items()}
                asked["header"] = self.headers.get("X-IDENTITY-HEADER")
                return self._say(*endpoint._identity(asked))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                self._say(*endpoint._authority({k: v[0] for k, v in parse_qs(body).items()}))

            def _say(self, status, content):
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def _configuration(self, path):
        tenant = path.split("/")[1]
        return {
            "issuer": f"{self.url}/{tenant}/v2.0",
            "authorization_endpoint": f"{self.url}/{tenant}/oauth2/v2.0/authorize",
            "token_endpoint": f"{self.url}/{tenant}/oauth2/v2.0/token",
        }

    def _identity(self, asked):
        self._note(asked)
        if self.answer is not None:
            return self.answer
        if asked["header"] != HEADER:
            return 401, {"statusCode": 401, "message": "The header is wrong."}
        if (asked.get("api-version"), asked.get("resource")) != ("2019-08-01", RESOURCE):
            return 400, {"statusCode": 400, "message": "The version or resource is wrong."}
        expires_on = str(int(time.time()) + self.lives_seconds)
        return 200, {
            "access_token": self._token(),
            "expires_on": expires_on,
            "resource": RESOURCE,
            "token_type": "Bearer",
        }

    def _authority(self, asked):
        self._note(asked)
        if self.answer is not None:
            return self.answer
        proof = asked.get("client_secret") or asked.get("client_assertion")
        if (asked.get("client_id"), asked.get("scope")) != (CLIENT_ID, SCOPE):
            return 400, {"error": "invalid_scope", "error_description": "AADSTS70011: no"}
        if proof not in (SECRET, ASSERTION):
            said = f"AADSTS7000215: Invalid client secret provided: {proof}.\r\nTrace ID: 1"
            return 401, {"error": "invalid_client", "error_description": said}
        return 200, {
            "access_token": self._token(),
            "expires_in": self.lives_seconds,
            "token_type": "Bearer",
        }

    def _note(self, asked):
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        assert self.gate.wait(WAIT_SECONDS)

    def _token(self):
        self.given.append(f"access-token-{len(self.given) + 1}-of-entra")
        return self.given[-1]
