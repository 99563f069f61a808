"""Schedules of all kinds, for property tests."""

from hypothesis import strategies as st

from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import ScheduleConfig

SCHEDULES = st.builds(
    ScheduleConfig,
    plateau=st.builds(
        PlateauConfig,
        patience=st.integers(1, 50),
        min_delta=st.floats(0, 1),
        cooldown=st.integers(0, 5),
        smoothing=st.sampled_from(["none", "ema", "median"]),
    ),
    strategy=st.sampled_from(["lr_decay", "batch_increase", "hybrid", "auto"]),
    plan=st.sampled_from([None, "batch*2, lr/5"]),
    factor=st.floats(1.5, 8),
    max_batch_size=st.none() | st.integers(1024, 4096),
    time_budget=st.none() | st.floats(1, 1e6),
)
