"""The router's answer to a path of a call, which is asked for once: its way through the rules
leaves a circle of objects each time, and what it makes of a request beforehand nobody needs."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from werkzeug.routing import MapAdapter, Rule

# Clients choose the names of deployments, and so the paths.
MOST_PATHS = 1_000
MOST_CHARACTERS = 300
MOST_HOSTS = 64


class Routes:
    """Of these endpoints, which are all asked by POST. Thread-safe."""

    def __init__(self, endpoints: Collection[str]) -> None:
        self._endpoints = endpoints
        self._found: dict[str, tuple[Rule, dict[str, Any]]] = {}
        # That were let through: the router refuses what can be no host.
        self._hosts: set[str] = set()

    def adapter(
        self, environ: Mapping[str, Any], make: Callable[[], MapAdapter | None]
    ) -> MapAdapter | None:
        """What Flask asks for this request's rule; `make` makes the router's own."""
        if environ["REQUEST_METHOD"] != "POST" or "HTTP_UPGRADE" in environ:
            return make()
        path, host = environ.get("PATH_INFO", ""), environ.get("HTTP_HOST", "")
        return cast(MapAdapter, _Adapter(self, path, host, make))

    def known(self, path: str, host: str) -> tuple[Rule, dict[str, Any]] | None:
        """The rule, and what its view is given."""
        found = self._found.get(path)
        if found is None or host not in self._hosts:
            return None
        return found[0], found[1].copy()

    def note(self, path: str, host: str, rule: Rule, values: Mapping[str, Any]) -> None:
        if rule.endpoint not in self._endpoints or len(path) + len(host) > MOST_CHARACTERS:
            return
        if len(self._found) >= MOST_PATHS:
            self._found.clear()
        if len(self._hosts) >= MOST_HOSTS:
            self._hosts.clear()
        self._hosts.add(host)
        self._found[path] = rule, dict(values)


class _Adapter:
    """The router's own, which is made when it is needed."""

    __slots__ = ("_host", "_made", "_make", "_path", "_routes")

    def __init__(
        self, routes: Routes, path: str, host: str, make: Callable[[], MapAdapter | None]
    ) -> None:
        self._routes = routes
        self._path = path
        self._host = host
        self._make = make
        self._made: MapAdapter | None = None

    def match(self, *given: Any, **named: Any) -> Any:
        """As Flask asks: the rule, and what its view is given."""
        if given or named != {"return_rule": True}:
            return self._own().match(*given, **named)
        known = self._routes.known(self._path, self._host)
        if known is not None:
            return known
        rule, values = self._own().match(return_rule=True)
        self._routes.note(self._path, self._host, rule, values)
        return rule, values

    def _own(self) -> MapAdapter:
        self._made = self._made or self._make()
        assert self._made is not None, "each request has one"
        return self._made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own(), name)
