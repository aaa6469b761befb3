"""What operators may do in the admin API, by the role of their key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Rights. Each view of the admin API asks for one of them.
READ = "read"  # look at what is no secret
OPERATE = "operate"  # decide whom calls go to now: state, enabled, verify, explain
ADMINISTER = "administer"  # everything else: config, keys, whatever shows or makes a secret

# From the one who may least to the one who may all.
ROLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "viewer": frozenset({READ}),
        "operator": frozenset({READ, OPERATE}),
        "admin": frozenset({READ, OPERATE, ADMINISTER}),
    }
)
ADMIN = "admin"

# What a view asks for that does not say: by its method, and any other is for admins.
BY_METHOD: Mapping[str, str] = MappingProxyType({"get": READ})

# Fields of an instance that decide whom calls go to now.
OPERATED_FIELDS = frozenset({"enabled"})

# Whose key ADMIN_API_KEY is. It has no row, and all rights.
FIRST_ADMIN = "admin"
# Whose changes those of commands are; the user's name follows in brackets.
COMMAND_LINE = "command line"
# Names under which revisions are made without an admin key, so that none can pretend.
RESERVED_NAMES = frozenset({FIRST_ADMIN, COMMAND_LINE, "demo", "migration"})
NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Admin:
    """Whose admin key, and what it may do. `expires_at`: a moment, or None for never."""

    name: str
    role: str = ADMIN
    expires_at: float | None = None

    def may(self, right: str) -> bool:
        return right in ROLES.get(self.role, ())

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


def least_role(right: str) -> str:
    """The first role that has it."""
    return next(role for role, rights in ROLES.items() if right in rights)


def right_to_change(fields: Iterable[str]) -> str:
    """What it takes to change these fields of an instance."""
    given = set(fields)
    return OPERATE if given and given <= OPERATED_FIELDS else ADMINISTER


def name_problem(name: str) -> str | None:
    """Why an admin key cannot have this name: it stands in paths, logs and revisions."""
    if not 0 < len(name) <= NAME_CHARACTERS or not name.isprintable() or name != name.strip():
        return (
            f"Must be 1 to {NAME_CHARACTERS} printable characters, without a space at the ends."
        )
    if name.startswith("/") or name.endswith("/") or {".", ".."} & set(name.split("/")):
        return "Must not begin or end with a slash, nor have a dot alone between slashes."
    if name.casefold() in RESERVED_NAMES or name.casefold().startswith(f"{COMMAND_LINE} ("):
        return "Is reserved; choose another name."
    return None
