"""Jobs: one YAML file each, for schedulers and people."""

from lake.job.clusters import Cluster, Drift
from lake.job.common import Report, Run
from lake.job.conf import Document
from lake.job.kinds import KINDS, BuildIndex, Compact, Dedup, Etl, Job
from lake.job.neighbours import Classify, KnnJoin, Mine, Outliers
from lake.job.open import open_job

__all__ = [
    "KINDS",
    "BuildIndex",
    "Classify",
    "Cluster",
    "Compact",
    "Dedup",
    "Document",
    "Drift",
    "Etl",
    "Job",
    "KnnJoin",
    "Mine",
    "Outliers",
    "Report",
]
__all__ += ["Run", "open_job"]
