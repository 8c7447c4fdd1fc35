"""Runs: configuration, training, evaluation, prediction and export.

Nothing is imported here, so that the command line starts without torch.
"""
