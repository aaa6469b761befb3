"""What a request costs when there are many instances, clients or models."""

from contextlib import ExitStack

from benchlib.loads import Ask
from benchlib.places import GATEWAY, MODEL, our_gateway, through
from benchlib.plain import CONNECTIONS, WARM_SECONDS
from benchlib.stage import Stage
from benchlib.table import Measure

INSTANCES, CLIENTS = 1000, 10_000
MODELS, INSTANCES_OF_MODELS = 200, 40
SMALL = "3 and 3"


def cost(stage: Stage) -> None:
    stage.upstream.behave()
    models = [f"{MODEL}-{number}" for number in range(MODELS)]
    small = Ask(
        (stage.body(),),
        connections=CONNECTIONS,
        seconds=stage.options.seconds,
        warm_seconds=WARM_SECONDS,
    )
    of_models = Ask(
        tuple(stage.body(model=model) for model in models),
        connections=CONNECTIONS,
        seconds=stage.options.seconds,
        warm_seconds=WARM_SECONDS,
    )
    url, folder = stage.upstream.url, stage.folder
    many = f"{INSTANCES:,} instances that serve the model, {CLIENTS:,} client keys"
    with ExitStack() as stack:
        started = our_gateway(
            folder / "many", url, instances=INSTANCES, clients=CLIENTS, models=(MODEL,)
        )
        large = through(stack.enter_context(started), many)
        started = our_gateway(
            folder / "models", url, instances=INSTANCES_OF_MODELS, models=models
        )
        mixed = f"{MODELS} models on {INSTANCES_OF_MODELS} instances"
        several = through(stack.enter_context(started), mixed)
        for _ in range(stage.options.rounds):
            base = stage.make("growth", stage.gateway, small)
            for place, ask in ((large, small), (several, of_models)):
                made = stage.make("growth", place, ask)
                measure = Measure(f"{place.name}: CPU a request", "µs", SMALL)
                stage.results.note(measure, SMALL, base.us_a_request)
                stage.results.note(measure, GATEWAY, made.us_a_request)
