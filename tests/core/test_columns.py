from proxy.core.columns import aligned, width


def test_cells_of_a_column_are_as_wide_as_its_widest():
    assert list(aligned([("NAME", "N"), ("a", "10"), ("long-name", "")])) == [
        "NAME       N",
        "a          10",
        "long-name",
    ]


def test_nothing_is_nothing():
    assert list(aligned([])) == []


def test_wide_and_combining_characters_take_the_places_they_take():
    assert (width("東京"), width("e\u0301"), width("ab")) == (4, 1, 2)
    assert list(aligned([("東京", "1"), ("abc", "2")])) == ["東京  1", "abc   2"]


def test_no_cell_moves_the_cursor():
    assert list(aligned([("a\x1b[2J\r\n", "b")])) == ["a [2J    b"]
