"""A simulated Azure OpenAI on loopback, for tests, `flask mock` and demonstrations.

    with Simulator([Resource("east-us", tokens_per_minute=1000)]) as simulator:
        simulator["east-us"].faults["gpt-4o"] = "429*2"
        ...  # talk to simulator["east-us"].url

It stands alone: only the standard library, nothing of the rest of this package.
"""

from proxy.simulator.asks import expected_usage
from proxy.simulator.faults import FAULTS, Fault
from proxy.simulator.resource import Resource
from proxy.simulator.server import Simulator, describe
from proxy.simulator.wire import Received

__all__ = [
    "FAULTS",
    "Fault",
    "Received",
    "Resource",
    "Simulator",
    "describe",
    "expected_usage",
]
