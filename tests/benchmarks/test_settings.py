import pytest
import tyro

from benchmarks.settings import PARTS, Settings


def test_measures_everything_unless_told():
    assert tyro.cli(Settings, args=[]).parts == PARTS


def test_parts_and_flags_are_read():
    found = tyro.cli(Settings, args=["stage", "contest", "--quick", "--seeds", "2"])
    assert found.parts == ("stage", "contest") and found.quick and found.seeds == 2


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"seeds": 0}, {"images": 50_000}, {"images": 1}])
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Settings(**bad)
