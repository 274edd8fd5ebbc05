"""Controls of the live viewer that draw further scenes from a model."""

import dataclasses
from collections.abc import Callable
from typing import Any

from lgs_jax.core.gaussians import Gaussians

ANY_CLASS = "any"
_MAX_STEPS, _MAX_GUIDANCE = 100, 8.0


@dataclasses.dataclass(frozen=True)
class Wish:
    """A scene to draw.

    Attributes:
      seed: of its noise.
      steps: of the sampler.
      guidance: scale of classifier-free guidance; 1: none.
      class_name: of the scene; None: any.
    """

    seed: int = 0
    steps: int = 25
    guidance: float = 1.0
    class_name: str | None = None

    def __str__(self) -> str:
        kind = f"{self.class_name}, " if self.class_name else ""
        return f"{kind}seed {self.seed}, {self.steps} steps, guidance {self.guidance:g}"


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What draws scenes.

    Attributes:
      draw: makes the scene of a wish; raises ValueError for one that cannot be fulfilled.
      first: what the controls show at the beginning.
      class_names: of the model's classes.
    """

    draw: Callable[[Wish], Gaussians]
    first: Wish
    class_names: tuple[str, ...] = ()


class Panel:
    """The controls.

    Attributes:
      seed, steps, guidance, kind, button: the controls.
      status: what is going on, or went wrong.
    """

    def __init__(self, gui: Any, sampling: Sampling, add: Callable[[str, Gaussians], None]):
        """Adds the controls; `add` is given the name and splats of every new scene."""
        self._sampling, self._add = sampling, add
        first = sampling.first
        with gui.add_folder("Another sample"):
            self.seed = gui.add_number("Seed", first.seed + 1, min=0, step=1)
            most, strongest = max(_MAX_STEPS, first.steps), max(_MAX_GUIDANCE, first.guidance)
            self.steps = gui.add_slider("Steps", 1, most, 1, first.steps)
            self.guidance = gui.add_slider("Guidance", 0.0, strongest, 0.25, first.guidance)
            self.kind = gui.add_dropdown(
                "Class",
                (ANY_CLASS, *sampling.class_names),
                initial_value=first.class_name or ANY_CLASS,
                visible=bool(sampling.class_names),
            )
            self.button = gui.add_button("Sample")
            self.status = gui.add_markdown("")
        self.button.on_click(lambda _: self.sample())

    def sample(self) -> None:
        """Draws what the controls say, and counts the seed on."""
        wish = Wish(
            seed=int(self.seed.value),
            steps=int(self.steps.value),
            guidance=float(self.guidance.value),
            class_name=None if self.kind.value == ANY_CLASS else self.kind.value,
        )
        self.button.disabled = True
        self.status.content = f"sampling: {wish} ..."
        try:
            scene = self._sampling.draw(wish)
        except ValueError as error:
            self.status.content = f"**{error}**"
            return
        finally:
            self.button.disabled = False
        self.status.content = ""
        self.seed.value = wish.seed + 1
        self._add(str(wish), scene)
