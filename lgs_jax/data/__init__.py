"""Posed photographs to batches of NumPy arrays; no JAX in here.

`sources` parse formats, `scan` checks what they found, `assemble` turns a scene into views in the
scene frame, `pipeline` makes batches. `settings.DataSettings` holds every option.
"""
