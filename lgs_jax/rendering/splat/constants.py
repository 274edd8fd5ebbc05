"""Numbers that define the image; those of gsplat 1.6, so that trained scenes look the same.

Changing one changes every image and every test vector.
"""

# A splat never covers a pixel fully, so that what lies behind keeps a gradient.
MAX_ALPHA = 0.99
# A contribution below one grey level of 8 bits is skipped.
MIN_ALPHA = 1.0 / 255.0
# A pixel stops *before* the splat that would bring its transmittance to this or less: (1 - 0.99)^2.
MIN_TRANSMITTANCE = 1e-4
# Half extent of a splat in standard deviations: exp(-3.33^2 / 2) < 1 / 255, so it cuts nothing.
MAX_EXTENT = 3.33
# Variance in px^2 added to the projected covariance: a splat is never thinner than a pixel.
EPS2D = 0.3
# Least variance that may be added instead: its square is what a splat seen edge-on has for a
# determinant, by which its covariance is inverted.
MIN_EPS2D = 1e-5
# The projected covariance is linearised no further outside the image than this share of its half
# width: beyond it the derivative of the projection explodes.
FRUSTUM_MARGIN = 0.3
# Floor of alpha where the accumulated depth is divided by it.
MIN_ALPHA_FOR_DEPTH = 1e-10
