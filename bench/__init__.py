"""Honest figures: each program measures Janus and its baseline in the same run, alternating."""
