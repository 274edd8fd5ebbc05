"""Which implementation of the compositing is taken, and what is said about it."""

import sys

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas
from render_scenes import make_cameras, make_scene

from lgs_jax.rendering.splat import dispatch, projection


class TestChoice:
    """Which implementation draws, where the caller names none."""

    @pytest.fixture(autouse=True)
    def _anew(self):
        dispatch._choices.clear()

    def draw(self, implementation=None):
        arguments = (implementation, *composite_arguments())
        return dispatch.composite(*arguments, height=8, width=8, near=0.1, far=10.0)

    def test_is_logged_once(self, caplog):
        with caplog.at_level("INFO", logger="absl"):
            self.draw()
            self.draw()
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == "splats are drawn by the implementation 'xla' on cpu"
        assert dispatch.choices() == (line,)

    def test_by_name_is_kept_too(self, monkeypatch):
        self.draw(implementation="reference")
        monkeypatch.setenv(dispatch.ENVIRONMENT, "xla")
        self.draw()
        self.draw(implementation="reference")
        by = "splats are drawn by the implementation"
        assert dispatch.choices() == (
            f"{by} 'reference' on cpu (as the caller says)",
            f"{by} 'xla' on cpu (as LGS_JAX_RASTERIZER says)",
        )

    def test_falls_back_only_where_one_declines(self, monkeypatch, caplog):
        def decline(*_, **__):
            raise NotImplementedError("not today")

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "xla", decline)
        with caplog.at_level("INFO", logger="absl"):
            self.draw()
        assert "'reference' on cpu (xla: not today)" in caplog.text

        def fail(*_, **__):
            raise RuntimeError("a real fault")

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "xla", fail)
        with pytest.raises(RuntimeError, match="a real fault"):
            self.draw()

    @pytest.mark.parametrize(
        ("implementation", "compiler"), [("pallas_gpu", "triton"), ("pallas_tpu", "tpu")]
    )
    def test_goes_on_where_jax_lacks_the_compiler_of_a_kernel(
        self, implementation, compiler, monkeypatch
    ):
        monkeypatch.setitem(dispatch.PREFERRED, "cpu", (implementation, "reference"))
        monkeypatch.setitem(sys.modules, f"jax.experimental.pallas.{compiler}", None)
        monkeypatch.delattr(pallas, compiler, raising=False)
        self.draw()
        (text,) = dispatch.choices()
        assert "'reference' on cpu" in text
        assert f"({implementation}: JAX {jax.__version__} has no jax.experimental.pallas" in text
        with pytest.raises(NotImplementedError, match=f"no jax.experimental.pallas.{compiler} "):
            self.draw(implementation)

    def test_of_the_environment_is_honoured(self, monkeypatch):
        called = []
        monkeypatch.setitem(
            dispatch.IMPLEMENTATIONS, "pallas_tpu", lambda *_, **__: called.append(1)
        )
        monkeypatch.setenv(dispatch.ENVIRONMENT, "pallas_tpu")
        self.draw()
        assert called
        monkeypatch.setenv(dispatch.ENVIRONMENT, "cuda")
        with pytest.raises(ValueError, match="LGS_JAX_RASTERIZER='cuda' must be one of"):
            self.draw()


def composite_arguments():
    """Splats, opacities and features of one image of 8 x 8 pixels."""
    splats = projection.project(
        make_scene(28, num=4)[None], make_cameras(8, 8)[None], height=8, width=8, near=0.1, far=10.0
    )
    return splats, jnp.full((1, 4), 0.5), jnp.ones((1, 4, 3))
