"""Frozen feature networks that judge images, and where their weights come from.

Modules may import their siblings.
"""
