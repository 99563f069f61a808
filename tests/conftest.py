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

# With `--dist loadfile`, the files that take longest begin first, so that both processes end at
# about the same time.
SLOWEST = (
    *("test_kubeflow.py", "test_own_data.py", "test_worker.py", "test_digits.py"),
    *("test_strategies.py", "test_faults.py", "test_tfx_examples.py", "test_notebook.py"),
    *("test_beam.py", "test_mariadb.py", "test_foreign.py"),
)

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Test modules import TensorFlow and TFX."""
    with collector.paused():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> tuple[int, int]:
        name = item.path.name
        markers = ("e2e", "component", "training")
        kinds = [kind for kind, each in enumerate(markers) if item.get_closest_marker(each)]
        return SLOWEST.index(name) if name in SLOWEST else len(SLOWEST), min(kinds, default=3)

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the project")
    return SHARED
