import subprocess
import sys

import pytest

pytestmark = pytest.mark.component


def test_a_worker_of_beam_does_not_import_tfx() -> None:
    code = (
        "import sys, pickle\n"
        "from components.image_example_gen.shard import WriteShard\n"
        "pickle.loads(pickle.dumps(WriteShard('', (), {}, '', 1)))\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'tfx', 'tensorflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=-1, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['tensorflow']"
