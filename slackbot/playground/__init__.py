"""A local Slack and an offline Claude: the whole bot on a laptop, and what the tests talk to."""
