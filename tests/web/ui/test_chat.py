def test_the_page_offers_the_models_that_are_served_and_no_key(world, admin):
    world.add("a", supported_models=["gpt-4o", "o3"])
    text = admin.get("chat").text
    assert '<option value="gpt-4o">' in text
    assert '<option value="o3">' in text
    assert world.client_key not in text


def test_the_page_is_there_before_anything_is(admin):
    assert admin.get("chat").status_code == 200
