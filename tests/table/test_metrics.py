import pytest

from tombola.table.metrics import METRIC_OF_QUANTITY, METRICS, metric_name, metric_of, metric_order


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("val_accuracy", 93.456, "93.46%"),
        ("barrier", -0.5, "\N{MINUS SIGN}0.50"),
        ("first_stable_epoch", 12.34, "12.3"),
        ("late_forgetting_events", 0.01234, "0.0123"),
        ("untrained.loss", 2.345678, "2.346"),
    ],
)
def test_a_value_has_the_digits_and_unit_of_its_metric(name: str, value: float, text: str) -> None:
    metric = metric_of(name)
    assert metric.text(value) + metric.suffix == text


def test_a_metric_that_is_not_registered_goes_by_its_own_name_and_comes_last() -> None:
    assert metric_of("distance_moved").label == "distance moved"
    assert metric_order("distance_moved") == len(METRICS)
    assert metric_order("val_accuracy") == 0


def test_quantities_of_measures_have_the_names_of_metrics() -> None:
    assert metric_name("barrier", "height", "copies") == "barrier"
    assert metric_name("barrier", "height", "rounds") == "barrier_to_next"
    assert metric_name("barrier", "height", "copies", recalibrated=True) == "recalibrated_barrier"
    assert metric_name("barrier", "height") == "barrier.height"
    assert metric_name("untrained", "accuracy", recalibrated=True) == "recalibrated_untrained_accuracy"
    assert metric_name("untrained", "loss", recalibrated=True) == "untrained.loss"
    assert metric_name("distance-moved", "") == "distance-moved"
    assert set(METRIC_OF_QUANTITY.values()) <= set(METRICS)
