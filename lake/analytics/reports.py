"""What outliers, labels and triplets were found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lake.analytics.told import NeighbourReport


@dataclass(frozen=True, kw_only=True)
class OutlierReport(NeighbourReport):
    """What was found: every row has a score but those without a vector, ``rows = scored + without_vector``.

    The one row of a table that has a vector has no neighbour, and no score.

    Parameters
    ----------
    scored, flagged : int
    threshold : float or None
        The lowest score that is flagged.
    median, largest : float or None
        Of all scores.
    searched_again : int
        Rows that were compared with every other after the join.
    """

    scored: int
    flagged: int
    threshold: float | None
    median: float | None
    largest: float | None
    searched_again: int

    def found(self) -> list[str]:
        """Say what was found, in lines."""
        lines = [f"{self.rows:,} rows = {self.scored:,} scored + {self.without_vector:,} without a vector"]
        if self.flagged:
            lines.append(
                f"{self.flagged:,} flagged, with scores from {self.threshold:g}; the median is {self.median:g}, "
                f"the largest {self.largest:g}"
            )
        if self.searched_again:
            lines.append(f"{self.searched_again:,} rows were compared with every other, after the join")
        return lines


@dataclass(frozen=True, kw_only=True)
class ClassifyReport(NeighbourReport):
    """What was found: ``rows = labelled + undecided + without_vector``.

    Parameters
    ----------
    label : str
    examples : int
        Rows that have a label, whose votes were counted.
    labelled : int
        Rows that got one.
    undecided : int
        Rows whose confidence is below `least`; should one have no neighbour at all, it is not in the result.
    least : float
    accuracy : mapping or None
        Rows of a sample of examples got a label by the votes of all the other examples: the share of right labels
        among those decided (``measured``, with the 95% interval ``low`` to ``high``), of so many (``sample``),
        ``decided`` of them; ``baseline`` is the share that the sample's commonest label would get right. ``None`` if
        nothing could be measured.
    """

    label: str
    examples: int
    labelled: int
    undecided: int
    least: float
    accuracy: Mapping[str, float] | None = field(hash=False)

    def found(self) -> list[str]:
        """Say what was found, in lines."""
        counts = (
            f"{self.rows:,} rows = {self.labelled:,} labelled + {self.undecided:,} undecided (confidence below "
            f"{self.least:g}) + {self.without_vector:,} without a vector; {self.label!r} of {self.examples:,} examples"
        )
        if self.accuracy is None:
            return [counts, "accuracy: not measured"]
        told = self.accuracy
        accuracy = (
            f"accuracy {told['measured']:.3f} ({told['low']:.3f} to {told['high']:.3f}) by leaving one out, "
            f"{told['decided']:,} of {told['sample']:,} examples decided; the commonest label alone: "
            f"{told['baseline']:.3f}"
        )
        return [counts, accuracy]


@dataclass(frozen=True, kw_only=True)
class MineReport(NeighbourReport):
    """What was found: ``rows = mined + no_positive + no_negative + without_vector``.

    Parameters
    ----------
    label : str
    triplets : int
        Rows of the result.
    mined : int
        Anchors that have triplets.
    no_positive, no_negative : int
        Anchors that have none: no row of their label is among the k nearest, or none of another that is far enough.
    refused : int
        Neighbours of another label that were too near to be taken for negatives.
    """

    label: str
    triplets: int
    mined: int
    no_positive: int
    no_negative: int
    refused: int

    def found(self) -> list[str]:
        """Say what was found, in lines."""
        counts = (
            f"{self.rows:,} anchors = {self.mined:,} mined + {self.no_positive:,} without a positive + "
            f"{self.no_negative:,} without a negative + {self.without_vector:,} without a vector"
        )
        return [
            counts,
            f"{self.triplets:,} triplets; {self.refused:,} neighbours of another {self.label!r} were too near",
        ]
