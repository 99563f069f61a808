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


def test_it_ends_without_a_traceback_in_whatever_order_modules_were_imported() -> None:
    """Python ends TensorFlow's modules before those that were imported earlier."""
    code = (
        "import io\n"
        "from PIL import Image\n"
        "from components.image_example_gen import image, shard\n"
        "file = io.BytesIO()\n"
        "Image.new('L', (8, 8)).save(file, 'PNG')\n"
        "content, _ = image.prepare(file.getvalue())\n"
        "print(image.faults([content]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[None]"
    assert "Exception" not in done.stderr
