"""The local workspace: a Slack-compatible server on loopback, with a web page, for people who have no Slack."""
