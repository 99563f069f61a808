import pytest


@pytest.fixture
def hardware():
    """A machine as `benchmarks.report.machine` describes it."""
    return {
        "date": "2026-01-02",
        "processor": "CPU",
        "cores": 2,
        "extensions": ["avx2"],
        "memory_gib": 8.0,
        "load_before": 0.1,
        "python": "3.10",
        "tensorflow": "2",
        "keras": "3",
        "tfx": "1",
    }
