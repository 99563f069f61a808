import keras
import numpy as np
import pytest

from trainer_module.config import MODELS, NetworkConfig
from trainer_module.models.registry import build


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (33, 20, 3)])
def test_built_in_models_give_logits_for_pictures_of_any_size(name, shape):
    model = build(shape, 5, NetworkConfig(model=name, width_multiplier=0.05, dropout=0.1))
    logits = model(np.full((2, *shape), 255.0, np.float32))
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()


def test_the_multilayer_perceptron_takes_vectors():
    assert build((12,), 2, NetworkConfig(model="mlp")).output_shape == (None, 2)


def test_the_width_multiplier_widens():
    narrow, wide = (
        build((8, 8, 1), 2, NetworkConfig(width_multiplier=width)).count_params()
        for width in (0.5, 1.0)
    )
    assert 3 < wide / narrow < 5


def test_vgg16_has_the_published_layers():
    model = build((32, 32, 3), 10, NetworkConfig(model="vgg16"))
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(keras.layers.Conv2D) == 13
    assert kinds.count(keras.layers.Dense) == 3
    # 14,714,688 in the convolutions, as published; the dense layers start from 512 values here.
    assert model.count_params() == 14_714_688 + 513 * 4096 + 4097 * 4096 + 4097 * 10


def test_an_own_model_by_dotted_path(monkeypatch, tmp_path):
    (tmp_path / "my_models.py").write_text(
        "import keras\n"
        "def build(shape, classes, config):\n"
        "    inputs = keras.Input(shape)\n"
        "    extra = 1 if config.dropout else 0\n"
        "    return keras.Model(inputs, keras.layers.Dense(classes + extra)(inputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build((4,), 3, NetworkConfig(model="my_models.build")).output_shape == (None, 3)
    with pytest.raises(ValueError, match=r"of shape \(None, 3\), got \(None, 4\)"):
        build((4,), 3, NetworkConfig(model="my_models.build", dropout=0.5))


@pytest.mark.parametrize("name", ["nosuch", "no.such.module", "math.nosuch"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"{', '.join(MODELS)} or the dotted path.*{name}"):
        build((4,), 3, NetworkConfig(model=name))
