import subprocess
import sys

import pytest

pytestmark = pytest.mark.component


def run(code: str) -> str:
    """The last line that a Python of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("program", "imported"),
    [("apache_beam.runners.worker.sdk_worker_main", False), ("apache_beam", True)],
)
def test_only_a_worker_of_beam_goes_without_keras(program: str, imported: bool) -> None:
    code = (
        "import importlib.util, sys\n"
        f"sys.modules['__main__'].__spec__ = importlib.util.find_spec({program!r})\n"
        "from components.image_example_gen import image, shard\n"
        "assert image.faults([b'no picture']) != [None]\n"
        "found = 'keras' in sys.modules\n"
        "import keras\n"
        "print(found, keras.__version__[0])"
    )
    assert run(code) == f"{imported} 3"


def test_a_worker_of_beam_does_not_import_tfx() -> None:
    code = (
        "import sys, pickle\n"
        "from components.image_example_gen.shard import WriteShard\n"
        "pickle.loads(pickle.dumps(WriteShard('', (), {}, '', 1)))\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'tfx', 'tensorflow'}))"
    )
    assert run(code) == "['tensorflow']"
