"""The headers Azure adds to its answers.

Source: Azure's documentation and what its official clients read. `x-ratelimit-reset-*`
are plain seconds, where OpenAI itself writes `1s` or `6m0s`.
"""

import math
import uuid
from collections.abc import Mapping
from urllib.parse import quote

from proxy.simulator.limits import Admission


def marks(region: str, deployment: str, asked: Mapping[str, str]) -> dict[str, str]:
    """What tells one answer from another; Azure's support asks for these.

    `asked` are the request's headers: a client's own request id comes back.
    """
    request_id = str(uuid.uuid4())
    return {
        "apim-request-id": request_id,
        "x-request-id": request_id,
        "x-ms-client-request-id": asked.get("x-ms-client-request-id", "Not-Set"),
        "x-ms-region": region,
        "x-ms-deployment-name": quote(deployment),  # it may hold what a header may not
        "azureml-model-session": "v20250101-simulated",
        "x-ms-rai-invoked": "true",
        "x-accel-buffering": "no",
        "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
        "x-content-type-options": "nosniff",
    }


def room(admission: Admission) -> dict[str, str]:
    """How much of the limits is left, for an answer and for a 429."""
    return {
        "x-ratelimit-limit-requests": str(admission.limit_requests),
        "x-ratelimit-limit-tokens": str(admission.limit_tokens),
        "x-ratelimit-remaining-requests": str(admission.remaining_requests),
        "x-ratelimit-remaining-tokens": str(admission.remaining_tokens),
    }


def rejection(admission: Admission) -> dict[str, str]:
    """How long to stay away. Rounded up: whoever comes back exactly then is let in."""
    seconds = math.ceil(admission.retry_after_seconds)
    limited_by = admission.limited_by or "call"
    named = {"token": "tokens", "call": "requests"}[limited_by]
    return {
        **room(admission),
        "retry-after-ms": str(math.ceil(admission.retry_after_seconds * 1000)),
        "retry-after": str(seconds),
        f"x-ratelimit-reset-{named}": str(seconds),
        "policy-id": f"DeploymentRatelimit-{limited_by.capitalize()}",
    }
