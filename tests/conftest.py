import logging
from pathlib import Path

import pytest

from trainer_module.util import environment

environment.prepare()
logging.getLogger("tensorflow").setLevel(logging.ERROR)

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the project")
    return SHARED
