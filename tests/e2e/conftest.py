import compileall

import layout
import pytest

from runs import Done, plateau


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    """The image's /app, bytecode and all."""
    folder = layout.build(tmp_path_factory.mktemp("image"))
    compileall.compile_dir(folder, quiet=1)
    return folder


@pytest.fixture(scope="session")
def first(tmp_path_factory) -> Done:
    """The first run of the digits preset; later runs go on in its folder."""
    return plateau("run", "digits", output=tmp_path_factory.mktemp("digits") / "run")
