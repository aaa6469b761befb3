"""Workers of gunicorn, each with a token of its own that it asked for after the fork."""

import signal
from collections.abc import Iterator

import pytest

from proxy.simulator import Resource, Simulator
from tests.e2e.conftest import Gateway, add_instance, until
from tests.token_endpoint import HEADER, TokenEndpoint

WORKERS = 2


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    yield endpoint
    endpoint.close()


def test_each_worker_asks_for_one_token_and_instances_take_it(
    endpoint: TokenEndpoint, stopped_gateway: Gateway
) -> None:
    gateway = stopped_gateway
    tokens = [f"access-token-{number}-of-entra" for number in range(1, 1 + WORKERS)]
    resource = Resource("by-token", access_tokens=tokens)
    with Simulator([resource]):
        gateway.start(IDENTITY_ENDPOINT=f"{endpoint.url}/msi/token", IDENTITY_HEADER=HEADER)
        assert endpoint.asked == []
        add_instance(gateway, resource, api_key="NONE", auth="entra")
        until(lambda: len(endpoint.given) == WORKERS, "each worker has a token")
        for _ in range(12):
            assert gateway.chat().status_code == 200
            assert gateway.chat(stream=True).status_code == 200
        sent = {request.headers["authorization"] for request in resource.requests}
        assert sent <= {f"Bearer {token}" for token in tokens}
        assert len(endpoint.asked) == WORKERS
        assert gateway.stop(signal.SIGTERM) == 0
    for secret in (*tokens, HEADER):
        assert secret not in gateway.log
