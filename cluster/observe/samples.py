"""How many samples a percentile takes to be known.

The rule is Wilks': a percentile is known where, with 95 % confidence, at least one sample lies at or beyond it, so that
the samples bound it from above. Of n samples none lies beyond the percentile p with the probability p^n, so n is the
least with p^n <= 0.05: 59 samples for p95, 299 for p99, 2,995 for p99.9. Of fewer, the "percentile" is the largest
sample or little less, and the next run has another. See S. S. Wilks, "Determination of Sample Sizes for Setting
Tolerance Limits", Annals of Mathematical Statistics 12 (1941), pp. 91-96.
"""

from __future__ import annotations

import math

CONFIDENCE = 0.95


def needed(fraction: float) -> int:
    """Return of how many samples a percentile, as a fraction between 0 and 1, is known.

    >>> [needed(each) for each in (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)]
    [5, 29, 59, 299, 2995, 29956]
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(fraction))


def are_enough(samples: int, fraction: float) -> bool:
    """Return whether a percentile of so many samples is known."""
    return samples >= needed(fraction)
