"""Jobs: one YAML file each, for schedulers and people."""

from lake.job.conf import Document
from lake.job.kinds import KINDS, BuildIndex, Compact, Dedup, Etl, Job, Report, Run
from lake.job.open import open_job

__all__ = ["KINDS", "BuildIndex", "Compact", "Dedup", "Document", "Etl", "Job", "Report", "Run", "open_job"]
