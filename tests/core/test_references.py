import pytest

from proxy.core.references import is_reference, is_variable, key_mistake, mistake


@pytest.mark.parametrize("value", ["env:NAME", "file:/run/secrets/key", "env:", "file:x"])
def test_what_begins_so_is_a_reference(value):
    assert is_reference(value)


@pytest.mark.parametrize("value", ["", "NONE", "sk-env:NAME", "ENV:NAME", "http://proxy"])
def test_what_does_not_is_the_secret_itself(value):
    assert not is_reference(value)


@pytest.mark.parametrize(
    "reference",
    [
        "env:A",
        "env:_a1",
        "env:AZURE_KEY_2",
        "file:/k",
        "file:/run/my secrets/k",
        "file:/a/../ä",
    ],
)
def test_what_may_be_written(reference):
    assert mistake(reference) is None


@pytest.mark.parametrize(
    "reference, said",
    [
        ("env:", "must be the name of a variable"),
        ("env:1A", "must be the name of a variable"),
        ("env:A B", "must be the name of a variable"),
        ("env:A\n", "must be the name of a variable"),
        ("env:$A", "must be the name of a variable"),
        ("env:ADMIN_API_KEY", "a setting of the gateway itself"),
        ("env:PROXY_SECRET_KEY", "a setting of the gateway itself"),
        ("env:AZURE_CLIENT_SECRET", "a setting of the gateway itself"),
        ("env:IDENTITY_HEADER", "a setting of the gateway itself"),
        ("env:MSI_SECRET", "a setting of the gateway itself"),
        ("env:OTEL_EXPORTER_OTLP_HEADERS", "a setting of the gateway itself"),
        ("env:OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a setting of the gateway itself"),
        ("env:PROXY_ANYTHING", "a setting of the gateway itself"),
        ("file:", "must be an absolute path"),
        ("file:key", "must be an absolute path"),
        ("file:~/key", "must be an absolute path"),
        ("file:///etc/key", "must be an absolute path"),
        ("file:/a\nb", "control characters"),
        ("file:/a\0", "control characters"),
        ("file:/a ", "no space at its end"),
        ("file:/" + "a" * 2000, "Is longer than 2000"),
    ],
)
def test_what_is_wrong_with_one_is_said(reference, said):
    assert said in mistake(reference)


@pytest.mark.parametrize("name", ["ADMIN_API_KEY_OF_AZURE", "MY_PROXY_KEY"])
def test_others_settings_may_have_such_names(name):
    assert mistake(f"env:{name}") is None


@pytest.mark.parametrize("key", ["k", "sk-!~", "NONE"])
def test_what_can_be_sent_as_a_key(key):
    assert key_mistake(key) is None


@pytest.mark.parametrize("key", ["", "a b", "a\n", "ä", "\x7f"])
def test_what_cannot(key):
    assert "printable ASCII" in key_mistake(key)


@pytest.mark.parametrize("key", ["$KEY", "$_", "${KEY}", "${KEY:-none}", "${}", "$AZURE_KEY_2"])
def test_what_a_shell_should_have_replaced_is_a_variable(key):
    assert is_variable(key)


@pytest.mark.parametrize("key", ["", "$", "$ecret", "$KEY-1", "a$KEY", "${KEY", "${A}${B}"])
def test_what_only_has_such_a_letter_is_none(key):
    assert not is_variable(key)
