"""Diffusion and flow processes: schedules, predictions, loss weights, grids, samplers, guidance.

No network in here: a denoiser enters as a function (z, log_snr) -> Prediction. The only noise
coordinate is log-SNR = log(alpha^2 / sigma^2), and z = alpha x + sigma eps. Modules may import
their siblings.
"""
