import contextlib
import time
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select, update

from proxy.core.request_head import KEPT, KeptHead
from proxy.core.sources import networks
from proxy.runtime import key_watch
from proxy.store import admin_keys, keys
from proxy.store.models import RevisionRow, SecretRow
from proxy.web import auth
from tests.builders import AUTHOR
from tests.web.conftest import ADMIN, ADMIN_KEY, CHAT

MODELS = "/v1/models"


@pytest.mark.parametrize(
    "header, value",
    [
        ("Authorization", "Bearer {}"),
        ("Authorization", "bearer {}"),
        ("Authorization", "Bearer   {} "),
        ("api-key", "{}"),
    ],
)
def test_a_client_is_known_by_its_key_in_either_header(shared_world, header, value):
    headers = {header: value.format(shared_world.client_key)}
    assert shared_world.client.get(MODELS, headers=headers).status_code == 200


def test_one_right_key_of_two_is_enough(shared_world):
    right, wrong = shared_world.client_key, "gw-wrong"
    for first, second in ((right, wrong), (wrong, right)):
        headers = {"api-key": first, "Authorization": f"Bearer {second}"}
        assert shared_world.client.get(MODELS, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers, code",
    [
        ({}, "missing_api_key"),
        ({"Authorization": ""}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": "Bearer "}, "missing_api_key"),
        ({"Authorization": "Basic {}"}, "missing_api_key"),
        ({"Authorization": "{}"}, "missing_api_key"),
        ({"api-key": "Bearer {}"}, "invalid_api_key"),
        ({"api-key": "gw-wrong"}, "invalid_api_key"),
        ({"api-key": "{}x"}, "invalid_api_key"),
        ({"api-key": "\xe4\xff"}, "invalid_api_key"),
        # The operator's key is not a client's.
        ({"api-key": ADMIN_KEY}, "invalid_api_key"),
        ({"X-Admin-API-Key": ADMIN_KEY}, "missing_api_key"),
    ],
)
@pytest.mark.parametrize("method, path", [("POST", "/v1/chat/completions"), ("GET", MODELS)])
def test_nobody_is_served_without_a_known_key(shared_world, method, path, headers, code):
    headers = {
        name: value.replace("{}", shared_world.client_key) for name, value in headers.items()
    }
    answer = shared_world.client.open(path, method=method, headers=headers, json=CHAT)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert shared_world.asked() == (0, 0)


def test_every_path_of_the_client_api_needs_a_key(shared_world):
    rules = shared_world.app.url_map.iter_rules()
    paths = {
        r.rule.replace("<path:model>", "gpt-4o").replace("<name>", "resp_1") for r in rules
    }
    paths = {p for p in paths if p.startswith(("/v1/", "/openai/"))}
    assert len(paths) == 56
    for path in paths:
        is_seen = "models" in path or path.endswith(("deployments", "resp_1", "input_items"))
        method = "GET" if is_seen else "POST"
        assert shared_world.client.open(path, method=method, json=CHAT).status_code == 401, path


def test_the_key_is_asked_for_before_the_body_is_looked_at(shared_world):
    assert shared_world.client.post("/v1/chat/completions", data=b"no JSON").status_code == 401


def test_a_removed_key_is_worth_nothing(world):
    with world.parts.database.session() as session:
        keys.remove(session, "app", author=AUTHOR)
    world.parts.syncer.sync()
    assert world.ask().status_code == 401


def again(world, kept):
    """Asked with a head that is like one before."""
    headers = {"api-key": world.client_key}
    answer = world.client.get(MODELS, headers=headers, environ_overrides={KEPT: kept})
    return answer.status_code


def test_keys_of_a_head_that_comes_again_are_hashed_once(world, monkeypatch):
    kept, hashed = KeptHead(), []
    monkeypatch.setattr(auth, "key_hash", lambda *a: hashed.append(a) or keys.key_hash(*a))
    assert [again(world, kept) for _ in range(3)] == [200] * 3
    assert len(hashed) == 1


def test_a_removed_key_is_worth_nothing_though_its_head_came_before(world):
    kept = KeptHead()
    assert again(world, kept) == 200
    with world.parts.database.session() as session:
        keys.remove(session, "app", author=AUTHOR)
    world.parts.syncer.sync()
    assert again(world, kept) == 401


def test_nor_is_one_whose_hash_is_another_now(world):
    kept = KeptHead()
    assert again(world, kept) == 200
    with world.parts.database.session() as session:
        session.execute(update(SecretRow).values(value="00" * 32))
        admin_keys.add(session, "ann", "admin", author=AUTHOR)  # so that it is read again
    world.parts.syncer.sync()
    assert again(world, kept) == 401


@pytest.mark.parametrize("headers", [{}, {"api-key": "whatever"}])
def test_with_client_authentication_off_everybody_is_served(make_world, headers):
    world = make_world(client_auth="off")
    world.add("a")
    answer = world.client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 200
    assert world.received().headers["api-key"] == world.simulator["a"].api_key


def test_without_an_admin_key_the_admin_api_is_closed(make_world):
    world = make_world(admin_api_key="")
    for headers in ({}, {"X-Admin-API-Key": ""}, ADMIN):
        answer = world.client.get("/admin/instances", headers=headers)
        assert answer.status_code == 403
        assert answer.get_json()["error"]["code"] == "admin_api_closed"
        message = answer.get_json()["error"]["message"]
        assert "ADMIN_API_KEY" in message
        assert "flask admins add" in message


@pytest.fixture(autouse=True)
def forgiven(shared_world):
    """Each test begins without the wrong keys of the others."""
    shared_world.parts.admin_key_watch.forgive("127.0.0.1")


@pytest.mark.parametrize("key", [None, "", "wrong", ADMIN_KEY[:-1], ADMIN_KEY + "x", "\xe4"])
def test_the_admin_api_is_closed_to_any_other_key(shared_world, key):
    headers = {} if key is None else {"X-Admin-API-Key": key}
    answer = shared_world.client.get("/admin/instances", headers=headers)
    assert answer.status_code == 401
    assert "X-Admin-API-Key" in answer.get_json()["error"]["message"]
    assert ADMIN_KEY not in answer.text


def test_a_clients_key_does_not_open_the_admin_api(shared_world):
    key = shared_world.client_key
    for name, value in (("X-Admin-API-Key", key), ("api-key", key), ("Authorization", key)):
        answer = shared_world.client.get("/admin/instances", headers={name: value})
        assert answer.status_code == 401


def test_every_path_and_method_of_the_admin_api_needs_its_key(shared_world):
    before = shared_world.everything()
    rules = [
        r for r in shared_world.app.url_map.iter_rules() if r.endpoint.startswith("instances.")
    ]
    assert len(rules) == 5
    for rule in rules:
        for method in rule.methods:
            path = rule.rule.replace("<path:name>", "a")
            answer = shared_world.client.open(path, method=method, json={"enabled": False})
            assert answer.status_code == 401, (method, path)
    assert shared_world.everything() == before


def test_an_admin_key_may_have_any_characters(make_world):
    world = make_world(admin_api_key="schlüssel-€")
    sent = "schlüssel-€".encode().decode("latin-1")  # WSGI's way to hand over bytes
    answer = world.client.get("/admin/instances", headers={"X-Admin-API-Key": sent})
    assert answer.status_code == 200


def add_admin(world, name="ann", role="admin", **more):
    with world.parts.database.session() as session:
        key = admin_keys.add(session, name, role, author=AUTHOR, **more)
    world.parts.snapshots.reload()
    return key


def look(world, key):
    return world.client.get("/admin/instances", headers={"X-Admin-API-Key": key})


@pytest.mark.parametrize("first", ["", ADMIN_KEY])
def test_an_admin_key_opens_the_admin_api_with_or_without_the_environments(make_world, first):
    world = make_world(admin_api_key=first)
    assert look(world, add_admin(world)).status_code == 200
    assert look(world, ADMIN_KEY).status_code == (200 if first else 401)
    assert look(world, "").status_code == 401


def test_several_keys_are_valid_at_a_time_until_each_is_removed(world):
    ann, bob = add_admin(world, "ann"), add_admin(world, "bob", "viewer")
    assert [look(world, key).status_code for key in (ann, bob, ADMIN_KEY)] == [200] * 3
    with world.parts.database.session() as session:
        admin_keys.remove(session, "ann", author=AUTHOR, is_first_set=True)
    world.parts.syncer.sync()
    assert [look(world, key).status_code for key in (ann, bob, ADMIN_KEY)] == [401, 200, 200]


def test_a_key_that_another_worker_removed_opens_nothing(world):
    key = add_admin(world, "ann")
    with world.parts.database.session() as session:
        admin_keys.remove(session, "ann", author=AUTHOR, is_first_set=True)
    assert look(world, key).status_code == 401


def test_who_has_no_key_asks_the_database_for_nothing(world, statements):
    asked = statements(world.parts.database)
    assert look(world, "whatever").status_code == 401
    assert asked == []
    assert look(world, ADMIN_KEY).status_code == 200
    assert len([s for s in asked if "SELECT" in s]) == 1  # the newest revision


def test_a_key_that_is_expired_opens_nothing_and_its_owner_is_told(world, monkeypatch):
    now = time.time()
    key = add_admin(world, expires_at=now + 60)
    assert look(world, key).status_code == 200
    monkeypatch.setattr(auth.time, "time", lambda: now + 60)
    answer = look(world, key)
    assert answer.status_code == 401
    assert "it is expired" in answer.get_json()["error"]["message"]


def test_a_slip_of_the_pen_is_told_from_a_key_that_is_not_known(world):
    key = add_admin(world)
    assert "it is cut off" in look(world, key[:-1]).get_json()["error"]["message"]
    assert "it is not known" in look(world, "whatever").get_json()["error"]["message"]


def test_a_revision_has_the_name_of_the_admin_key(world):
    for name, headers in (("a", {"X-Admin-API-Key": add_admin(world, "ann")}), ("b", ADMIN)):
        body = world.config(name)
        answer = world.client.post("/admin/instances", headers=headers, json=body)
        assert answer.status_code == 201
    with world.parts.database.read() as connection:
        authors = connection.execute(select(RevisionRow.author).order_by(RevisionRow.id))
        assert list(authors.scalars())[-2:] == ["ann", "admin"]


def test_without_what_hashes_are_keyed_with_only_the_environments_key_is_known(world):
    key = add_admin(world)
    with world.parts.database.session() as session:
        session.execute(delete(SecretRow))
        keys.remove(session, "app", author=AUTHOR)  # a revision, so that it is read again
    world.parts.snapshots.reload()
    answer = look(world, key)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "keys_unreadable")
    assert look(world, ADMIN_KEY).status_code == 200


@pytest.fixture
def database_away(world):
    """While its block runs."""

    @contextlib.contextmanager
    def away():
        file = world.parts.database.file
        aside = file.with_name("aside.db")
        file.rename(aside)
        yield
        aside.rename(file)

    return away()


def test_a_worker_that_could_read_no_config_says_so_and_not_that_there_is_none(
    world, database_away, request
):
    """Nor that keys are lost: its operator might go on without them for good."""
    world.add("a")
    with database_away:
        other = request.getfixturevalue("other_worker")
        other.client_key = world.client_key
        for answer in (other.ask(), other.admin("GET")):
            error = answer.get_json()["error"]
            assert (answer.status_code, error["code"]) == (503, "database_unavailable")
            assert "proxy.db is gone" in error["message"]
            assert "has no config yet" in error["message"]
        assert "has no config yet" in other.client.get("/health").get_json()["problem"]
        page = other.client.get("/admin/ui/sign-in")
        assert "proxy.db is gone" in page.text
        assert "PROXY_SECRET_KEY" not in page.text
        assert world.ask().status_code == 200
    other.parts.syncer.sync()
    assert (other.ask().status_code, other.admin("GET").status_code) == (200, 200)


def test_a_client_key_of_the_same_gateway_is_no_admin_key(world):
    add_admin(world)
    assert look(world, world.client_key).status_code == 401
    asked = world.client.get(MODELS, headers={"api-key": add_admin(world, "bob")})
    assert asked.status_code == 401


def guess(world, times=1, key="wrong", address="192.0.2.7", path="/admin/instances"):
    """The answers to so many wrong keys from there."""
    return [
        world.client.get(
            path, headers={"X-Admin-API-Key": key}, environ_base={"REMOTE_ADDR": address}
        )
        for _ in range(times)
    ]


@pytest.fixture
def clock(monkeypatch):
    """Of those who watch for wrong keys."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(key_watch, "time", SimpleNamespace(monotonic=lambda: Clock.now))
    return Clock


def test_after_five_wrong_admin_keys_the_next_are_told_when_to_come_back(world, clock):
    *told, turned_away = guess(world, 6)
    assert [answer.status_code for answer in told] == [401] * 5
    assert turned_away.status_code == 429
    assert turned_away.get_json()["error"]["code"] == "too_many_wrong_keys"
    assert turned_away.headers["retry-after-ms"] == "1000"
    assert turned_away.headers["retry-after"] == "1"
    clock.now += 1
    assert [answer.status_code for answer in guess(world, 2)] == [401, 429]


def test_a_right_key_is_let_in_whatever_came_from_its_address(world, clock):
    viewer = add_admin(world, "ann", "viewer")
    guess(world, 9)
    for key in (viewer, ADMIN_KEY):
        assert guess(world, key=key)[0].status_code == 200


def test_an_admins_key_makes_all_before_it_mistakes_and_a_viewers_does_not(world, clock):
    viewer = add_admin(world, "ann", "viewer")
    guess(world, 9)
    guess(world, key=viewer)
    assert guess(world)[0].status_code == 429
    guess(world, key=ADMIN_KEY)
    assert guess(world)[0].status_code == 401


def test_who_guesses_slows_nobody_elsewhere(world, clock):
    guess(world, 9)
    assert guess(world, address="192.0.2.8")[0].status_code == 401
    guess(world, 9, address="2001:db8::1")
    assert guess(world, address="2001:db8::2")[0].status_code == 429
    assert guess(world, address="2001:db8:0:1::1")[0].status_code == 401


def test_a_missing_key_is_no_guess(world, clock):
    assert [answer.status_code for answer in guess(world, 9, key="")] == [401] * 9
    assert guess(world)[0].status_code == 401


def test_who_has_an_expired_key_is_told_so_however_often(world, clock, monkeypatch):
    key = add_admin(world, expires_at=time.time() + 60)
    monkeypatch.setattr(auth, "time", SimpleNamespace(time=lambda: time.time() + 61))
    answers = guess(world, 9, key=key)
    assert {a.status_code for a in answers} == {401}
    assert "it is expired" in answers[-1].get_json()["error"]["message"]


def test_a_wrong_admin_key_has_a_line_in_the_log_without_the_key(make_world, tmp_path, clock):
    world = make_world(log_dir=tmp_path)
    answers = guess(world, 8, key="secret-guess-1", path="/admin/instances/a%20b/state")
    clock.now += 1
    guess(world, key="secret-guess-2")
    lines = [line for line in world.log().splitlines() if "a wrong admin key" in line]
    assert len(lines) == 6
    assert all(" WARNING " in line for line in lines)
    assert lines[0].endswith(
        'source=192.0.2.7 method=GET path="/admin/instances/a b/state"'
        f" id={answers[0].headers['x-request-id']} count=1"
    )
    assert lines[-1].endswith("count=4")  # with those that were turned away
    assert "secret-guess" not in (tmp_path / "proxy.log").read_text()


def test_an_unknown_client_key_is_turned_away_never_and_logged_once_a_minute(
    make_world, tmp_path, clock
):
    world = make_world(log_dir=tmp_path)
    for _ in range(20):
        answer = world.client.get(MODELS, headers={"api-key": "gw-secret-guess"})
        assert answer.status_code == 401
    clock.now += 60
    world.client.get(MODELS, headers={"api-key": "gw-secret-guess"})
    world.client.get(MODELS)  # without one there is nothing to note
    log = world.log()
    lines = [line for line in log.splitlines() if "an unknown client key" in line]
    assert [line.rpartition(" ")[2] for line in lines] == ["count=1", "count=20"]
    assert "source=127.0.0.1 method=GET path=/v1/models id=" in lines[0]
    assert "secret-guess" not in log


# What a key opens.


@pytest.fixture
def client_of(world):
    """A function from fields to the key of a client that has them."""
    world.add("a")

    def make(**fields):
        with world.parts.database.session() as session:
            key = keys.add(session, "mine", fields, author=AUTHOR)
        world.parts.snapshots.reload()
        return key

    return make


def refusal(answer):
    error = answer.get_json()["error"]
    return answer.status_code, error["code"], error["message"]


def as_client(key, *, source="127.0.0.1", forwarded_for=None):
    headers = {"api-key": key} | ({"X-Forwarded-For": forwarded_for} if forwarded_for else {})
    return {"headers": headers, "environ_overrides": {"REMOTE_ADDR": source}}


@pytest.mark.parametrize(
    "fields, code, words",
    [
        ({"enabled": False}, "api_key_disabled", "This API key is disabled."),
        ({"expires_at": 1.0}, "api_key_expired", "This API key has expired."),
    ],
)
@pytest.mark.parametrize("method, path", [("POST", "/v1/chat/completions"), ("GET", MODELS)])
def test_a_key_that_does_not_open_says_why(world, client_of, method, path, fields, code, words):
    answer = world.client.open(path, method=method, json=CHAT, **as_client(client_of(**fields)))
    assert refusal(answer) == (401, code, words)
    assert world.asked() == (0, 0)


def test_who_comes_with_a_key_that_does_not_open_is_told_of_and_counted(make_world, tmp_path):
    world = make_world(log_dir=tmp_path)
    world.add("a")
    with world.parts.database.session() as session:
        key = keys.add(session, "mine", {"enabled": False}, author=AUTHOR)
    world.parts.snapshots.reload()
    at = as_client(key, source="192.0.2.7")
    assert world.client.post("/v1/chat/completions", json=CHAT, **at).status_code == 401
    assert world.client.get(MODELS, **at).status_code == 401
    unknown = as_client("gw-secret-guess", source="192.0.2.8")
    world.client.post("/v1/chat/completions", json=CHAT, **unknown)
    counted = world.parts.state.take().usage
    assert sorted(where[3] for where in counted) == ["", "mine"]
    assert all(counts["mistaken"] == 1 for counts in counted.values())
    log = world.log()
    assert log.count("client=mine source=192.0.2.7") == 2
    assert "source=192.0.2.8 method=POST" in log  # of an unknown key, as before
    assert "client=mine source=192.0.2.8" not in log
    assert key not in log
    assert key[3:20] not in log


def test_a_key_opens_until_it_expires(world, client_of, monkeypatch):
    key = client_of(expires_at=4_000_000_000.0)
    monkeypatch.setattr("proxy.web.auth.time.time", lambda: 3_999_999_999.9)
    assert world.client.get(MODELS, **as_client(key)).status_code == 200
    monkeypatch.setattr("proxy.web.auth.time.time", lambda: 4_000_000_000.0)
    assert world.client.get(MODELS, **as_client(key)).status_code == 401


def test_a_former_key_opens_until_its_grace_is_over(world, client_of, monkeypatch):
    former = client_of()
    with world.parts.database.session() as session:
        key = keys.rotate(session, "mine", grace_seconds=60, author=AUTHOR)
    world.parts.snapshots.reload()
    assert world.client.get(MODELS, **as_client(former)).status_code == 200
    monkeypatch.setattr("proxy.web.auth.time.time", lambda: 4_000_000_000.0)
    answer = world.client.get(MODELS, **as_client(former))
    assert refusal(answer)[:2] == (401, "api_key_replaced")
    assert world.client.get(MODELS, **as_client(key)).status_code == 200


@pytest.mark.parametrize(
    "source, status", [("10.1.2.3", 200), ("192.0.2.7", 200), ("192.0.2.8", 403), ("", 403)]
)
def test_a_key_opens_only_from_its_networks(world, client_of, source, status):
    key = client_of(allowed_networks=["10.0.0.0/8", "192.0.2.7/32"])
    answer = world.client.get(MODELS, **as_client(key, source=source))
    assert answer.status_code == status
    if status == 403:
        where = source or "an unknown address"
        said = f"This API key may not be used from {where}."
        assert refusal(answer) == (403, "source_not_allowed", said)


@pytest.mark.parametrize(
    "source, forwarded_for, status",
    [
        ("127.0.0.1", "10.1.2.3", 200),
        ("127.0.0.1", "10.1.2.3, 192.0.2.9", 403),  # whom our proxy names is not of ours
        ("127.0.0.1", None, 403),
        ("192.0.2.9", "10.1.2.3", 403),  # anybody can write that
    ],
)
def test_only_a_trusted_proxy_is_believed_whom_it_speaks_for(
    make_world, source, forwarded_for, status
):
    world = make_world(trusted_proxies=networks(["127.0.0.0/8"]))
    with world.parts.database.session() as session:
        key = keys.add(session, "mine", {"allowed_networks": ["10.0.0.0/8"]}, author=AUTHOR)
    world.parts.snapshots.reload()
    answer = world.client.get(
        MODELS, **as_client(key, source=source, forwarded_for=forwarded_for)
    )
    assert answer.status_code == status


def test_without_trusted_proxies_nobody_is_believed(world, client_of):
    key = client_of(allowed_networks=["10.0.0.0/8"])
    answer = world.client.get(MODELS, **as_client(key, forwarded_for="10.1.2.3"))
    assert answer.status_code == 403


def test_of_two_keys_the_one_that_opens_counts(world, client_of):
    shut = client_of(enabled=False)
    for first, second in ((shut, world.client_key), (world.client_key, shut)):
        headers = {"api-key": first, "Authorization": f"Bearer {second}"}
        assert world.client.get(MODELS, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "mistaken, words",
    [
        (lambda key: key[:-3], "cannot be one: it is cut off: it has 49 of 52 characters."),
        (lambda key: key + "x", "cannot be one: it is too long"),
        (lambda key: key[:9] + "?" + key[10:], "it has a character that no key has."),
        (lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"), "it is mistyped"),
        (lambda key: "gw-" + key[3:], "Incorrect API key provided: it is not known here."),
    ],
)
def test_a_slip_of_the_pen_is_told_as_such_and_the_key_is_not_quoted(
    shared_world, mistaken, words
):
    key = mistaken(shared_world.client_key)
    answer = shared_world.client.get(MODELS, headers={"api-key": key})
    status, code, message = refusal(answer)
    assert (status, code) == (401, "invalid_api_key")
    assert words in message
    assert key[3:20] not in answer.text


def test_with_client_authentication_off_a_key_that_does_not_open_is_nobodys(make_world):
    world = make_world(client_auth="off")
    world.add("a")
    with world.parts.database.session() as session:
        key = keys.add(session, "mine", {"enabled": False}, author=AUTHOR)
    world.parts.snapshots.reload()
    assert world.ask(headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_wrong_keys_are_counted_where_a_trusted_proxy_says_they_come_from(make_world, clock):
    world = make_world(trusted_proxies=networks(["127.0.0.0/8"]))

    def wrong(source):
        headers = {"X-Admin-API-Key": "wrong", "X-Forwarded-For": source}
        return world.client.get("/admin/instances", headers=headers).status_code

    assert [wrong("192.0.2.7") for _ in range(6)] == [401] * 5 + [429]
    assert wrong("192.0.2.8") == 401
