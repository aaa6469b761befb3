"""In which meters a call counts, and what of that the other workers may not know yet."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from proxy.core.attempts import Reservation
from proxy.core.deltas import Added, Deltas, Place, WindowKey
from proxy.core.limiter import (
    COUNTED_SECONDS,
    DEPLOYMENT,
    Lately,
    Meter,
    may_be_limited,
    meters,
    ungrouped,
)
from proxy.core.types import InstanceConfig, MeterKey

NO_CONFIGS: Mapping[str, InstanceConfig] = MappingProxyType({})
NO_WINDOWS: Mapping[WindowKey, tuple[int, int]] = MappingProxyType({})


class Metering:
    """What all workers used, as limits count it. A deployment counts in the meters that its
    config names. Seconds are whole ones since the epoch; the owner has a lock.

    `pending` has what was counted here since the last round, `writing` what is being written.
    With what was written in the last round, of which the others hear in their next, that is
    what they may not know of.
    """

    def __init__(self, pending: Deltas) -> None:
        self.all: dict[MeterKey, Meter] = {}
        self.writing = NO_WINDOWS
        self.configs = NO_CONFIGS
        self._pending = pending
        self._told = NO_WINDOWS
        # By meter; summed up when somebody first asks after a round, which where there is
        # plenty of room is nobody.
        self._unknown: dict[Meter, Lately] | None = None
        self._is_adrift = False  # something counted in other meters than `configs` say
        self._of_places: dict[Place, tuple[Meter, ...]] = {}
        self._next_sweep = 0

    def meter(self, key: MeterKey) -> Meter:
        meter = self.all.get(key)
        if meter is None:
            meter = self.all[key] = Meter()
        return meter

    def add(self, reservation: Reservation, tokens: int, *, requests: int, second: int) -> None:
        """Counts in the second and the meters of the reservation. It is `second` now."""
        at, config = reservation.second, reservation.config
        if self.configs.get(config.name) is not config:
            self._is_adrift = True
            self.unknown(second)  # as long as it can be: this counts where they do not say
        unknown = self._unknown if may_be_limited(config) else None
        found = self.all.get
        for key in reservation.meters:
            meter = found(key) or self.meter(key)
            meter.add(tokens, requests, at)
            if unknown is not None:
                _note(unknown, meter, tokens, requests, at)
        self._pending.add_window((at, config.name, reservation.deployment), tokens, requests)

    def unknown(self, second: int) -> Mapping[Meter, Lately]:
        """What was added to each meter here that the others may not have heard of."""
        if self._unknown is None:
            self._unknown = {}
            oldest = second - COUNTED_SECONDS
            for windows in (self._told, self.writing, self._pending.windows):
                for (at, name, deployment), (tokens, requests) in windows.items():
                    config = self.configs.get(name)
                    if at > oldest and (config is None or may_be_limited(config)):
                        for meter in self._of_place((name, deployment)):
                            _note(self._unknown, meter, tokens, requests, at)
        return self._unknown

    def note_written(self) -> None:
        """What was being written is: the others hear of it in their next round."""
        self._told, self.writing, self._unknown = self.writing, NO_WINDOWS, None

    def merge(
        self,
        added: Iterable[Added],
        configs: Mapping[str, InstanceConfig],
        *,
        is_whole: bool,
        second: int,
    ) -> None:
        """`added` is what others added since the last round, or, if it `is_whole`, all that
        counts. As long as `configs` are the same object, nothing in them changed."""
        before, self.configs = self.configs, configs
        if is_whole:
            self._recount()
        elif configs is not before or self._is_adrift:
            self._regroup()
        self._count(added)
        self._sweep(second)

    def _recount(self) -> None:
        """Fills the meters anew, with what nobody else knows yet."""
        self.all, self._of_places, self._is_adrift = {}, {}, False
        self._count([key + counts for key, counts in self._pending.windows.items()])

    def _regroup(self) -> None:
        """Fills those meters anew in which several deployments count."""
        own = {k: meter for k, meter in self.all.items() if k[0] == DEPLOYMENT}
        self.all, self._of_places, self._is_adrift = dict(own), {}, False
        for (_, name, deployment), meter in own.items():
            others = [m for m in self._of_place((name, deployment)) if m is not meter]
            for at, tokens, requests in meter.seconds():
                for other in others:
                    other.add(tokens, requests, at)

    def _count(self, added: Iterable[Added]) -> None:
        of_places = self._of_places
        for at, name, deployment, tokens, requests in added:
            place = name, deployment
            for meter in of_places.get(place) or self._of_place(place):
                meter.add(tokens, requests, at)

    def _of_place(self, place: Place) -> tuple[Meter, ...]:
        """All in which calls to this deployment count."""
        found = self._of_places.get(place)
        if found is None:
            name, deployment = place
            config = self.configs.get(name)
            keys = meters(config, deployment) if config else ungrouped(name, deployment)
            found = self._of_places[place] = tuple(map(self.meter, keys))
        return found

    def _sweep(self, second: int) -> None:
        """Now and then forgets what no limit asks for any more: clients name deployments."""
        oldest = second - COUNTED_SECONDS
        if second >= self._next_sweep or second < self._next_sweep - COUNTED_SECONDS:
            self._next_sweep = second + COUNTED_SECONDS
            self.all = {k: m for k, m in self.all.items() if m.newest > oldest}
            self._of_places = {}


def _note(
    unknown: dict[Meter, Lately], meter: Meter, tokens: int, requests: int, at: int
) -> None:
    lately = unknown.get(meter)
    if lately is None:
        lately = unknown[meter] = Lately()
    lately.add(tokens, requests, at)
