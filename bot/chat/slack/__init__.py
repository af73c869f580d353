"""Slack: payloads in, blocks out."""
