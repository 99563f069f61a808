from dataclasses import replace

import pytest

from trainer_module.schedule.scaling import TrainingSpec, scaling_rule, update_noise

SGD = TrainingSpec(50_000, "sgd", 0.0)


def test_the_update_noise_of_plain_sgd():
    assert update_noise(0.1, 128, SGD) == pytest.approx(0.1 * (50_000 / 128 - 1), rel=1e-15)


def test_momentum_divides_by_one_minus_m():
    spec = replace(SGD, momentum=0.9)
    assert update_noise(0.1, 128, spec) == pytest.approx(10 * update_noise(0.1, 128, SGD))


def test_the_whole_training_split_as_batch_has_no_noise():
    assert update_noise(0.1, 50_000, SGD) == 0.0


@pytest.mark.parametrize(("batch", "quarter"), [(128, 508), (512, 1_987), (2_048, 7_296)])
def test_the_exact_batch_for_a_quarter_of_the_noise(batch, quarter):
    # By hand: N / B' - 1 = (N / B - 1) / 4 solved for B'.
    wanted = update_noise(0.1, batch, SGD) / 4
    nearest = min(
        range(batch, 4 * batch + 1), key=lambda b: abs(update_noise(0.1, b, SGD) - wanted)
    )
    assert nearest == quarter


def test_growing_by_k_drops_the_exact_scale_by_slightly_more_than_k():
    assert 4 < update_noise(0.1, 2_048, SGD) / update_noise(0.1, 8_192, SGD) < 4.6


@pytest.mark.parametrize(
    "name",
    ["adam", "AdamW", "nadam", "RMSprop", "adamax", "Adagrad", "Adadelta", "Adafactor", "Lamb"],
)
def test_adaptive_optimizers_follow_the_square_root_rule(name):
    rule = scaling_rule(name)
    assert rule.exponent == 2
    assert name in rule.text and "sqrt" in rule.text
    spec = TrainingSpec(50_000, name, 0.9)
    assert update_noise(0.1, 128, spec) == pytest.approx(0.01 * (50_000 / 128 - 1))


@pytest.mark.parametrize("name", ["sgd", "SGD"])
def test_sgd_follows_the_linear_rule(name):
    rule = scaling_rule(name)
    assert rule.exponent == 1
    assert "not known" not in rule.text


def test_an_unknown_optimizer_is_treated_as_sgd_and_told_so():
    rule = scaling_rule("Muon")
    assert rule.exponent == 1
    assert rule.text.startswith("Muon: not known to be adaptive")


@pytest.mark.parametrize("field", [{"num_examples": 0}, {"momentum": 1.0}, {"max_batch_size": 0}])
def test_a_spec_out_of_range_is_refused(field):
    with pytest.raises(ValueError, match=f"`{next(iter(field))}` must be"):
        replace(SGD, **field)
