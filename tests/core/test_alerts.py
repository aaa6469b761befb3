from proxy.core.alerts import Alert


def test_an_alert_is_an_event_with_its_moment():
    alert = Alert("breaker_opened", 5.0, "east fails", {"instance": "east"})
    assert (alert.event, alert.at, alert.fields["instance"]) == ("breaker_opened", 5.0, "east")
