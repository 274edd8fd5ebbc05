"""What a source left out, and why."""

import dataclasses
from typing import Any

POLICIES = ("skip", "error")


class DataError(ValueError):
    """A fault in the data: names the file, what was found, what was expected and what to do."""


def counted(number: int, noun: str) -> str:
    """`1 scene`, `2 scenes`: a number of what the noun says, which takes an s."""
    return f"{number} {noun}{'s' * (number != 1)}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One scene or frame that was left out.

    Attributes:
      scene: the scene's key.
      reason: what was found, what was expected and what to do.
      frame: the frame's name; empty if the whole scene was left out.
    """

    scene: str
    reason: str
    frame: str = ""

    def __str__(self) -> str:
        place = f"scene {self.scene}" + (f", frame {self.frame}" if self.frame else "")
        return f"{place}: {self.reason}"


@dataclasses.dataclass
class Report:
    """Counts of a scan and every scene or frame that it left out.

    Attributes:
      source: what was scanned, for the reader.
      scenes_found, frames_found: before the checks.
      scenes_kept, frames_kept: what the source serves.
      frames_listed: frames left out because the user listed them (`drop_frames`).
      findings: what was left out, in the order of the scan.
    """

    source: str
    scenes_found: int = 0
    frames_found: int = 0
    scenes_kept: int = 0
    frames_kept: int = 0
    frames_listed: int = 0
    findings: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def bad_scenes(self) -> list[Finding]:
        """Findings about whole scenes."""
        return [finding for finding in self.findings if not finding.frame]

    @property
    def bad_frames(self) -> list[Finding]:
        """Findings about single frames."""
        return [finding for finding in self.findings if finding.frame]

    def summary(self, limit: int = 5) -> str:
        """Totals and the first `limit` findings, one a line; scenes come first."""
        lines = [
            f"{self.source}: {self.scenes_kept} of {self.scenes_found} scenes, "
            f"{self.frames_kept} of {self.frames_found} frames"
        ]
        if self.frames_listed:
            lines.append(
                f"left out as listed in drop_frames: {counted(self.frames_listed, 'frame')}"
            )
        ordered = self.bad_scenes + self.bad_frames
        if ordered:
            scenes, frames = len(self.bad_scenes), len(self.bad_frames)
            lines.append(
                f"left out as bad: {counted(scenes, 'scene')} and {counted(frames, 'frame')}"
            )
        lines += [f"  {finding}" for finding in ordered[:limit]]
        if len(ordered) > limit:
            lines.append(f"  ... and {len(ordered) - limit} more, all in the data report")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return dataclasses.asdict(self)
