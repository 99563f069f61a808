"""Resolver strategy for the statistics of the last blessed model's data."""

from ml_metadata.metadata_store import MetadataStore
from tfx import types
from tfx.dsl.components.common import resolver
from tfx.types import standard_artifacts

_RUN = "pipeline_run"


class LatestBlessedStatistics(resolver.ResolverStrategy):  # type: ignore[misc]
    """Strategy for a Resolver with a channel of ExampleStatistics and one of ModelBlessing.

    Resolves to the statistics and the blessing of the latest run that blessed its model; to
    nothing where there is none.
    """

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Chooses among all statistics and blessings of the pipeline.

        Args:
            store: ML Metadata.
            input_dict: The artifacts by channel.

        Returns:
            The same channels with one artifact each, or none.
        """
        kinds = {
            type(artifacts[0]): (key, artifacts)
            for key, artifacts in input_dict.items()
            if artifacts
        }
        nothing: dict[str, list[types.Artifact]] = {key: [] for key in input_dict}
        if len(kinds) < 2:
            return nothing
        blessing_key, blessings = kinds[standard_artifacts.ModelBlessing]
        statistics_key, statistics = kinds[standard_artifacts.ExampleStatistics]
        for blessing in sorted(blessings, key=lambda artifact: artifact.id, reverse=True):
            if blessing.get_int_custom_property("blessed") != 1:
                continue
            # A blessing by hand belongs to no run, but its model does.
            model = blessing.get_int_custom_property("current_model_id")
            runs = _runs(store, blessing.id) or _runs(store, model)
            # A cached artifact belongs to several runs; the first of them made it.
            same_run = {a.id for run in runs[:1] for a in store.get_artifacts_by_context(run)}
            # Those that Transform computes have no splits.
            same = [a for a in statistics if a.id in same_run and a.split_names]
            if same:
                return {statistics_key: same[-1:], blessing_key: [blessing]}
        return nothing


def _runs(store: MetadataStore, artifact: int) -> list[int]:
    """Returns contexts of the runs that an artifact belongs to, the first one first."""
    contexts = store.get_contexts_by_artifact(artifact) if artifact else ()
    return sorted(context.id for context in contexts if context.type == _RUN)
