"""The trainer: state, mesh, optimizer, step, loop, checkpoints, stopping, logging.

Knows the functions of a task (`tasks.task.Task`), never a model; modules may import their siblings.
"""
