import html
import json
import re
from dataclasses import replace

import pytest

from components import notebook
from trainer_module.history import EpochRecord, History

pytestmark = pytest.mark.component


def test_decisions_are_drawn_at_their_epochs() -> None:
    first = EpochRecord(
        epoch=1,
        metrics={"loss": 1.0, "val_loss": 1.0},
        learning_rate=0.1,
        batch_size=8,
        update_noise=1.0,
        simple_noise_scale=None,
        updates=10,
        examples=80,
        seconds=1.0,
        action="none",
        reason="",
        best=True,
    )
    actions = ("none", "batch_increase", "none", "lr_decay", "stop")
    epochs = [replace(first, epoch=n, action=a) for n, a in enumerate(actions, 1)]
    assert "No epoch was finished" in notebook.plot(History({}, "val_loss", "min"))
    page = html.unescape(notebook.plot(History({}, "val_loss", "min", epochs)))
    data = re.search(r'id="page-data">(.*?)</script>', page)[1]
    plot = json.loads(data)["training"]
    shapes = plot["layout"]["shapes"]
    assert [plot["axes"]["epochs"][shape["x0"]] for shape in shapes] == [2, 4, 5]
