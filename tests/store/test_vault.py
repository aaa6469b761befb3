import os
import stat

import pytest
from cryptography.fernet import Fernet

from proxy.store.vault import MARK, NO_VAULT, CannotOpen, Vault, VaultClosed, new_key
from tests.builders import VAULT

SECRET = "sk-planted-secret-0123456789"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "instance" / "secret.key"


@pytest.mark.parametrize("text", [SECRET, "", "ä€\U0001f600", "\udcff", "x" * 4000])
def test_what_was_sealed_is_opened_as_it_was(text):
    sealed = VAULT.seal(text)
    assert sealed.startswith(MARK)
    assert VAULT.open(sealed) == text


def test_what_is_sealed_tells_nothing_and_is_never_the_same_twice():
    one, other = VAULT.seal(SECRET), VAULT.seal(SECRET)
    assert one != other
    assert SECRET not in one


def test_the_first_key_seals_and_each_opens():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealed = Vault([old]).seal(SECRET)
    both = Vault([new, old])
    assert both.open(sealed) == SECRET
    assert Vault([new]).open(both.seal(SECRET)) == SECRET


def test_another_key_opens_nothing_and_the_error_quotes_nothing():
    with pytest.raises(CannotOpen) as caught:
        Vault([Fernet.generate_key().decode()]).open(VAULT.seal(SECRET))
    assert str(caught.value) == "it was encrypted with another key"
    assert caught.value.__cause__ is None


def test_without_a_key_nothing_is_sealed_and_nothing_opened(path):
    with pytest.raises(VaultClosed, match="the key is missing: it belongs in PROXY_SECRET_KEY"):
        NO_VAULT.seal(SECRET)
    with pytest.raises(VaultClosed, match=f"the key is missing: it belongs in the file {path}"):
        Vault(path=path).seal(SECRET)
    with pytest.raises(CannotOpen, match="the key is missing"):
        Vault(path=path).open(VAULT.seal(SECRET))
    assert not path.exists()


def test_a_first_key_is_made_that_only_its_owner_can_read(path):
    before = os.umask(0)
    try:
        Vault(path=path).make_key()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert Vault(path=path).open(Vault(path=path).seal(SECRET)) == SECRET


def test_a_key_that_is_there_is_kept(path):
    Vault(path=path).make_key()
    before = path.read_bytes()
    Vault(path=path).make_key()
    assert path.read_bytes() == before


def test_with_a_key_of_the_setting_no_file_is_made(path):
    Vault([Fernet.generate_key().decode()], path).make_key()
    assert not path.exists()


# A file that changes.


@pytest.fixture
def vault(path):
    vault = Vault(path=path)
    vault.make_key()
    return vault


def test_a_new_key_is_used_by_those_who_run_and_the_former_opens_what_it_sealed(path, vault):
    """As another process has it that never heard of the change."""
    running = Vault(path=path)
    before = running.seal(SECRET)
    vault.add_key()
    assert running.count == 2
    after = running.seal(SECRET)
    assert Vault([path.read_text().split()[0]]).open(after) == SECRET
    assert running.open(before) == SECRET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_another_key_sealed_is_sealed_anew_and_the_rest_left(path, vault):
    before = vault.seal(SECRET)
    assert vault.resealed(before) is None
    vault.add_key()
    after = vault.resealed(before)
    assert vault.resealed(after) is None
    assert vault.forget_old() == 1
    assert vault.forget_old() == 0
    assert vault.open(after) == SECRET
    with pytest.raises(CannotOpen):
        vault.open(before)
    with pytest.raises(CannotOpen):
        vault.resealed(before)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.unlink(), "the key is missing: it belongs in the file"),
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: path.write_text("no key\n"), "holds something else than keys"),
        (lambda path: path.write_bytes(b"\xff" * 44), "holds something else than keys"),
        (lambda path: (path.unlink(), path.mkdir()), "holds something else than keys"),
    ],
)
def test_a_file_that_is_lost_closes_the_vault_for_what_is_new_only(path, vault, damage, said):
    """What is encrypted with a key that is in no file could never be read again."""
    before = vault.seal(SECRET)
    damage(path)
    assert vault.open(before) == SECRET
    with pytest.raises(VaultClosed, match=said) as caught:
        vault.seal(SECRET)
    assert said in vault.problem
    with pytest.raises(CannotOpen, match=said):
        Vault(path=path).open(before)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_put_back_opens_all_again(path, vault):
    before, key = vault.seal(SECRET), path.read_bytes()
    path.write_text(new_key())
    with pytest.raises(CannotOpen):
        vault.open(before)  # not even what was opened before: the key is another one
    path.write_bytes(key)
    assert (vault.open(before), vault.problem) == (SECRET, None)


def test_a_lost_file_is_never_replaced_by_a_change_of_keys(path, vault):
    path.unlink()
    for change in (vault.add_key, vault.forget_old):
        with pytest.raises(VaultClosed, match="the key is missing"):
            change()
    assert not path.exists()


def test_keys_of_the_setting_are_changed_there():
    with pytest.raises(
        VaultClosed, match="PROXY_SECRET_KEY cannot be changed: they are not in"
    ):
        VAULT.add_key()


def test_a_link_stays_one(path, vault, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    os.rename(path, elsewhere)
    path.symlink_to(elsewhere)
    vault.add_key()
    assert path.is_symlink()
    assert len(elsewhere.read_text().split()) == 2


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(path, vault, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", denied)
    before = path.read_bytes()
    with pytest.raises(VaultClosed, match="cannot be written: Permission denied"):
        vault.add_key()
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode, is_exposed", [(0o600, False), (0o400, False), (0o640, True)])
def test_whether_others_can_read_the_file_is_known(path, vault, mode, is_exposed):
    path.chmod(mode)
    assert vault.is_exposed is is_exposed
    assert not VAULT.is_exposed


def test_what_is_kept_of_opened_secrets_is_bounded(monkeypatch, vault):
    monkeypatch.setattr("proxy.store.vault.MAX_KEPT", 2)
    sealed = [vault.seal(str(n)) for n in range(5)]
    assert [vault.open(each) for each in sealed] == list("01234")
    assert len(vault._present().opened) <= 2
