from benchmarks import hardware

CPUINFO = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu avx2 avx512f amx_bf16x amx_tile

processor\t: 1
model name\t: Another
"""


def test_reads_name_and_whole_flags():
    assert hardware.processor(CPUINFO) == "Some CPU @ 2.00GHz"
    assert hardware.extensions(CPUINFO) == ["avx2", "avx512f", "amx_tile"]


def test_says_nothing_where_there_is_nothing():
    assert hardware.processor("") == ""
    assert hardware.extensions("") == []


def test_describes_a_machine_without_cpuinfo(tmp_path):
    found = hardware.describe(tmp_path / "none")
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["tensorflow"].startswith("2.")
