"""Rendering of scenes of any representation by one function, `render`. Uses `core` alone."""

from lgs_jax.rendering.api import Rendering, register_renderer, render

__all__ = ["Rendering", "register_renderer", "render"]
