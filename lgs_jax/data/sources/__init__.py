"""Readers of data formats.

A reader (`RealEstate10K`, ...) only parses; `scan.ScannedSource` checks what it found.
"""
