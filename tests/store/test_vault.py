import os
import stat

import pytest
from cryptography.fernet import Fernet

from proxy.store.vault import MARK, NO_VAULT, CannotOpen, Vault, VaultClosed
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
    assert str(caught.value) == "it was encrypted with another key than PROXY_SECRET_KEY"
    assert caught.value.__cause__ is None


def test_without_a_key_nothing_is_sealed_and_nothing_opened(path):
    with pytest.raises(VaultClosed, match="no key to encrypt it with"):
        NO_VAULT.seal(SECRET)
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
