import logging
from pathlib import Path

import pytest
from hypothesis import settings

from trainer_module.util import collector, environment

environment.prepare()
logging.getLogger("tensorflow").setLevel(logging.ERROR)
# The time of an example depends on the machine and on what else runs there.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Test modules import TensorFlow and TFX."""
    with collector.paused():
        return (yield)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the project")
    return SHARED
