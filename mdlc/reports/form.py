"""What the figures of a report are called, in the version that this mdlc writes and reads."""

from __future__ import annotations

FORMAT = 1
MEASURED, PREDICTED = "measured", "predicted"
