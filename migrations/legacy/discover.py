"""Finds the files of an old deployment, and has each read by the reader of its layout."""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from migrations.legacy import csv_files, database, env_files, json_files, yaml_files
from migrations.legacy.records import ERAS, Problem, Reading

# Where the old program, its containers and its operators put files. "" is the folder itself.
PLACES = ("", ".temp", "app", "config", "data", ".azure_openai_proxy")
NAMES = (
    "instance_configs.json",
    "instance_states.json",
    "instance_state.json",
    "instance_data.json",
    "instances.json",
    "shared_state.json",
    "instance_state.db",
    "instances.csv",
)
ENV_FILES = (".env", "app/.env")
DATABASE_VARIABLE = "INSTANCE_MANAGER_DB_PATH"
# Below the home of the user who ran the old program, where that variable was not set.
DEFAULT_DATABASE = (".azure_openai_proxy", "instance_state.db")
# Of these variables, the env files say where the old program kept its files.
NAMING = {
    "INSTANCE_CONFIG_FILE": "S1",
    "INSTANCE_STATE_FILE": "S2",
    "INSTANCE_MANAGER_STATE_FILE": "M2",
    DATABASE_VARIABLE: "D1",
}
# What stood in a file that cannot be read: the newest that it may be, where there are several.
LAYOUTS = {
    "instance_configs.json": "S1",
    "instance_states.json": "S2",
    "instance_state.json": "M2",
    "instance_data.json": "M3",
    "instances.json": "M3",
    "shared_state.json": "M1",
    "instances.csv": "C1",
    ".env": "E2",
}
YAML_FOLDER = "config"
YAML_BASE = "base"
YAML_ENVIRONMENT = "ENVIRONMENT"
DATA_ENDS = (".json", ".db", ".sqlite", ".csv", ".yaml", ".yml", ".bak", ".old")
YAML_ENDS = (".yaml", ".yml")
GZIP_MAGIC = b"\x1f\x8b"
DATABASE_ENDS = (".db", ".sqlite", ".sqlite3")

_SETTING = re.compile(r"(?:export\s+)?[A-Za-z_][\w.-]*\s*=")
_YAML_KEY = re.compile(r"[\"']?[\w.-]+[\"']?\s*:(\s|$)|---|- ")


@dataclass(frozen=True, slots=True)
class Content:
    """A file's text, None of a database; `kind` is which reader it is for."""

    file: Path
    kind: str
    text: str | None = field(default=None, repr=False)  # holds keys


def find(path: Path, environ: Mapping[str, str]) -> list[Path]:
    """The old files, each once, sorted; `path` itself unless it is a folder.

    In a folder: the known names at the known places, `config/base.yaml` with the file of
    the ENVIRONMENT, and what the env files name. A file that they name and that is not
    there is in the list too, unless one of its name was found elsewhere (the path of a
    container), because to miss it without a word would lose what it held. So is a folder
    that may not be listed. `read` tells both.

    `environ` gives HOME for `~`, and ENVIRONMENT where no env file does. Without either, all
    of `config/*.yaml` are in the list.
    """
    if not os.path.isdir(path) or not _may_list(path):
        return [path]
    found = [each for place in PLACES for each in _present(path / place, NAMES)]
    env_files_found = [file for name in ENV_FILES for file in _present_file(path / name)]
    variables = [_variables_of(file, environ) for file in env_files_found]
    found += env_files_found
    found += _yaml_files(path / YAML_FOLDER, _merged(variables, environ))
    names = {file.name for file in found}
    for _, file in _named(path, variables, environ):
        if os.path.lexists(file) or file.name not in names:
            found.append(file)
    return _each_once(found)


def passed_over(path: Path, files: Sequence[Path]) -> list[Path]:
    """What lies where old files lie and looks like one, but is none that we know by name.

    The old program wrote some under names that its operators chose: such a file must be
    named itself to be read, so it must not be passed over without a word.
    """
    taken = {os.path.realpath(file) for file in files}
    lying = (path / place / name for place in PLACES for name in _names_in(path / place))
    return sorted(
        file
        for file in lying
        if _looks_like_one(file) and file.is_file() and os.path.realpath(file) not in taken
    )


def _looks_like_one(file: Path) -> bool:
    """By its end, or as a copy of one that we know: with a date, a tilde, compressed."""
    is_copy = any(name in file.name for name in NAMES)
    return is_copy or file.suffix in DATA_ENDS or file.name.startswith(".env.")


def elsewhere(path: Path, files: Sequence[Path], environ: Mapping[str, str]) -> Path | None:
    """The old program's database in its home, if it may be this deployment's: it wrote there
    unless a variable said otherwise, and what lies outside of `path` is not read."""
    home = environ.get("HOME", "")
    if not home or not os.path.isdir(path):
        return None
    default = Path(home, *DEFAULT_DATABASE)
    variables = [environ, *(_variables_of(path / name, environ) for name in ENV_FILES)]
    is_named = any(values.get(DATABASE_VARIABLE, "").strip() for values in variables)
    taken = {os.path.realpath(file) for file in files}
    if is_named or os.path.realpath(default) in taken or not os.path.isfile(default):
        return None
    return default


def read(path: Path, files: Sequence[Path], environ: Mapping[str, str]) -> list[Reading]:
    """A reading for each of `files`, in their order; each is read once.

    What a file holds decides, then its name. A file that cannot be read gives a reading with
    a problem. For `${NAME}` in YAML, the env files among `files` count before `environ`,
    which is of the process that reads and not of the one that ran then.
    """
    contents = [_content(path, file) for file in files]
    found = [content for content in contents if isinstance(content, Content)]
    of_yaml = _yaml_readings(found, environ)
    readings = [
        Reading(content.file, "unreadable", problems=(content,))
        if isinstance(content, Problem)
        else of_yaml.get(content.file) or _reading(content, environ)
        for content in contents
    ]
    named = {
        os.path.realpath(file): NAMING[variable]
        for variable, file in _named(path, _variables(found, environ), environ)
    }
    return [replace(each, lost=_lost(each, named)) for each in readings]


def _lost(reading: Reading, named: Mapping[str, str]) -> str:
    """Not of a file that is missing: it may never have been written."""
    has_some = reading.records or reading.bad or not reading.problems
    # Of an env file, a line that is no setting leaves the others.
    if has_some or reading.layout == "env" or not os.path.isfile(reading.file):
        return ""
    name, end = reading.file.name, reading.file.suffix.lower()
    if reading.layout in ERAS:
        return reading.layout
    if name in LAYOUTS:
        return LAYOUTS[name]
    of_kind = "D1" if end in DATABASE_ENDS else "Y1" if end in YAML_ENDS else ""
    return named.get(os.path.realpath(reading.file), of_kind)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # not there; or `find` has it in its list, and `read` says why


def _present(folder: Path, names: Sequence[str]) -> list[Path]:
    try:
        listed = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return [folder]  # `read` tries again, and says why
    return [folder / name for name in names if name in listed]


def _present_file(file: Path) -> list[Path]:
    return [each for each in _present(file.parent, (file.name,)) if each == file]


def _yaml_files(folder: Path, variables: Mapping[str, str]) -> list[Path]:
    try:
        listed = sorted(os.listdir(folder))
    except OSError:
        return []  # not there, or already in the list as one of PLACES
    files = [folder / name for name in listed if name.endswith(YAML_ENDS)]
    environment = variables.get(YAML_ENVIRONMENT, "")
    if environment:
        files = [file for file in files if file.stem in (YAML_BASE, environment)]
    return files


def _named(
    folder: Path, variables: Sequence[Mapping[str, str]], environ: Mapping[str, str]
) -> Iterator[tuple[str, Path]]:
    """Variables, and the files they name."""
    home = environ.get("HOME", "")
    for values in variables:
        for name in NAMING:
            value = values.get(name, "").strip()
            if value.startswith("~/") and home:
                value = home + value[1:]
            if value and "\0" not in value:
                yield name, folder / value


def _variables_of(file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    content = _content(file, file)
    if isinstance(content, Problem) or content.text is None:
        return {}  # `read` says why
    return env_files.variables(content.text, environ)


def _merged(files: Sequence[Mapping[str, str]], environ: Mapping[str, str]) -> dict[str, str]:
    """The first file that gives a variable a value counts."""
    merged = dict(environ)
    for values in reversed(files):
        merged |= {name: value for name, value in values.items() if value}
    return merged


def _each_once(files: Sequence[Path]) -> list[Path]:
    by_place: dict[str, Path] = {}
    for file in sorted(set(files)):
        by_place.setdefault(os.path.realpath(file), file)
    return list(by_place.values())


def _content(path: Path, file: Path) -> Content | Problem:
    loaded = _loaded(path, file)
    if isinstance(loaded, Problem):
        return loaded
    if loaded == database.MAGIC:
        return Content(file, "database")
    if not loaded.strip():
        remedy = "Bring the file as it was, or delete it."
        return _problem(file, "The file is empty.", remedy)
    if file.suffix.lower() in DATABASE_ENDS:
        return Content(file, "database")  # SQLite says what is wrong with it
    text = _decoded(file, loaded)
    return text if isinstance(text, Problem) else Content(file, _kind(file, text), text)


def _decoded(file: Path, loaded: bytes) -> str | Problem:
    if loaded.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _problem(file, "The file is UTF-16.", "Save it as UTF-8.")
    if loaded.startswith(GZIP_MAGIC):
        return _problem(file, "The file is compressed (gzip).", "Unpack it first.")
    if b"\0" in loaded:
        line = loaded.count(b"\n", 0, loaded.index(b"\0")) + 1
        message = f"The file holds NUL bytes (line {line})."
        remedy = "It was damaged on the disk, or is no text: bring an undamaged copy."
        return _problem(file, message, remedy)
    try:
        return loaded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = loaded.count(b"\n", 0, error.start) + 1
        if error.reason == "unexpected end of data":
            message = f"The file ends within a character (line {line}).{json_files.SEEMS_CUT}"
            return _problem(file, message, "Bring an undamaged copy.")
        return _problem(file, f"The file is not UTF-8 (line {line}).", "Save it as UTF-8.")


def _loaded(path: Path, file: Path) -> bytes | Problem:
    """All bytes, or no more than the magic of a database, which SQLite reads itself."""
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            return _folder_instead(file)
        if not stat.S_ISREG(mode):
            return _problem(file, "This is no regular file.", "Give the file itself.")
        with file.open("rb") as stream:
            magic = stream.read(len(database.MAGIC))
            return magic if magic == database.MAGIC else magic + stream.read()
    except FileNotFoundError:
        return _missing(path, file)
    except PermissionError:
        return _problem(file, "The file may not be read.", "Give this user the permission.")
    except OSError as error:
        message = f"The file cannot be read: {error.strerror}."
        return _problem(file, message, "Bring a copy that can be read.")


def _folder_instead(file: Path) -> Problem:
    if not _may_list(file):
        return _problem(file, "The folder may not be listed.", "Give this user the permission.")
    message = "This is a folder, not a file. Docker makes one where a mounted file is missing."
    return _problem(file, message, "Bring the file in its place, or delete the folder.")


def _may_list(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _missing(path: Path, file: Path) -> Problem:
    if file.is_symlink():
        message = f"This is a link to {os.readlink(file)}, which is not there."
        return _problem(file, message, "Bring what it leads to, or delete the link.")
    if file == path:
        return _problem(file, "There is no such file or folder.", "Check the path.")
    message = "An env file names this file, and it is not there."
    remedy = "Bring it, or take its variable out of the env file if it was never written."
    return _problem(file, message, remedy)


def _kind(file: Path, text: str) -> str:
    """Which reader; "" if none fits."""
    name, end = file.name.lower(), file.suffix.lower()
    if name == ".env" or end == ".env" or name.startswith((".env.", "env.")):
        return "env"
    if end in YAML_ENDS:
        return "yaml"
    if text.lstrip().startswith(("{", "[")):
        return "json"
    if end in (".json", ".csv"):
        return end[1:]
    return _kind_of_lines(text)


def _kind_of_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    columns = {name.strip(' "') for name in re.split("[,;\t]", first)}
    if csv_files.ID in columns and columns & set(csv_files.COLUMNS):
        return "csv"
    if _SETTING.match(first):
        return "env"
    return "yaml" if _YAML_KEY.match(first) else ""


def _reading(content: Content, environ: Mapping[str, str]) -> Reading:
    file, text = content.file, content.text
    if text is None:
        return database.read(file)
    if content.kind == "env":
        return env_files.read(file, text, environ)
    readers = {"json": json_files.read, "csv": csv_files.read}
    if content.kind in readers:
        return readers[content.kind](file, text)
    message = "This is none of the old program's files: no JSON, YAML, CSV, env file, database."
    problem = _problem(file, message, "Give the right file.")
    return Reading(file, "unreadable", problems=(problem,))


def _yaml_readings(
    contents: Sequence[Content], environ: Mapping[str, str]
) -> dict[Path, Reading]:
    """Of `base.yaml` and one more, in that order, because the later replaces the earlier.

    Where there are several more, one of them was the environment's, and none says which.
    """
    documents = [(c.file, c.text) for c in contents if c.kind == "yaml" and c.text is not None]
    base = [each for each in documents if each[0].stem == YAML_BASE]
    more = [each for each in documents if each[0].stem != YAML_BASE]
    readings = {}
    if len(more) > 1:
        message = "Nothing says which of the files beside base.yaml the old program read."
        remedy = f"Set {YAML_ENVIRONMENT} to the name of that file, without its end."
        for file, _ in more:
            problem = _problem(file, message, remedy)
            readings[file] = Reading(file, "Y1", problems=(problem,))
        more = []
    documents = [*base, *more]
    variables = _merged(_variables(contents, environ), environ) if documents else {}
    for reading in yaml_files.read(documents, variables):
        readings[reading.file] = reading
    return readings


def _variables(contents: Sequence[Content], environ: Mapping[str, str]) -> list[dict[str, str]]:
    texts = [c.text for c in contents if c.kind == "env" and c.text]
    return [env_files.variables(text, environ) for text in texts]


def _problem(file: Path, message: str, remedy: str) -> Problem:
    return Problem(file, "", "", "", remedy, message)
